"""k-NN accuracy of the deployed encoder while it trains."""

import keras

from keras_sacl.evaluation.features import extract_features, inference
from keras_sacl.evaluation.knn import knn_accuracy


class KNNMonitor(keras.callbacks.Callback):
    """Adds `knn_top1` to the logs of every `every`-th epoch and of the last.

    A monitor, not a result: it sees the test images at every call and uses a subset of them.
    Put it before the callbacks that write the logs down.

    Args:
        bank, queries: Callables that give fresh iterables of (images, labels) batches, labelled;
            the images as the encoder takes them.
        every: Epochs between two measurements.
        k, temperature: As in `keras_sacl.evaluation.knn.knn_accuracy`.
    """

    def __init__(self, bank, queries, every=5, k=20, temperature=0.07):
        super().__init__()
        if every < 1:
            raise ValueError(f"`every` must be at least 1. Received: every={every}")
        self.bank, self.queries, self.every = bank, queries, every
        self.k, self.temperature = k, temperature
        self._encoder = self._encode = None

    def on_epoch_end(self, epoch, logs=None):
        last = epoch + 1 == self.params.get("epochs")
        if logs is None or not (last or (epoch + 1) % self.every == 0):
            return
        if self._encoder is None:
            self._encoder = self.model.deployed_encoder()
            self._encode = inference(self._encoder)  # traced once for the whole run
        self.model.copy_deployed_to(self._encoder)
        bank, bank_labels = extract_features(self._encode, self.bank())
        queries, labels = extract_features(self._encode, self.queries())
        logs["knn_top1"] = knn_accuracy(
            bank, bank_labels, queries, labels, k=self.k, temperature=self.temperature
        )
