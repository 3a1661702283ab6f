"""Weighted k-nearest-neighbour accuracy."""

import numpy as np
import tensorflow as tf

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
    bank = tf.constant(bank)

    # One trace for all blocks, the last and smaller one among them.
    @tf.function(input_signature=[tf.TensorSpec((None, bank.shape[1]), bank.dtype)])
    def search(queries):
        return top_columns(tf.matmul(queries, bank, transpose_b=True), k)

    correct = 0
    for start in range(0, len(queries), _BLOCK):
        similarity, nearest = search(tf.constant(queries[start : start + _BLOCK]))
        weights = np.exp(similarity.numpy() / temperature)
        votes = np.einsum("qk,qkc->qc", weights, one_hot[bank_labels[nearest.numpy()]])
        correct += int((votes.argmax(axis=1) == query_labels[start : start + _BLOCK]).sum())
    return correct / len(queries)


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
