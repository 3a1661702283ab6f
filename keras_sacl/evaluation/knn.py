"""Weighted k-nearest-neighbour accuracy."""

import numpy as np

from keras_sacl.evaluation.features import l2_normalise

KNN_PROTOCOL = "knn20-cosine-t0.07-v1"
_BLOCK = 512  # queries at a time: the similarities in memory are (512, N)


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
        nearest = np.argpartition(-similarity, k - 1, axis=1)[:, :k]
        weights = np.exp(np.take_along_axis(similarity, nearest, axis=1) / temperature)
        votes = np.einsum("qk,qkc->qc", weights, one_hot[bank_labels[nearest]])
        correct += int((votes.argmax(axis=1) == query_labels[start : start + _BLOCK]).sum())
    return correct / len(queries)
