"""Selects the slim network's channels anew during training."""

import keras


class SlimRefresh(keras.callbacks.Callback):
    """Calls `refresh_channels` of the model's `SlimmableEncoder` every `steps` steps.

    Args:
        steps: Steps between two selections, counted from the start of training, so that a
            resumed run selects at the same steps.
    """

    def __init__(self, steps):
        super().__init__()
        if steps < 1:
            raise ValueError(f"`steps` must be at least 1. Received: steps={steps}")
        self.steps = steps

    def on_train_batch_end(self, batch, logs=None):
        if int(self.model.optimizer.iterations.numpy()) % self.steps == 0:
            self.model.encoder.refresh_channels()
