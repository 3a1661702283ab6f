"""Evaluation of frozen encoders: each figure under the name of its protocol."""

import numpy as np

from keras_sacl.evaluation.features import extract_features, fingerprint, l2_normalise
from keras_sacl.evaluation.knn import KNN_PROTOCOL, knn_accuracy
from keras_sacl.evaluation.linear import LINEAR_PROTOCOL, linear_probe
from keras_sacl.evaluation.linear_sgd import LINEAR_SGD_PROTOCOL, SGDSettings, linear_sgd_probe

__all__ = [
    "KNN_PROTOCOL",
    "LINEAR_PROTOCOL",
    "LINEAR_SGD_PROTOCOL",
    "SGDSettings",
    "evaluate_encoder",
    "extract_features",
    "fingerprint",
    "knn_accuracy",
    "l2_normalise",
    "linear_probe",
    "linear_sgd_probe",
]


def evaluate_encoder(encoder, train_batches, test_batches, *, seed=0):
    """k-NN and linear accuracy of a frozen encoder; the test images are used once.

    Args:
        encoder: A `keras.Model`, images to (B, F) features.
        train_batches, test_batches: Iterables of (images, labels).
        seed: Seed of the split on which the probe chooses its regularisation.

    Returns:
        A dict: knn_top1, linear_top1, their protocols, num_train, num_test, feature_dim,
        feature_std (mean over dimensions, on the test images).

    Raises:
        RuntimeError: If a weight or moving statistic of the encoder changed on the way.
    """
    before = fingerprint(encoder)
    train, train_labels = extract_features(encoder, train_batches)
    test, test_labels = extract_features(encoder, test_batches)
    if fingerprint(encoder) != before:
        raise RuntimeError("the encoder changed while it was evaluated; it must be frozen")
    probe = linear_probe(train, train_labels, test, test_labels, seed=seed)
    return {
        "knn_top1": knn_accuracy(train, train_labels, test, test_labels),
        "knn_protocol": KNN_PROTOCOL,
        "linear_top1": probe["top1"],
        "linear_protocol": LINEAR_PROTOCOL,
        "linear_inverse_penalty": probe["inverse_penalty"],
        "num_train": len(train),
        "num_test": len(test),
        "feature_dim": train.shape[1],
        "feature_std": float(np.mean(np.std(test, axis=0, dtype="float64"))),
    }
