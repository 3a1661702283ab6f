"""Stops a run that can no longer learn."""

import math

import keras


class TrainingStopped(RuntimeError):
    """Training cannot go on; what was saved before is whole. The text is one line."""

    @classmethod
    def not_finite(cls, what):
        """For something that is not finite any more: `what` says it, and where."""
        return cls(
            f"{what}; a lower learning rate, a longer warm-up or a smaller loss scale usually helps"
        )


class CollapseGuard(keras.callbacks.Callback):
    """Stops when the loss is not finite or the embeddings have become one point.

    Put it before the callback that saves, so that a bad state is never saved.

    Args:
        min_std: The lowest `embedding_std` (see `keras_sacl.losses`) that the steps between two
            looks may have on average; it is about 1 for embeddings that use all dimensions and 0
            after collapse.
        check_steps: The logs are looked at every so many steps and after each epoch. Reading them
            makes the accelerator wait for the host, so not every step. One bad step is enough:
            the logs are means over the epoch so far, and a NaN stays in a mean.

    Raises (out of `fit`):
        TrainingStopped: With the epoch, the step, the figure, and what would help.
    """

    def __init__(self, min_std=0.01, check_steps=50):
        super().__init__()
        if not 0 <= min_std < 1:
            raise ValueError(f"`min_std` must be in [0, 1). Received: min_std={min_std}")
        if check_steps < 1:
            raise ValueError(
                f"`check_steps` must be at least 1. Received: check_steps={check_steps}"
            )
        self.min_std, self.check_steps = min_std, check_steps
        self._begin(0)

    def on_epoch_begin(self, epoch, logs=None):
        self._begin(epoch)

    def _begin(self, epoch):
        self._epoch, self._before, self._seen = epoch, 0, (0, 0.0)
        self._next_check = self.check_steps

    def continue_epoch(self, done, logs):
        """Tells of the steps that an epoch had behind it when it was cut, after it has begun.

        Args:
            done: Their number.
            logs: The means over them, which those of the next steps go on from.
        """
        self._before, self._seen = done, (done, float(logs.get("embedding_std", 0.0)) * done)

    def on_train_batch_end(self, batch, logs=None):
        # Not every step need come by: with `steps_per_execution` several are one call.
        if batch + 1 >= self._next_check:
            self._next_check = batch + 1 + self.check_steps
            self.check(batch, logs)

    def on_epoch_end(self, epoch, logs=None):
        self._require(logs or {}, f"epoch {epoch + 1}")

    def check(self, batch, logs):
        """Looks at the logs after a batch.

        Raises:
            TrainingStopped: As `fit`.
        """
        done = self._before + batch + 1
        logs, where = logs or {}, f"epoch {self._epoch + 1}, step {done}"
        self._require(logs, where)
        if "embedding_std" not in logs:
            return
        # The logs are means since the epoch began: of the steps since the last look, the mean is
        # in the difference of the sums.
        (seen, total), now = self._seen, float(logs["embedding_std"]) * done
        if done > seen:
            self._require_spread((now - total) / (done - seen), where)
            self._seen = done, now

    def _require(self, logs, where):
        loss = logs.get("loss")
        if loss is not None and not math.isfinite(loss):
            raise TrainingStopped.not_finite(f"the loss is {loss} in {where}")
        std = logs.get("embedding_std")
        if std is not None:
            self._require_spread(float(std), where)

    def _require_spread(self, std, where):
        if std < self.min_std:
            raise TrainingStopped(
                f"the embeddings collapsed in {where}: embedding_std {std:.2g} is below "
                f"{self.min_std:g}; a lower learning rate or a longer warm-up usually helps"
            )
