"""Trains the host alone at first, and slims it later."""

import keras


class SlimSchedule(keras.callbacks.Callback):
    """Slims once `start_step` steps are done; until then the slim network is the host.

    So SACL + XD begins as XD of the host, and SACL as its Barlow Twins. The slim network sets out
    with the host's moving statistics and, with "magnitude", its largest channels at the change.

    The paper slims from the first step. A revision of the authors' development code
    (github.com/mengjian0502/solo-learn-sparse) waits too, for 10 of 1,000 epochs.

    Args:
        start_step: Steps before slimming, counted from the start of training. With
            `steps_per_execution`, slimming waits for the next call.
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
        # Whether to slim hangs on the steps alone, so that a resumed run does as one that was not
        # cut.
        self._slim(self._steps())

    def on_epoch_begin(self, epoch, logs=None):
        self._done = self._steps()

    def on_train_batch_begin(self, batch, logs=None):
        # Steps whose gradients overflowed are batches, but not among the optimizer's steps. It is
        # asked only now, since an accelerator has to stop for it.
        if not self.model.encoder.slimming and self._done + batch >= self.start_step:
            self._slim(self._steps())

    def _steps(self):
        return int(self.model.optimizer.iterations.numpy())

    def _slim(self, steps):
        encoder, past = self.model.encoder, steps - self.start_step
        if 0 <= past < self.model.steps_per_execution:  # nothing has been slimmed yet
            encoder.refresh_channels()
        if (past >= 0) != encoder.slimming:
            encoder.slimming = past >= 0
            # Keras looks its function up at each step, so that the new one is the next called.
            self.model.make_train_function(force=True)
            self.model.test_function = None
