"""The losses against float64 NumPy, and invariants that hold whatever the numbers."""

import numpy as np
import pytest
import tensorflow as tf

from keras_sacl import losses


def embeddings(n, d, seed=0):
    rng = np.random.default_rng(seed)
    a = rng.normal(size=(n, d)) @ rng.normal(size=(d, d)) / np.sqrt(d) + 0.3
    return a, 0.7 * a + 0.3 * rng.normal(size=(n, d))


def oracle_correlation(a, b):
    """Sum by sum, in float64, from the definition."""

    def standard(z):
        return (z - z.mean(0)) / np.sqrt(z.var(0) + 1e-5)

    return standard(a).T @ standard(b) / len(a)


def oracle_terms(a, b):
    c = oracle_correlation(a, b)
    return ((1 - np.diag(c)) ** 2).sum(), (c**2).sum() - (np.diag(c) ** 2).sum()


def float32(*arrays):
    return [tf.constant(a, "float32") for a in arrays]


@pytest.mark.parametrize("n, d", [(16, 40), (64, 64), (96, 24)])
@pytest.mark.parametrize("gram", [True, False, "auto"])
def test_terms_equal_the_oracle_by_either_path(n, d, gram):
    a, b = embeddings(n, d)
    on, off = losses.correlation_terms(*float32(a, b), gram=gram)
    np.testing.assert_allclose((on, off), oracle_terms(a, b), rtol=1e-5)


@pytest.mark.parametrize("n, d", [(16, 40), (64, 24)])
@pytest.mark.parametrize("gram", [True, False])
def test_gradients_equal_those_of_the_definition_in_float64(n, d, gram):
    """Ours are written out; autodiff of the plain formula is the oracle."""
    a, b = embeddings(n, d)
    with tf.GradientTape() as tape:
        x, y = float32(a, b)
        tape.watch([x, y])
        on, off = losses.correlation_terms(x, y, gram=gram)
        loss = 3.0 * on + 0.05 * off
    found = tape.gradient(loss, [x, y])
    with tf.GradientTape() as tape:
        x, y = tf.constant(a), tf.constant(b)
        tape.watch([x, y])

        def standard(z):
            mean, variance = tf.nn.moments(z, axes=[0])
            return (z - mean) / tf.sqrt(variance + 1e-5)

        c = tf.matmul(standard(x), standard(y), transpose_a=True) / n
        diagonal = tf.linalg.diag_part(c)
        off = tf.reduce_sum(c**2) - tf.reduce_sum(diagonal**2)
        loss = 3.0 * tf.reduce_sum((1 - diagonal) ** 2) + 0.05 * off
    expected = tape.gradient(loss, [x, y])
    for own, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(own, other, atol=1e-5 * np.abs(other).max())


def test_barlow_twins_equals_the_oracle():
    a, b = embeddings(32, 48)
    on, off = oracle_terms(a, b)
    loss = losses.barlow_twins(*float32(a, b), lambd=0.02)
    np.testing.assert_allclose(loss, on + 0.02 * off, rtol=1e-5)


def test_barlow_twins_by_hand():
    # Two identical, uncorrelated, standardised dimensions: the loss is zero.
    z = tf.constant([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]])
    np.testing.assert_allclose(losses.barlow_twins(z, z), 0.0, atol=1e-6)
    # One dimension twice: C is all ones, so two off-diagonal terms of 1 are left.
    twice = tf.repeat(z[:, :1], 2, axis=1)
    np.testing.assert_allclose(losses.barlow_twins(twice, twice, lambd=0.5), 1.0, rtol=1e-4)


def test_cross_distillation_equals_the_oracle():
    a, b = embeddings(32, 48)
    c, d = embeddings(32, 48, seed=1)
    expected = 0.5 * 0.01 * (oracle_terms(a, b)[1] + oracle_terms(c, d)[1])
    pairs = tuple(float32(a, b)), tuple(float32(c, d))
    np.testing.assert_allclose(losses.cross_distillation(*pairs, 0.01), expected, rtol=1e-5)


def test_negative_log_equals_the_oracle():
    def standard(z):
        return (z - z.mean(0)) / np.sqrt(z.var(0) + 1e-5)

    def softmax(z):
        e = np.exp(z - z.max(1, keepdims=True))
        return e / e.sum(1, keepdims=True)

    a, b = embeddings(32, 48)
    c, d = embeddings(32, 48, seed=1)
    expected = 0.5 * sum(
        -(softmax(standard(frozen)) * np.log(softmax(standard(z)))).sum(1).mean()
        for z, frozen in ((a, b), (c, d))
    )
    pairs = tuple(float32(a, b)), tuple(float32(c, d))
    np.testing.assert_allclose(losses.negative_log_distillation(*pairs), expected, rtol=1e-5)


def test_order_of_the_batch_and_scale_do_not_matter():
    a, b = embeddings(32, 48)
    order = np.random.default_rng(2).permutation(32)
    plain = losses.barlow_twins(*float32(a, b))
    np.testing.assert_allclose(losses.barlow_twins(*float32(a[order], b[order])), plain, rtol=1e-5)
    np.testing.assert_allclose(losses.barlow_twins(*float32(50 * a, 70 * b)), plain, rtol=1e-3)


def test_half_precision_embeddings_are_computed_in_float32():
    a, b = embeddings(32, 48)
    half = [tf.cast(x, "float16") for x in float32(a, b)]
    loss = losses.barlow_twins(*half)
    assert loss.dtype == tf.float32
    np.testing.assert_allclose(loss, losses.barlow_twins(*float32(a, b)), rtol=1e-2)


def test_embedding_std_tells_spread_from_collapse():
    rng = np.random.default_rng(0)
    spread = rng.normal(size=(4096, 64))
    assert 0.95 < losses.embedding_std(tf.constant(spread)) < 1.05
    assert losses.embedding_std(tf.constant(1e-19 * spread, "float32")) > 0.95
    assert losses.embedding_std(tf.ones((32, 64))) < 1e-6
    two_dimensions = spread @ np.pad(np.eye(64)[:, :2], ((0, 0), (0, 62)))
    assert losses.embedding_std(tf.constant(two_dimensions)) < 0.3
