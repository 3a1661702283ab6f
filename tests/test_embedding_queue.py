"""The queue against a list that forgets its oldest."""

import collections

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_sacl.embedding_queue import EmbeddingQueue, default_queue_size


def batches(count, size, width=4, seed=0):
    return np.random.default_rng(seed).normal(size=(count, size, width)).astype("float32")


def oldest_first(queue):
    rows, cursor = np.asarray(queue.embeddings), int(queue.cursor)
    return np.concatenate([rows[cursor:], rows[:cursor]])


# A divisor of the queue, none, as many, and more than it holds, once and twice over.
@pytest.mark.parametrize("size", [1, 5, 6, 7, 10, 13, 20, 33])
@pytest.mark.parametrize("compiled", [True, False])
def test_first_in_first_out(size, compiled):
    queue = EmbeddingQueue(10, 4)
    expected = collections.deque(oldest_first(queue), maxlen=10)
    enqueue = tf.function(queue.enqueue) if compiled else queue.enqueue
    for batch in batches(5, size):
        enqueue(tf.constant(batch))
        expected.extend(batch)
        np.testing.assert_array_equal(oldest_first(queue), np.stack(expected))


def test_batches_of_a_size_that_is_not_known():
    queue = EmbeddingQueue(10, 4)
    expected = collections.deque(oldest_first(queue), maxlen=10)
    enqueue = tf.function(queue.enqueue, input_signature=[tf.TensorSpec((None, 4))])
    for size in (3, 12, 8, 10):
        batch = batches(1, size)[0]
        enqueue(batch)
        expected.extend(batch)
        np.testing.assert_array_equal(oldest_first(queue), np.stack(expected))


def test_it_starts_with_random_unit_vectors():
    rows = np.asarray(EmbeddingQueue(2000, 8).embeddings)
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1.0, atol=1e-6)
    # No direction is preferred, and none comes twice.
    assert np.abs(rows.mean(axis=0)).max() < 0.03
    np.testing.assert_allclose(rows.T @ rows / 2000, np.eye(8) / 8, atol=0.02)
    assert len(np.unique(rows, axis=0)) == 2000
    again, other = (EmbeddingQueue(2000, 8, seed=seed).embeddings for seed in (0, 1))
    np.testing.assert_array_equal(again, rows)
    assert np.abs(other - rows).max() > 0.5


def test_what_was_read_before_stays_as_it_was():
    """In place, and yet not under what still reads it."""
    queue = EmbeddingQueue(6, 4)
    start = np.array(queue.embeddings)
    x = tf.Variable(tf.ones((3, 4)))

    @tf.function
    def step(batch):
        with tf.GradientTape() as tape:
            before = queue.embeddings
            loss = tf.reduce_sum(tf.matmul(x, before, transpose_b=True) ** 2)
            queue.enqueue(batch)
        return tape.gradient(loss, x), before

    for batch in batches(3, 4):
        gradient, before = step(batch)
        np.testing.assert_array_equal(before, start)
        np.testing.assert_allclose(gradient, 2 * np.ones((3, 4)) @ start.T @ start, rtol=1e-5)
        start = np.array(queue.embeddings)


def test_no_gradient_comes_out_of_it():
    queue = EmbeddingQueue(6, 4)
    assert not queue.trainable_variables
    x = tf.Variable(tf.ones((3, 4)))
    with tf.GradientTape() as tape:
        queue.enqueue(2 * x)
        loss = tf.reduce_sum(queue.embeddings)
    assert tape.gradient(loss, x) is None


@pytest.mark.parametrize(
    "policy, kept", [("mixed_float16", "float32"), ("float64", "float64"), ("float32", "float32")]
)
def test_it_is_kept_in_full_precision(policy, kept):
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        queue = EmbeddingQueue(6, 4)
    finally:
        keras.config.set_dtype_policy(before)
    queue.enqueue(tf.ones((2, 4), "float16"))
    assert queue.embeddings.dtype == kept and queue.cursor.dtype == "int64"
    assert oldest_first(queue).dtype == kept


@pytest.mark.parametrize(
    "images, size",
    [(1_281_167, 65_536), (50_000, 4096), (5421, 512), (1437, 128), (16, 2), (1, 2)],
)
def test_its_size_by_default(images, size):
    assert default_queue_size(images) == size


def test_its_size_by_default_has_a_limit():
    assert default_queue_size(1_281_167, 128_000) == 128_000
    assert default_queue_size(50_000, 1000) == 1000


def test_bad_arguments_are_named():
    for name in ("size", "width"):
        arguments = {"size": 3, "width": 3, name: 0}
        with pytest.raises(ValueError, match=f"`{name}` must be at least 1. Received: {name}=0"):
            EmbeddingQueue(**arguments)
