"""Evaluation of frozen encoders: each figure under the name of its protocol."""

import numpy as np

from keras_sacl.evaluation.clusters import CLUSTER_PROTOCOL, cluster_alignment
from keras_sacl.evaluation.features import extract_features, fingerprint, l2_normalise
from keras_sacl.evaluation.knn import (
    BEST_NN_PROTOCOL,
    KNN_PROTOCOL,
    best_nn_accuracy,
    few_label_accuracy,
    knn_accuracy,
    retrieval_recall,
)
from keras_sacl.evaluation.linear import LINEAR_PROTOCOL, linear_probe
from keras_sacl.evaluation.linear_sgd import LINEAR_SGD_PROTOCOL, SGDSettings, linear_sgd_probe
from keras_sacl.evaluation.protocols import (
    DEFAULT_PROTOCOLS,
    PROTOCOLS,
    WITHOUT_LABELS,
    Features,
    is_score,
)

__all__ = [
    "DEFAULT_PROTOCOLS",
    "PROTOCOLS",
    "WITHOUT_LABELS",
    "is_score",
    "BEST_NN_PROTOCOL",
    "CLUSTER_PROTOCOL",
    "KNN_PROTOCOL",
    "LINEAR_PROTOCOL",
    "LINEAR_SGD_PROTOCOL",
    "SGDSettings",
    "best_nn_accuracy",
    "cluster_alignment",
    "evaluate_encoder",
    "extract_features",
    "few_label_accuracy",
    "fingerprint",
    "knn_accuracy",
    "l2_normalise",
    "linear_probe",
    "linear_sgd_probe",
    "retrieval_recall",
]


def evaluate_encoder(encoder, train_batches, test_batches, *, protocols=DEFAULT_PROTOCOLS, seed=0):
    """Scores of a frozen encoder; the test images are used once by each protocol.

    Args:
        encoder: A `keras.Model`, images to (B, F) features.
        train_batches, test_batches: Iterables of (images, labels).
        protocols: Names in `PROTOCOLS`.
        seed: Seed of all that is drawn: the split on which probes choose, few labels, k-means.

    Returns:
        A dict: knn_top1, linear_top1, ... as the protocols give them, with the versioned name of
        each; num_train, num_test, feature_dim, feature_std (mean over dimensions, on the test
        images).

    Raises:
        ValueError: On an unknown protocol, or one that needs labels where there are none.
        RuntimeError: If a weight or moving statistic of the encoder changed on the way.
    """
    for name in protocols:
        if name not in PROTOCOLS:
            raise ValueError(
                f"`protocols` must be among {', '.join(PROTOCOLS)}. Received: {name!r}"
            )
    before = fingerprint(encoder)
    train, train_labels = extract_features(encoder, train_batches)
    test, test_labels = extract_features(encoder, test_batches)
    if fingerprint(encoder) != before:
        raise RuntimeError("the encoder changed while it was evaluated; it must be frozen")
    if min(train_labels.min(), test_labels.min()) < 0:  # how images without a label are marked
        train_labels = test_labels = None
        lacking = [name for name in protocols if name not in WITHOUT_LABELS]
        if lacking:
            raise ValueError(f"`protocols` need labelled images. Received: {', '.join(lacking)}")
    features = Features(train, train_labels, test, test_labels, seed)
    found = {}
    for name in protocols:
        found |= PROTOCOLS[name](features)
    return {
        **found,
        "num_train": len(train),
        "num_test": len(test),
        "feature_dim": train.shape[1],
        "feature_std": float(np.mean(np.std(test, axis=0, dtype="float64"))),
    }
