"""Trains the host alone at first, and slims it later."""

import keras


class SlimSchedule(keras.callbacks.Callback):
    """Turns slimming on when `start_step` steps are done; until then the slim network is the host.

    So SACL + XD begins as XD of the host, and SACL as its Barlow Twins. At the change the slim
    network takes over the host's moving statistics and, with "magnitude", its largest channels.

    The paper slims from the first step; the authors' development code
    (github.com/mengjian0502/solo-learn-sparse) has a dense start too, 10 of 1,000 epochs.

    Args:
        start_step: Steps before slimming, counted from the start of training, so that a resumed
            run does as one that was not cut. With `steps_per_execution`, slimming waits for the
            next call.
    """

    def __init__(self, start_step):
        super().__init__()
        if start_step < 0:
            raise ValueError(
                f"`start_step` must not be negative. Received: start_step={start_step}"
            )
        self.start_step = start_step
        self._done = 0

    def on_train_begin(self, logs=None):
        # At the very step nothing has been slimmed yet: what follows a start is done below.
        slimming = self._steps() > self.start_step
        if slimming != self.model.encoder.slimming:
            self.model.encoder.slimming = slimming
            self._make_new_graphs()

    def on_epoch_begin(self, epoch, logs=None):
        self._done = self._steps()

    def on_train_batch_begin(self, batch, logs=None):
        if self.model.encoder.slimming or self._done + batch < self.start_step:
            return
        # Steps whose gradients overflowed are not among the optimizer's. It is asked only now,
        # since an accelerator has to stop for it.
        if self._steps() >= self.start_step:
            self.model.encoder.start_slimming()
            self._make_new_graphs()

    def _steps(self):
        return int(self.model.optimizer.iterations.numpy())

    def _make_new_graphs(self):
        # Keras looks its function up at each step, so that this one is the next to be called.
        self.model.make_train_function(force=True)
        self.model.test_function = None
