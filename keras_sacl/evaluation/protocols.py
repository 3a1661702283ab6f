"""What can be measured on frozen features, by name; each figure beside the name of its protocol."""

import dataclasses

import numpy as np

from keras_sacl.evaluation import representation
from keras_sacl.evaluation.clusters import CLUSTER_PROTOCOL, cluster_alignment
from keras_sacl.evaluation.knn import (
    BEST_NN_PROTOCOL,
    KNN_PROTOCOL,
    best_nn_accuracy,
    few_label_accuracy,
    knn_accuracy,
    retrieval_recall,
)
from keras_sacl.evaluation.linear import LINEAR_PROTOCOL, linear_probe
from keras_sacl.evaluation.linear_sgd import LINEAR_SGD_PROTOCOL, linear_sgd_probe

RETRIEVAL_PROTOCOL = "recall-cosine-leave-one-out-v1"
REPRESENTATION_PROTOCOL = "representation-test-images-v1"
_DRAWS = 10


@dataclasses.dataclass(frozen=True)
class Features:
    """Features of a frozen encoder: (N, F) and (M, F) with labels (N,) and (M,).

    Attributes:
        train, train_labels, test, test_labels: The arrays; labels are None where there are none.
        seed: Of everything that is drawn.
    """

    train: np.ndarray
    train_labels: np.ndarray | None
    test: np.ndarray
    test_labels: np.ndarray | None
    seed: int = 0

    @property
    def labelled(self):
        """The arguments of the accuracies."""
        return self.train, self.train_labels, self.test, self.test_labels


def _knn(features):
    return {"knn_top1": knn_accuracy(*features.labelled), "knn_protocol": KNN_PROTOCOL}


def _best_nn(features):
    accuracy, k = best_nn_accuracy(*features.labelled)
    return {"best_nn_top1": accuracy, "best_nn_k": k, "best_nn_protocol": BEST_NN_PROTOCOL}


def _few(name, labels):
    def measure(features):
        mean, std = few_label_accuracy(
            *features.labelled, labels=labels, draws=_DRAWS, seed=features.seed
        )
        protocol = f"1nn-cosine-{name.removeprefix('knn_')}-{_DRAWS}draws-v1"
        return {f"{name}_top1": mean, f"{name}_spread": std, f"{name}_protocol": protocol}

    return measure


def _linear(features):
    probe = linear_probe(*features.labelled, seed=features.seed)
    return {
        "linear_top1": probe["top1"],
        "linear_protocol": LINEAR_PROTOCOL,
        "linear_inverse_penalty": probe["inverse_penalty"],
    }


def _linear_sgd(features):
    probe = linear_sgd_probe(*features.labelled, seed=features.seed)
    return {
        "linear_sgd_top1": probe["top1"],
        "linear_sgd_protocol": LINEAR_SGD_PROTOCOL,
        "linear_sgd_learning_rate": probe["learning_rate"],
        "linear_sgd_weight_decay": probe["weight_decay"],
    }


def _clusters(features):
    accuracy = cluster_alignment(*features.labelled, seed=features.seed)
    return {"clusters_top1": accuracy, "clusters_protocol": CLUSTER_PROTOCOL}


def _retrieval(features):
    recalls = retrieval_recall(features.test, features.test_labels)
    found = {f"recall_at_{k}": value for k, value in recalls.items()}
    return {**found, "retrieval_protocol": RETRIEVAL_PROTOCOL}


def _representation(features):
    found = {
        "uniformity": representation.uniformity(features.test),
        "effective_rank": representation.effective_rank(features.test),
        "dimension_std": representation.dimension_std(features.test),
        "off_diagonal_correlation": representation.off_diagonal_correlation(features.test),
        "representation_protocol": REPRESENTATION_PROTOCOL,
    }
    if features.test_labels is not None:
        found["intra_class_alignment"] = representation.intra_class_alignment(
            features.test, features.test_labels
        )
    return found


PROTOCOLS = {
    "knn": _knn,
    "best_nn": _best_nn,
    "knn_1shot": _few("knn_1shot", 1),
    "knn_1pct": _few("knn_1pct", 0.01),
    "knn_10pct": _few("knn_10pct", 0.1),
    "linear": _linear,
    "linear_sgd": _linear_sgd,
    "clusters": _clusters,
    "retrieval": _retrieval,
    "representation": _representation,
}
DEFAULT_PROTOCOLS = ("knn", "linear")
WITHOUT_LABELS = ("representation",)

# What a protocol gives beside its scores: settings that it chose, and names.
_DETAILS = ("_protocol", "_k", "_penalty", "_learning_rate", "_weight_decay", "feature_dim")


def is_score(name):
    """Whether an entry of a result is a score, which the untrained encoder has one of as well."""
    return not name.endswith(_DETAILS) and not name.startswith("num_")
