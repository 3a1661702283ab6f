"""How good the deployed encoder is while it trains."""

import keras
import numpy as np

from keras_sacl.callbacks.guard import TrainingStopped
from keras_sacl.evaluation import representation
from keras_sacl.evaluation.features import extract_features, extract_pairs, inference
from keras_sacl.evaluation.information import probe_information
from keras_sacl.evaluation.knn import knn_accuracy


class EncoderMonitor(keras.callbacks.Callback):
    """Adds to the logs of every `every`-th epoch, and of the last, what `measure` gives.

    A monitor, not a result: it looks at the same images again and again, and at a part of them.
    Put it before the callbacks that write the logs down.

    Args:
        every: Epochs between two measurements.

    Raises (out of `fit`):
        TrainingStopped: If a feature is not finite.
    """

    def __init__(self, every=5):
        super().__init__()
        if every < 1:
            raise ValueError(f"`every` must be at least 1. Received: every={every}")
        self.every = every
        self._encoder = self._encode = None

    def measure(self, encode):
        """Override this: from a function of images to (B, F) features, to a dict of floats."""
        raise NotImplementedError(f"{type(self).__name__} must define `measure(self, encode)`.")

    def on_epoch_end(self, epoch, logs=None):
        last = epoch + 1 == self.params.get("epochs")
        if logs is None or not (last or (epoch + 1) % self.every == 0):
            return
        if self._encoder is None:
            self._encoder = self.model.deployed_encoder()
            self._encode = inference(self._encoder)  # traced once for the whole run
        self.model.copy_deployed_to(self._encoder)
        logs.update(self.measure(self._finite_features))

    def _finite_features(self, images):
        features = np.asarray(self._encode(images))
        if not np.isfinite(features).all():
            raise TrainingStopped.not_finite("the features of the encoder are not finite")
        return features


class KNNMonitor(EncoderMonitor):
    """Logs `knn_top1`, the k-NN accuracy; and the encoder's place in the information plane.

    Args:
        bank, queries: Callables that give fresh iterables of (images, labels) batches, labelled;
            the images as the encoder takes them.
        every: As in `EncoderMonitor`.
        k, temperature: As in `keras_sacl.evaluation.knn.knn_accuracy`.
        information: Whether to log `i_x_t` and `i_t_y` of the queries too: see
            `keras_sacl.evaluation.information.probe_information`.
    """

    def __init__(self, bank, queries, every=5, k=20, temperature=0.07, information=False):
        super().__init__(every)
        self.bank, self.queries, self.information = bank, queries, information
        self.k, self.temperature = k, temperature

    def measure(self, encode):
        bank, bank_labels = extract_features(encode, self.bank())
        queries, labels = extract_features(encode, self.queries())
        sets = bank, bank_labels, queries, labels
        found = {"knn_top1": knn_accuracy(*sets, k=self.k, temperature=self.temperature)}
        if self.information:
            place = probe_information(*sets)
            found |= {name: place[name] for name in ("i_x_t", "i_t_y")}
        return found


class RepresentationMonitor(EncoderMonitor):
    """Logs what two views of some images say about the features, without labels.

    alignment and instance_discrimination of the two; uniformity, effective_rank, dimension_std
    and off_diagonal_correlation of the first: see `keras_sacl.evaluation.representation`.

    Args:
        views: Callable that gives a fresh iterable of (view a, view b) batches; the same views
            each time, so that the curves move by what the encoder learned alone.
        every: As in `EncoderMonitor`.
    """

    def __init__(self, views, every=5):
        super().__init__(every)
        self.views = views

    def measure(self, encode):
        a, b = extract_pairs(encode, self.views())
        return {**representation.agreement(a, b), **representation.spread(a)}
