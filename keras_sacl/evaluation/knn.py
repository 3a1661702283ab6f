"""Weighted k-nearest-neighbour accuracy."""

import numpy as np

from keras_sacl.evaluation.features import l2_normalise

KNN_PROTOCOL = "knn20-cosine-t0.07-v1"
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
        ValueError: If `k` or `temperature` is not positive, or a label is negative (unknown).
    """
    if k < 1:
        raise ValueError(f"`k` must be at least 1. Received: k={k}")
    if not temperature > 0:
        raise ValueError(f"`temperature` must be positive. Received: temperature={temperature}")
    bank_labels, query_labels = np.asarray(bank_labels), np.asarray(query_labels)
    if min(bank_labels.min(), query_labels.min()) < 0:
        raise ValueError("k-NN needs labelled images. Received a label below 0.")
    bank, queries = l2_normalise(bank), l2_normalise(queries)
    k = min(k, len(bank))
    one_hot = np.eye(bank_labels.max() + 1, dtype="float32")
    correct = 0
    for start in range(0, len(queries), _BLOCK):
        similarity = queries[start : start + _BLOCK] @ bank.T
        nearest = top_columns(similarity, k)
        weights = np.exp(np.take_along_axis(similarity, nearest, axis=1) / temperature)
        votes = np.einsum("qk,qkc->qc", weights, one_hot[bank_labels[nearest]])
        correct += int((votes.argmax(axis=1) == query_labels[start : start + _BLOCK]).sum())
    return correct / len(queries)


def top_columns(values, k):
    """The columns of the k largest values of each row, in no order.

    The k largest lie in the k groups with the largest maxima, so only those are searched: a
    maximum over groups costs a tenth of a partition of all columns.

    Args:
        values: (M, N) floats.
        k: 1 to N.

    Returns:
        (M, k) integers.
    """
    rows, columns = values.shape
    groups = columns // _GROUPED
    if groups <= 2 * k:
        return np.argpartition(-values, k - 1, axis=1)[:, :k]
    # Group g holds the columns g, g + groups, ...: neighbours in memory are of different groups,
    # which lets the maxima be taken a vector at a time. What is left over joins the candidates.
    whole = groups * _GROUPED
    maxima = values[:, :whole].reshape(rows, _GROUPED, groups).max(axis=1)
    best = np.argpartition(-maxima, k - 1, axis=1)[:, :k]
    inside = best[:, None, :] + groups * np.arange(_GROUPED)[:, None]
    rest = np.broadcast_to(np.arange(whole, columns), (rows, columns - whole))
    candidates = np.concatenate([inside.reshape(rows, -1), rest], axis=1)
    among = np.take_along_axis(values, candidates, axis=1)
    chosen = np.argpartition(-among, k - 1, axis=1)[:, :k]
    return np.take_along_axis(candidates, chosen, axis=1)
