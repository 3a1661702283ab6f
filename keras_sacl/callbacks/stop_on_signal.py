"""Ends training at a signal, with everything saved."""

import contextlib
import signal

import keras

from keras_sacl.replicas import worker_count

_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class StoppedBySignal(KeyboardInterrupt):
    """A signal ended training after a checkpoint was written.

    Attributes:
        number: The signal's number. 128 more than that is the usual exit code.
    """

    def __init__(self, number):
        super().__init__(signal.Signals(number).name)
        self.number = number


class StopOnSignal(keras.callbacks.Callback):
    """Saves after the step in which SIGTERM or SIGINT came, and ends `fit`.

    A second signal ends at once, without saving. Put it last; during `fit` use `listening`.

    Args:
        checkpoint: A `RunCheckpoint`.

    Raises (out of `fit`):
        StoppedBySignal: After the checkpoint.
    """

    def __init__(self, checkpoint):
        super().__init__()
        self.checkpoint, self.received = checkpoint, None

    @contextlib.contextmanager
    def listening(self):
        """A context in which the signals are waited for; only the main thread can."""
        try:
            before = {number: signal.signal(number, self._note) for number in _SIGNALS}
        except ValueError:  # not the main thread: whoever started it has the signals
            before = {}
        try:
            yield
        except StoppedBySignal:
            self.received = None
            raise
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
            # One that came in the last step, or in one that failed.
            if self.received is not None:
                raise StoppedBySignal(self.received)

    def on_train_batch_end(self, batch, logs=None):
        if self.received is not None and batch + 1 != self.params.get("steps"):
            # One worker of several cannot save by itself.
            with self.model.distribute_strategy.scope():
                alone = worker_count() == 1
            if alone:
                self.checkpoint.save_within(batch, logs)
            raise StoppedBySignal(self.received)

    def on_epoch_end(self, epoch, logs=None):
        if self.received is not None:  # the checkpoint has saved the epoch already
            raise StoppedBySignal(self.received)

    def _note(self, number, frame):
        if self.received is not None:
            raise StoppedBySignal(number)
        self.received = number
