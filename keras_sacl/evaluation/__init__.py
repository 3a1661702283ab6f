"""Evaluation of frozen encoders: each figure under the name of its protocol."""

import keras
import numpy as np

from keras_sacl.evaluation.clusters import CLUSTER_PROTOCOL, cluster_alignment
from keras_sacl.evaluation.features import (
    extract_features,
    extract_pairs,
    inference,
    l2_normalise,
)
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
    Features,
    fitting,
    is_score,
    label_kind,
    protocol_of,
    score_title,
)
from keras_sacl.fingerprint import fingerprint

__all__ = [
    "DEFAULT_PROTOCOLS",
    "PROTOCOLS",
    "fitting",
    "is_score",
    "label_kind",
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
    "extract_pairs",
    "few_label_accuracy",
    "knn_accuracy",
    "l2_normalise",
    "linear_probe",
    "protocol_of",
    "score_title",
    "linear_sgd_probe",
    "retrieval_recall",
]


def evaluate_encoder(
    encoder, train_batches, test_batches, *, protocols=DEFAULT_PROTOCOLS, views=None, seed=0
):
    """Scores of a frozen encoder; the test images are used once by each protocol.

    Args:
        encoder: A `keras.Model`, images to (B, F) features; or any callable of that kind, such as
            a TFLite file behind `keras_sacl.export.open_encoder`.
        train_batches, test_batches: Iterables of (images, labels), that begin anew each time.
        protocols: Names in `PROTOCOLS`.
        views: Two views of images, for the protocols that compare them: a dict from "train" or
            "test" to an iterable of (images, images). None if there are none.
        seed: Seed of all that is drawn: the split on which probes choose, few labels, k-means.

    Returns:
        A dict: knn_top1, linear_top1, ... as the protocols give them, with the versioned name of
        each; num_train, num_test, feature_dim, feature_std (mean over dimensions, on the test
        images); not_measured, from a protocol to the reason, where images were too few for one.

    Raises:
        ValueError: On an unknown protocol, or one that needs what is not there.
        RuntimeError: If a weight or moving statistic of the encoder changed on the way.
    """
    for name in protocols:
        if name not in PROTOCOLS:
            raise ValueError(
                f"`protocols` must be among {', '.join(PROTOCOLS)}. Received: {name!r}"
            )
    model = encoder if isinstance(encoder, keras.Model) else None
    before = fingerprint(model) if model else None
    encode = inference(model) if model else encoder
    train, train_labels = extract_features(encode, train_batches)
    test, test_labels = extract_features(encode, test_batches)
    labels = label_kind(train_labels, test_labels)
    if labels == "none":
        train_labels = test_labels = None
    fit = fitting(labels, views=views is not None, encoder=model is not None)
    for name in protocols:
        if name not in fit:
            raise ValueError(_lacking(name, labels))
    compares = any(PROTOCOLS[name].needs == "views" for name in protocols)
    pairs = views if compares else {}
    features = Features(
        train, train_labels, test, test_labels, seed,
        views={split: extract_pairs(encode, batches) for split, batches in pairs.items()},
        encoder=model, batches=(train_batches, test_batches),
    )  # fmt: skip
    found, not_measured = {}, {}
    for name in protocols:
        try:
            found |= PROTOCOLS[name].measure(features)
        except ValueError as error:  # too few images, or of too few classes: the others stand
            not_measured[name] = " ".join(str(error).split())
    if not_measured:
        found["not_measured"] = not_measured
    if model and fingerprint(model) != before:
        raise RuntimeError("the encoder changed while it was evaluated; it must be frozen")
    return {
        **found,
        "num_train": len(train),
        "num_test": len(test),
        "feature_dim": train.shape[1],
        "feature_std": float(np.mean(np.std(test, axis=0, dtype="float64"))),
    }


def _lacking(name, labels):
    """Why a protocol does not fit, in one line."""
    protocol = PROTOCOLS[name]
    if protocol.labels not in (labels, "none"):
        wanted = {"one": "images labelled with one class each", "many": "multi-hot labels"}
        return f"`protocols` with {name} need {wanted[protocol.labels]}. Received: {labels}"
    wanted = {"views": "two views of images (`views`)", "encoder": "a keras.Model"}
    return f"`protocols` with {name} need {wanted[protocol.needs]}. Received: none"
