"""Accuracies by nearest neighbours: weighted votes, few labels, retrieval."""

import numpy as np
import tensorflow as tf

from keras_sacl.data.labelled import draw_of_each_class
from keras_sacl.evaluation.features import class_labels, l2_normalise

KNN_PROTOCOL = "knn20-cosine-t0.07-v1"
NN_PROTOCOL = "1nn-cosine-v1"  # with all labels; CompRess' "nearest neighbour"
BEST_NN_PROTOCOL = "best-nn-k1to101-cosine-t0.07-v1"
_BEST_OF = tuple(range(1, 102, 2))
_BLOCK = 512  # queries at a time: the similarities in memory are (512, N)
_GROUPED = 16


def knn_accuracy(bank, bank_labels, queries, query_labels, *, k=20, temperature=0.07):
    """Top-1 accuracy of a vote of the k nearest neighbours, each weighing exp(cosine / t).

    "Unsupervised Feature Learning via Non-Parametric Instance Discrimination" (2018), section
    3.4. The protocol `KNN_PROTOCOL` is the one with the default arguments.

    Args:
        bank: (N, F) features of labelled images.
        bank_labels: (N,) integers from 0.
        queries: (M, F) features.
        query_labels: (M,) integers.
        k: How many neighbours vote; all of the bank if it is smaller.
        temperature: t.

    Returns:
        The accuracy, a float in [0, 1].

    Raises:
        ValueError: If `k` or `temperature` is not positive, or a label is negative (unknown) or
            multi-hot.
    """
    similarity, votes = _neighbours(bank, bank_labels, queries, query_labels, k)
    return _vote(similarity, votes, np.asarray(query_labels), temperature)


def best_nn_accuracy(bank, bank_labels, queries, query_labels, *, temperature=0.07):
    """The best k-NN accuracy over k in 1, 3, ..., 101.

    Known as `BEST_NN_PROTOCOL`. It chooses k on the queries, so it flatters a little.

    Args:
        bank, bank_labels, queries, query_labels, temperature: As in `knn_accuracy`.

    Returns:
        (accuracy, k): a float in [0, 1], and the smallest k that reaches it.
    """
    most = min(_BEST_OF[-1], len(bank))
    similarity, votes = _neighbours(bank, bank_labels, queries, query_labels, most)
    labels = np.asarray(query_labels)
    found = {
        k: _vote(similarity[:, :k], votes[:, :k], labels, temperature)
        for k in _BEST_OF
        if k <= most
    }
    best = max(found.values())
    return best, next(k for k, accuracy in found.items() if accuracy == best)


def few_label_accuracy(bank, bank_labels, queries, query_labels, *, labels, draws=10, seed=0):
    """1-NN accuracy (cosine) with few labelled images.

    Args:
        bank, bank_labels, queries, query_labels: As in `knn_accuracy`.
        labels: An int, so many images of each class, or a float in (0, 1), that share of the
            images of each class, at least one.
        draws: How many times the labelled images are drawn.
        seed: Of the draws.

    Returns:
        (mean, standard deviation) over the draws, the latter of a sample (0 for one draw).

    Raises:
        ValueError: If a class has fewer images than asked for.
    """
    bank_labels = class_labels(bank_labels)
    rng = np.random.default_rng(seed)
    accuracies = []
    for _ in range(draws):
        chosen = draw_of_each_class(bank_labels, labels, rng)
        accuracies.append(
            knn_accuracy(bank[chosen], bank_labels[chosen], queries, query_labels, k=1)
        )
    return float(np.mean(accuracies)), float(np.std(accuracies, ddof=1)) if draws > 1 else 0.0


def retrieval_recall(features, labels, *, ks=(1, 2, 4, 8)):
    """Recall at k: the share of images with one of their class among their k nearest others.

    "Deep Metric Learning via Lifted Structured Feature Embedding" (2016), section 5; by cosine.

    Args:
        features: (N, F).
        labels: (N,) integers.
        ks: Numbers of neighbours, below N.

    Returns:
        A dict from k to the recall, a float in [0, 1].
    """
    labels = class_labels(labels)
    if max(ks) >= len(features):
        raise ValueError(f"`ks` must be below the {len(features)} images. Received: ks={ks}")
    features = l2_normalise(features)
    _, nearest = nearest_neighbours(features, features, max(ks) + 1)
    own = nearest == np.arange(len(features))[:, None]
    # Of equal images another may come before one's own, even push it out: then the last goes.
    own[~own.any(axis=1), -1] = True
    others = nearest[~own].reshape(len(features), max(ks))
    right = labels[others] == labels[:, None]
    return {k: float(right[:, :k].any(axis=1).mean()) for k in ks}


