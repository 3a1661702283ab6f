"""Checkpoints that a kill cannot spoil."""

import json
import os
import zipfile
from pathlib import Path

import keras
import numpy as np

from keras_sacl.callbacks.guard import TrainingStopped

_FORMAT = 2  # 1 had no metrics: it stood at the end of an epoch, where they start anew


class CheckpointError(RuntimeError):
    """A checkpoint could not be written; those before it are whole. The text is one line."""


class RunCheckpoint(keras.callbacks.Callback):
    """Saves the whole training state, atomically, and restores it.

    A checkpoint is one .npz file of every variable of the model (moving statistics, channel
    masks, queues and random states among them; not its `frozen_variables`), of its optimizer and
    of its metrics. It is written under another name, synced, and renamed: what stands under a
    checkpoint's name is whole. No pickle is involved.

    Args:
        directory: Where the checkpoints go; it is made when needed.
        keep: How many of the newest to keep.
        every_steps: Save after every so many steps, beside the end of each epoch; 0 for there
            alone.
        rate_factor: Kept in the checkpoint: what the learning rate has been multiplied by.
        write: False on all workers but the first.
        guard: A `CollapseGuard` to ask before a state within an epoch is saved.

    Attributes:
        step: Batches of the run that the state has behind it. (Not the optimizer's iterations,
            which leave out the steps that overflow in float16.)

    Raises (out of `fit`):
        CheckpointError: If the file system refuses.
        TrainingStopped: If a weight is not finite.
    """

    def __init__(self, directory, keep=2, every_steps=0, rate_factor=1.0, write=True, guard=None):
        super().__init__()
        if keep < 1:
            raise ValueError(f"`keep` must be at least 1. Received: keep={keep}")
        if every_steps < 0:
            raise ValueError(
                f"`every_steps` must not be negative. Received: every_steps={every_steps}"
            )
        self.directory, self.keep, self.every_steps = Path(directory), keep, every_steps
        self.rate_factor, self.write, self.guard = rate_factor, write, guard
        self.step = 0
        self._batches, self._metrics, self._saved = 0, None, None

    def on_epoch_begin(self, epoch, logs=None):
        self._batches = 0
        # Keras has just reset them: those of an epoch that is resumed in its middle go on.
        if self._metrics is not None:
            for variable, value in zip(self.model.metrics_variables, self._metrics, strict=True):
                variable.assign(value)
            self._metrics = None
            if self.guard is not None:
                left = self.params["steps"]
                done = (self.step + left) // (epoch + 1) - left
                self.guard.continue_epoch(done, self.model.get_metrics_result())

    def on_train_batch_end(self, batch, logs=None):
        # Not every step need come by: with `steps_per_execution` several are one call.
        before, self.step = self.step, self.step + batch + 1 - self._batches
        self._batches = batch + 1
        # The state after an epoch's last step is saved at the epoch's end: after its line is
        # written, which a run that goes on from there would not write.
        if not self.every_steps or batch + 1 == self.params.get("steps"):
            return
        if self.step // self.every_steps > before // self.every_steps:
            self.save_within(batch, logs)

    def save_within(self, batch, logs):
        """Saves the state after a batch within an epoch, if the guard finds it sound."""
        if self.guard is not None:
            self.guard.check(batch, logs)
        self.save(self.model)

    def on_epoch_end(self, epoch, logs=None):
        self.save(self.model, epoch_done=True)

    def save(self, model, epoch_done=False):
        """Writes the present state, unless it is written already.

        Args:
            model: The model in training.
            epoch_done: Whether an epoch ends here.

        Raises:
            CheckpointError: If the file system refuses.
            TrainingStopped: If a weight is not finite; such a state is not saved.
        """
        step = self.step
        if self._saved == step:
            return
        # On all workers, though one writes: those of metrics are summed over the workers.
        arrays = {f"{i:05d}": np.asarray(v) for i, v in enumerate(_state(model))}
        if not all(np.isfinite(a).all() for a in arrays.values() if a.dtype.kind == "f"):
            raise TrainingStopped.not_finite(f"the weights are not finite after step {step}")
        if not self.write:
            self._saved = step
            return
        meta = {
            "format": _FORMAT,
            "step": step,
            "epoch_done": epoch_done,
            "rate_factor": self.rate_factor,
            "names": _names(model),
        }
        path = self.directory / f"step-{step:09d}.npz"
        temporary = path.with_suffix(".tmp")
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            with temporary.open("wb") as file:
                np.savez(file, meta=np.array(json.dumps(meta)), **arrays)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        except OSError as error:
            temporary.unlink(missing_ok=True)
            left = self.paths()
            before = f"; {left[-1].name} before it is whole" if left else ""
            raise CheckpointError(
                f"checkpoint {path} cannot be written ({error.strerror or error}){before}"
            ) from error
        self._saved = step
        for old in self.paths()[: -self.keep]:
            old.unlink(missing_ok=True)

    def paths(self):
        """The checkpoints, oldest first."""
        return sorted(self.directory.glob("step-*.npz"))

    def restore(self, model, warn=print):
        """Restores the newest whole checkpoint into a compiled model.

        What an earlier writer left half done is removed, and what cannot be read is set aside.

        Args:
            model: The model, built and compiled as the saved one was.
            warn: Called with one line for each newer checkpoint that cannot be read.

        Returns:
            `step`; 0 if there is no checkpoint.

        Raises:
            ValueError: If a whole checkpoint does not fit the model.
        """
        if not model.optimizer.built:  # that of float16 would make its variables again
            with model.distribute_strategy.scope():
                model.optimizer.build(model.trainable_variables)
        if self.write:
            for left in self.directory.glob("step-*.tmp"):
                left.unlink(missing_ok=True)
        for path in reversed(self.paths()):
            try:
                with np.load(path, allow_pickle=False) as file:
                    meta = json.loads(str(file["meta"]))
                    arrays = [file[f"{i:05d}"] for i in range(len(meta["names"]))]
            except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
                warn(f"checkpoint {path} cannot be read ({error}); trying the one before it")
                if self.write:  # under its name it would count as the newest
                    path.rename(path.with_suffix(".broken"))
                continue
            self._assign(model, meta, arrays, path)
            self.rate_factor = meta.get("rate_factor", 1.0)
            self.step = self._saved = meta["step"]
            return self.step
        return 0

    def _assign(self, model, meta, arrays, path):
        names, variables = _names(model), _state(model)
        metrics = len(model.metrics_variables)
        if meta["format"] == 1:
            names, variables, metrics = names[:-metrics], variables[:-metrics], 0
        shapes = [list(v.shape) for v in variables]
        if (
            meta["format"] not in (1, _FORMAT)
            or names != meta["names"]
            or shapes != [list(a.shape) for a in arrays]
        ):
            raise ValueError(
                f"`model` must be the one that {path} was saved from, which has {len(arrays)} "
                f"variables (format {meta['format']}). Received: model with {len(variables)}, or "
                "of other names or shapes"
            )
        for variable, array in zip(variables, arrays, strict=True):
            variable.assign(array)
        going_on = metrics and not meta["epoch_done"]
        self._metrics = arrays[-metrics:] if going_on else None


def _state(model):
    frozen = {id(v) for v in getattr(model, "frozen_variables", ())}
    own = [v for v in model.variables if id(v) not in frozen]
    return [*own, *model.optimizer.variables, *model.metrics_variables]


def _names(model):
    # Paths hold counters that differ from process to process; names and order do not.
    return [v.name for v in _state(model)]
