"""Which networks train when: the host alone, both, the slim network alone."""

import keras


class SlimSchedule(keras.callbacks.Callback):
    """The host alone for `start_step` steps, then both, from `alone_step` the slim network alone.

    So SACL + XD begins as XD of the host and ends as XD of the slim network, SACL as their Barlow
    Twins. The slim network sets out with the host's moving statistics and, with "magnitude", its
    largest channels at the change. In the end the host is no longer run; its other weights decay
    and move by what momentum they have left, and LARS and LAMB still scale by the norms of the
    whole.

    The paper slims from the first step to the last. A revision of the authors' development code
    (github.com/mengjian0502/solo-learn-sparse) begins later, after 10 of 1,000 epochs.

    Args:
        start_step: Steps before slimming, counted from the start of training. With
            `steps_per_execution`, a change waits for the next call.
        alone_step: Steps after which the host rests, above `start_step`; None: it never does.
    """

    def __init__(self, start_step=0, alone_step=None):
        super().__init__()
        if start_step < 0:
            raise ValueError(
                f"`start_step` must not be negative. Received: start_step={start_step}"
            )
        if alone_step is not None and alone_step <= start_step:
            raise ValueError(
                f"`alone_step` must be above `start_step`. Received: alone_step={alone_step}, "
                f"start_step={start_step}"
            )
        self.start_step, self.alone_step = start_step, alone_step
        self._done = 0

    def on_train_begin(self, logs=None):
        # What trains hangs on the steps alone, so that a resumed run does as one that was not cut.
        self._change(self._steps())

    def on_epoch_begin(self, epoch, logs=None):
        self._done = self._steps()

    def on_train_batch_begin(self, batch, logs=None):
        # Steps whose gradients overflowed are batches, but not among the optimizer's steps. It is
        # asked only now, since an accelerator has to stop for it.
        if self._trains(self._done + batch) != self.model.encoder.trains:
            self._change(self._steps())

    def _steps(self):
        return int(self.model.optimizer.iterations.numpy())

    def _trains(self, steps):
        if steps < self.start_step:
            return "host"
        return "both" if self.alone_step is None or steps < self.alone_step else "slim"

    def _change(self, steps):
        encoder, trains = self.model.encoder, self._trains(steps)
        if 0 <= steps - self.start_step < self.model.steps_per_execution:
            encoder.refresh_channels()  # nothing has been slimmed yet
        if trains != encoder.trains:
            encoder.trains = trains
            # Keras looks its function up at each step, so that the new one is the next called.
            self.model.make_train_function(force=True)
            self.model.test_function = None