def nearest_neighbours(bank, queries, k):
    """The k rows of the bank with the largest inner product with each query, largest first.

    Args:
        bank: (N, F) float32.
        queries: (M, F) float32.
        k: 1 to N.

    Returns:
        (products, indices): (M, k) float32 and int32.
    """
    bank, found = tf.constant(bank), []
    for start in range(0, len(queries), _BLOCK):
        block = queries[start : start + _BLOCK]
        # Of one size, since another one would be traced anew.
        padded = np.pad(block, [[0, _BLOCK - len(block)], [0, 0]])
        found.append([part.numpy()[: len(block)] for part in _search(bank, padded, k)])
    products, indices = zip(*found, strict=True)
    return np.concatenate(products), np.concatenate(indices)


@tf.function
def _search(bank, queries, k):
    return top_columns(tf.matmul(queries, bank, transpose_b=True), k)


def _neighbours(bank, bank_labels, queries, query_labels, k):
    """(similarities, labels) of each query's k nearest, both (M, k)."""
    if k < 1:
        raise ValueError(f"`k` must be at least 1. Received: k={k}")
    bank_labels, query_labels = class_labels(bank_labels), class_labels(query_labels)
    if min(bank_labels.min(), query_labels.min()) < 0:
        raise ValueError("k-NN needs labelled images. Received a label below 0.")
    bank, queries = l2_normalise(bank), l2_normalise(queries)
    similarity, nearest = nearest_neighbours(bank, queries, min(k, len(bank)))
    return similarity, bank_labels[nearest]


def _vote(similarity, votes, labels, temperature):
    if not temperature > 0:
        raise ValueError(f"`temperature` must be positive. Received: temperature={temperature}")
    classes = np.arange(votes.max() + 1)
    # Relative to the nearest, which comes first: a small temperature would overflow.
    weights = np.exp((similarity - similarity[:, :1]) / temperature)
    correct = 0
    for start in range(0, len(labels), _BLOCK):
        part = slice(start, start + _BLOCK)
        of_class = votes[part, :, None] == classes
        scores = np.einsum("qk,qkc->qc", weights[part], of_class.astype("float32"))
        correct += int((scores.argmax(axis=1) == labels[part]).sum())
    return correct / len(labels)


def top_columns(values, k):
    """The k largest values of each row, largest first, and their columns.

    The k largest lie in the k groups with the largest maxima, so only those are searched: taking
    maxima over groups costs a tenth of sorting out all columns.

    Args:
        values: (M, N) floats; N is known when the graph is built.
        k: 1 to N.

    Returns:
        (values, columns): (M, k) floats and int32.
    """
    values = tf.convert_to_tensor(values)
    columns = values.shape[1]
    groups = columns // _GROUPED
    if groups <= 2 * k:
        return tf.math.top_k(values, k)
    # Group g holds the columns g, g + groups, ...: neighbours in memory are of different groups,
    # which lets the maxima be taken a vector at a time. What is left over joins the candidates.
    whole = groups * _GROUPED
    grouped = tf.reshape(values[:, :whole], [-1, _GROUPED, groups])
    best = tf.math.top_k(tf.reduce_max(grouped, axis=1), k, sorted=False).indices
    inside = best[:, None, :] + groups * tf.range(_GROUPED)[:, None]
    inside = tf.reshape(inside, [-1, k * _GROUPED])
    rest = tf.broadcast_to(tf.range(whole, columns), [tf.shape(values)[0], columns - whole])
    candidates = tf.concat([inside, rest], axis=1)
    top = tf.math.top_k(tf.gather(values, candidates, batch_dims=1), k)
    return top.values, tf.gather(candidates, top.indices, batch_dims=1)
