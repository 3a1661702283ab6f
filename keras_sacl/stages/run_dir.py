"""The run directory: what a run leaves behind, and when a new run may use it."""

import json
import os
import shutil
from pathlib import Path

from keras_sacl.callbacks import read_metrics
from keras_sacl.config import ConfigError
from keras_sacl.config.settings import check_between
from keras_sacl.keras_files import load_keras


class RunDir:
    """The paths of a run: flags.txt, metrics.jsonl, results.json, encoder.keras, checkpoints/, ...

    Args:
        path: The directory.
    """

    def __init__(self, path):
        self.path = Path(path)
        self.flags = self.path / "flags.txt"
        self.metrics = self.path / "metrics.jsonl"
        self.results_file = self.path / "results.json"
        self.checkpoints = self.path / "checkpoints"
        self.encoder = self.path / "encoder.keras"
        self.projector = self.path / "projector.keras"
        self.classifier = self.path / "classifier.keras"
        self.export = self.path / "export"
        self.report = self.path / "report.html"
        self.tensorboard = self.path / "tensorboard"

    def check(self, config):
        """Refuses a directory that the run of `config` must not touch; changes nothing.

        Raises:
            ConfigError: If it is not a directory, cannot be written, holds something else than
                the run to resume or to read, or lacks what the first stage needs.
        """
        if self.path.exists() and not self.path.is_dir():
            raise ConfigError("run_dir", self.path, "is a file; name a directory")
        parent = self.path
        while not parent.exists():
            parent = parent.parent
        if not parent.is_dir() or not os.access(parent, os.W_OK | os.X_OK):
            raise ConfigError(
                "run_dir", self.path, f"cannot be written ({parent} is not a writable directory)"
            )
        filled = self.path.exists() and any(self.path.iterdir())
        if "pretrain" not in config.stages:
            if config.eval_encoder is None and not self.encoder.is_file():
                raise ConfigError(
                    "run_dir", self.path,
                    f"has no encoder.keras for --stages={','.join(config.stages)}; "
                    "run the pretrain stage first",
                )  # fmt: skip
            foreign = filled and not (self.flags.is_file() or self.results_file.is_file())
            if config.eval_encoder is not None and foreign:
                raise ConfigError(
                    "run_dir", self.path, "is not empty and holds no run; name another"
                )
            if config.overwrite:
                raise ConfigError(
                    "overwrite", True, "would delete the encoder that the stages need; leave it out"
                )
        elif filled and not (config.resume or config.overwrite):
            raise ConfigError(
                "run_dir", self.path, "is not empty; add --resume or --overwrite, or name another"
            )
        elif filled and not self.flags.is_file():
            raise ConfigError(
                "run_dir", self.path, "is not empty and holds no run (no flags.txt); name another"
            )
        if config.resume and config.stop_epoch is not None:
            reached = max((line["epoch"] for line in read_metrics(self.metrics)), default=0)
            check_between(
                "stop_epoch", config.last_epoch, reached, config.epochs,
                given=f"the run in {self.path} has {reached} behind it",
            )  # fmt: skip
        if not config.overwrite:
            self.results()

    def start(self, config):
        """Makes the directory, clears an overwritten run, writes flags.txt.

        Raises:
            ConfigError: If the file system refuses.
        """
        try:
            if config.overwrite and self.path.exists():
                shutil.rmtree(self.path)
            self.path.mkdir(parents=True, exist_ok=True)
            if "pretrain" in config.stages:
                write_text(self.flags, "\n".join(config.flag_lines()) + "\n")
        except OSError as error:
            reason = f"cannot be written ({error.strerror})"
            raise ConfigError("run_dir", self.path, reason) from error

    def results(self):
        """The contents of results.json; empty before the first stage has ended."""
        if not self.results_file.exists():
            return {}
        try:
            return json.loads(self.results_file.read_text(encoding="utf-8"))
        except ValueError as error:
            raise ConfigError(
                "run_dir", self.path, f"has a results.json that is no JSON ({error}); remove it"
            ) from error

    def encoders(self, widths):
        """The files of the deployed encoders: encoder.keras, and encoder_w0.5.keras and so on.

        Args:
            widths: The deployed widths, the widest first.

        Returns:
            A dict from width to path.
        """
        widest, *others = widths
        return {widest: self.encoder, **{w: self.path / f"encoder_w{w}.keras" for w in others}}

    def load_encoder(self, path=None):
        """An encoder that pretraining left; by default the widest, encoder.keras.

        Raises:
            ConfigError: If the file is broken, or holds code (Keras' safe mode is on).
        """
        try:
            return load_keras(path or self.encoder)
        except ValueError as error:
            name = (path or self.encoder).name
            raise ConfigError(
                "run_dir", self.path, f"has an {name} that {error}; pretrain again"
            ) from error

    def record(self, stage, result):
        """Puts one stage's result into results.json."""
        results = {**self.results(), stage: result}
        write_text(self.results_file, json.dumps(results, indent=2) + "\n")


def write_text(path, text):
    """Writes a text file whole or not at all."""
    temporary = path.with_name(path.name + ".tmp")
    with temporary.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)
