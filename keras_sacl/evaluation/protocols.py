"""What can be measured on frozen features, by name; each figure beside the name of its protocol."""

import dataclasses
from collections.abc import Callable, Iterable

import numpy as np

from keras_sacl.evaluation import representation
from keras_sacl.evaluation.clusters import CLUSTER_PROTOCOL, cluster_alignment
from keras_sacl.evaluation.information import INFORMATION_PROTOCOL, probe_information
from keras_sacl.evaluation.knn import (
    BEST_NN_PROTOCOL,
    KNN_PROTOCOL,
    NN_PROTOCOL,
    best_nn_accuracy,
    few_label_accuracy,
    knn_accuracy,
    retrieval_recall,
)
from keras_sacl.evaluation.layers import LAYERS_PROTOCOL, layer_probe
from keras_sacl.evaluation.linear import LINEAR_PROTOCOL, linear_probe
from keras_sacl.evaluation.linear_papers import (
    COMPRESS,
    DISCO,
    DISCO_RESNET,
    SSL_SMALL,
    paper_probe,
)
from keras_sacl.evaluation.linear_sgd import LINEAR_SGD_PROTOCOL, linear_sgd_probe
from keras_sacl.evaluation.multi_label import MULTI_LABEL_PROTOCOL, multi_label_map

RETRIEVAL_PROTOCOL = "recall-cosine-leave-one-out-v1"
REPRESENTATION_PROTOCOL = "representation-test-images-v1"
TWO_VIEWS_PROTOCOL = "two-views-v1"
_DRAWS = 10


@dataclasses.dataclass(frozen=True)
class Features:
    """What a protocol may look at: features of a frozen encoder, (N, F) and (M, F).

    Attributes:
        train, test: The features.
        train_labels, test_labels: Integers (N,) and (M,); multi-hot (N, C) and (M, C), where an
            image has several classes; or None.
        seed: Of everything that is drawn.
        views: From "train" or "test" to features (a, b) of two views of some of these images,
            (V, F) each; empty where there are none.
        encoder: The `keras.Model`, or None where only its features are at hand.
        batches: The batches of images and labels that the features are of, (train, test).
    """

    train: np.ndarray
    train_labels: np.ndarray | None
    test: np.ndarray
    test_labels: np.ndarray | None
    seed: int = 0
    views: dict = dataclasses.field(default_factory=dict)
    encoder: object = None
    batches: tuple[Iterable, Iterable] = ((), ())

    @property
    def labelled(self):
        """The arguments of the accuracies."""
        return self.train, self.train_labels, self.test, self.test_labels


def _knn(features):
    return {"knn_top1": knn_accuracy(*features.labelled), "knn_protocol": KNN_PROTOCOL}


def _nn(features):
    return {"nn_top1": knn_accuracy(*features.labelled, k=1), "nn_protocol": NN_PROTOCOL}


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


def _linear_paper(name, probe):
    def measure(features):
        accuracy = paper_probe(*features.labelled, probe, seed=features.seed)
        return {f"{name}_top1": accuracy, f"{name}_protocol": probe.protocol}

    return measure


def _clusters(features):
    accuracy = cluster_alignment(*features.labelled, seed=features.seed)
    return {"clusters_top1": accuracy, "clusters_protocol": CLUSTER_PROTOCOL}


def _retrieval(features):
    recalls = retrieval_recall(features.test, features.test_labels)
    found = {f"recall_at_{k}": value for k, value in recalls.items()}
    return {**found, "retrieval_protocol": RETRIEVAL_PROTOCOL}


def _representation(features):
    found = {
        **representation.spread(features.test),
        "representation_protocol": REPRESENTATION_PROTOCOL,
    }
    if features.test_labels is not None and features.test_labels.ndim == 1:
        found["intra_class_alignment"] = representation.intra_class_alignment(
            features.test, features.test_labels
        )
    return found


def _information(features):
    found = probe_information(*features.labelled, seed=features.seed)
    return {**found, "information_protocol": INFORMATION_PROTOCOL}


def _multi_label(features):
    found = multi_label_map(*features.labelled, seed=features.seed)
    scores = {name: found[name] for name in ("map", "map_11_point")}
    return {**scores, "multi_label_protocol": MULTI_LABEL_PROTOCOL}


def _layers(features):
    rows = layer_probe(features.encoder, *features.batches, seed=features.seed)
    found = {f"layer{i}_top1": row["top1"] for i, row in enumerate(rows, start=1)}
    # Chosen on the held-out fifth, not on the test images.
    best = max(rows, key=lambda row: row["held_out_top1"])
    found["layers_best_top1"], found["layers_best_layer"] = best["top1"], best["layer"]
    return {**found, "layers_protocol": LAYERS_PROTOCOL}


