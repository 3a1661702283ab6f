"""Selects the slim network's channels anew during training."""

import keras


class SlimRefresh(keras.callbacks.Callback):
    """Calls `refresh_channels` of the model's `SlimmableEncoder` every `steps` steps.

    Not while the slim network trains alone, since the other channels no longer learn then.

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
        encoder, done = self.model.encoder, int(self.model.optimizer.iterations.numpy())
        if done % self.steps == 0 and encoder.trains != "slim":
            encoder.refresh_channels()
