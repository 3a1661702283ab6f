"""Selects the slim network's channels anew during training."""

import keras


class SlimRefresh(keras.callbacks.Callback):
    """Calls `refresh_channels` of the model's `SlimmableEncoder` every `steps` steps.

    Before a step and not behind one, so that what is measured, saved or deployed has trained the
    channels that it has. Not while the slim network trains alone, since the other channels no
    longer learn then.

    Args:
        steps: Steps between two selections, counted from the start of training, so that a
            resumed run selects at the same steps. With `steps_per_execution`, a selection waits
            for the next call.
    """

    def __init__(self, steps):
        super().__init__()
        if steps < 1:
            raise ValueError(f"`steps` must be at least 1. Received: steps={steps}")
        self.steps = steps
        self._before = 0

    def on_train_begin(self, logs=None):
        # A checkpoint is of before the selection that its step may bring.
        self._before = max(0, self._done() - 1)

    def on_train_batch_begin(self, batch, logs=None):
        before, self._before = self._before, self._done()
        due = self._before // self.steps > before // self.steps
        if due and self.model.encoder.trains != "slim":
            self.model.encoder.refresh_channels()

    def _done(self):
        return int(self.model.optimizer.iterations.numpy())