def _two_views(features):
    found = {"two_views_protocol": TWO_VIEWS_PROTOCOL}
    for split, (a, b) in features.views.items():
        found |= {f"{name}_{split}": v for name, v in representation.agreement(a, b).items()}
        found[f"num_views_{split}"] = len(a)
    return found


@dataclasses.dataclass(frozen=True)
class Protocol:
    """A measurement on frozen features, and what it needs.

    Attributes:
        measure: From `Features` to a dict of scores, settings and versioned names.
        labels: "one" for a class of each image, "many" for multi-hot labels, "none" if it can do
            without.
        needs: "features", "views" (two of each image) or "encoder" (the network itself).
        scores: Beginnings of the names of its scores, where these do not begin with its own.
    """

    measure: Callable
    labels: str = "one"
    needs: str = "features"
    scores: tuple = ()

    def fits(self, labels, *, views, encoder):
        """Whether there is what it needs.

        Args:
            labels: The kind there is: "one", "many" or "none".
            views, encoder: Whether there are two views of images; the network itself.
        """
        there = {"features": True, "views": views, "encoder": encoder}
        return self.labels in (labels, "none") and there[self.needs]


PROTOCOLS = {
    "knn": Protocol(_knn),
    "nn": Protocol(_nn),
    "best_nn": Protocol(_best_nn),
    "knn_1shot": Protocol(_few("knn_1shot", 1)),
    "knn_1pct": Protocol(_few("knn_1pct", 0.01)),
    "knn_10pct": Protocol(_few("knn_10pct", 0.1)),
    "linear": Protocol(_linear),
    "linear_sgd": Protocol(_linear_sgd),
    "linear_disco": Protocol(_linear_paper("linear_disco", DISCO)),
    "linear_disco_resnet": Protocol(_linear_paper("linear_disco_resnet", DISCO_RESNET)),
    "linear_ssl_small": Protocol(_linear_paper("linear_ssl_small", SSL_SMALL)),
    "linear_compress": Protocol(_linear_paper("linear_compress", COMPRESS)),
    "clusters": Protocol(_clusters),
    "retrieval": Protocol(_retrieval, scores=("recall",)),
    "representation": Protocol(
        _representation,
        labels="none",
        scores=("uniformity", "effective_rank", "dimension_std", "off_diagonal", "intra_class"),
    ),
    "two_views": Protocol(
        _two_views, labels="none", needs="views", scores=("alignment", "instance_discrimination")
    ),
    "information": Protocol(_information, scores=("i_x_t", "i_t_y")),
    "layers": Protocol(_layers, needs="encoder", scores=("layer",)),
    "multi_label": Protocol(_multi_label, labels="many", scores=("map",)),
}
DEFAULT_PROTOCOLS = ("knn", "linear")


def label_kind(*labels):
    """ "none", "one" or "many": what labels (None, (N,) with -1 for unknown, or (N, C)) are.

    Of several sets what they have in common; "none" if that is nothing.
    """
    kinds = {_label_kind(own) for own in labels}
    return kinds.pop() if len(kinds) == 1 else "none"


def _label_kind(labels):
    if labels is None or (labels.ndim == 1 and labels.min() < 0):
        return "none"
    return "one" if labels.ndim == 1 else "many"


def fitting(labels, *, views, encoder):
    """The names of all protocols that fit; the arguments are those of `Protocol.fits`."""
    return tuple(
        name
        for name, protocol in PROTOCOLS.items()
        if protocol.fits(labels, views=views, encoder=encoder)
    )


# What a result holds beside scores: settings that a protocol chose, names, sizes.
_DETAILS = (
    "_protocol", "_k", "_penalty", "_learning_rate", "_weight_decay", "_layer", "_max",
    "feature_dim", "feature_std", "dataset", "not_measured",
)  # fmt: skip
_TITLES = {
    "i_x_t": "I(X; T), bits", "i_t_y": "I(T; Y), bits",
    "i_t_y_shuffled": "I(T; Y), labels shuffled", "map": "mAP", "map_11_point": "mAP, 11 points",
    "off_diagonal_correlation": "off-diagonal correlation",
    "intra_class_alignment": "intra-class alignment", "nn_top1": "1-NN top-1",
}  # fmt: skip


def is_score(name):
    """Whether an entry of a result is a score, which the untrained encoder has one of as well."""
    return not name.endswith(_DETAILS) and not name.startswith("num_")


def protocol_of(score, result):
    """The versioned name of the protocol that gave a score of a result; "" if it is none's."""
    found = [
        (len(beginning), name)
        for name, protocol in PROTOCOLS.items()
        for beginning in (name, *protocol.scores)
        if score.startswith(beginning) and f"{name}_protocol" in result
    ]
    return result[f"{max(found)[1]}_protocol"] if found else ""


def score_title(score):
    """What to call a score in a table."""
    title = score.replace("top1", "top-1").replace("best_nn", "best-NN").replace("knn", "k-NN")
    return _TITLES.get(score, title.replace("_", " "))
