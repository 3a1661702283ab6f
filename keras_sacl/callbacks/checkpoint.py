"""Checkpoints that a kill cannot spoil."""

import json
import os
import zipfile
from pathlib import Path

import keras
import numpy as np

_FORMAT = 1


class RunCheckpoint(keras.callbacks.Callback):
    """Saves the whole training state after every epoch, atomically, and restores it.

    A checkpoint is one .npz file of every variable of the model (moving statistics, channel
    masks and random states among them) and of its optimizer. It is written under another name,
    synced, and renamed: what stands under a checkpoint's name is whole. No pickle is involved.

    Args:
        directory: Where the checkpoints go; it is made when needed.
        keep: How many of the newest to keep.
    """

    def __init__(self, directory, keep=2):
        super().__init__()
        if keep < 1:
            raise ValueError(f"`keep` must be at least 1. Received: keep={keep}")
        self.directory, self.keep = Path(directory), keep

    def on_epoch_end(self, epoch, logs=None):
        self.save(self.model, epoch + 1)

    def save(self, model, epoch):
        """Writes the state after `epoch` whole epochs."""
        arrays = {f"{i:05d}": np.asarray(v) for i, v in enumerate(_state(model))}
        step = int(model.optimizer.iterations.numpy())
        meta = {"format": _FORMAT, "epoch": epoch, "step": step, "names": _names(model)}
        self.directory.mkdir(parents=True, exist_ok=True)
        path = self.directory / f"step-{step:09d}.npz"
        temporary = path.with_suffix(".tmp")
        with temporary.open("wb") as file:
            np.savez(file, meta=np.array(json.dumps(meta)), **arrays)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        for old in self.paths()[: -self.keep]:
            old.unlink()

    def paths(self):
        """The checkpoints, oldest first."""
        return sorted(self.directory.glob("step-*.npz"))

    def restore(self, model, warn=print):
        """Restores the newest whole checkpoint into a compiled model.

        Args:
            model: The model, built and compiled as the saved one was.
            warn: Called with one line for each newer checkpoint that cannot be read.

        Returns:
            The number of whole epochs that the state has behind it; 0 if there is no checkpoint.

        Raises:
            ValueError: If a whole checkpoint does not fit the model.
        """
        with model.distribute_strategy.scope():
            model.optimizer.build(model.trainable_variables)
        for path in reversed(self.paths()):
            try:
                with np.load(path, allow_pickle=False) as file:
                    meta = json.loads(str(file["meta"]))
                    arrays = [file[f"{i:05d}"] for i in range(len(meta["names"]))]
            except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
                warn(f"checkpoint {path} cannot be read ({error}); trying the one before it")
                continue
            self._assign(model, meta, arrays, path)
            return meta["epoch"]
        return 0

    def _assign(self, model, meta, arrays, path):
        names, variables = _names(model), _state(model)
        shapes = [list(v.shape) for v in variables]
        if (
            meta["format"] != _FORMAT
            or names != meta["names"]
            or shapes != [list(a.shape) for a in arrays]
        ):
            raise ValueError(
                f"`resume` needs a checkpoint of this model; {path} holds another one (format "
                f"{meta['format']}, {len(arrays)} variables against {len(variables)})."
            )
        for variable, array in zip(variables, arrays, strict=True):
            variable.assign(array)


def _state(model):
    return [*model.variables, *model.optimizer.variables]


def _names(model):
    # Paths hold counters that differ from process to process; names and order do not.
    return [v.name for v in _state(model)]
