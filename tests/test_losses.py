"""The losses against float64 NumPy, and invariants that hold whatever the numbers."""

import numpy as np
import pytest
import scipy.special
import scipy.stats
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


@pytest.mark.parametrize("n, d, lambd", [(16, 40, 0.1), (128, 256, 0.03)])
def test_chance_is_the_mean_over_independent_embeddings(n, d, lambd):
    rng = np.random.default_rng(0)
    pairs = [(rng.normal(size=(n, d)), rng.normal(size=(n, d))) for _ in range(200)]
    found = [on + lambd * off for on, off in (oracle_terms(a, b) for a, b in pairs)]
    error = 4 * np.std(found) / np.sqrt(len(found))
    assert losses.barlow_twins_by_chance(n, d, lambd) == pytest.approx(np.mean(found), abs=error)


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
    expected += 0.5 * (oracle_terms(a, b)[0] + oracle_terms(c, d)[0])
    whole = losses.cross_distillation(*pairs, 0.01, diagonal=True)
    np.testing.assert_allclose(whole, expected, rtol=1e-5)


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


TINY = [1.0, 1e-19, 1e-30, 1e19]


def unit(z):
    return z / np.linalg.norm(z, axis=1, keepdims=True)


def gradient_of(f, *tensors):
    tensors = [tf.constant(x) for x in tensors]
    with tf.GradientTape() as tape:
        tape.watch(tensors)
        loss = f(*tensors)
    return loss, tape.gradient(loss, tensors)


@pytest.mark.parametrize("scale", TINY)
def test_l2_normalise_keeps_the_direction_of_the_tiniest(scale):
    z = np.random.default_rng(0).normal(size=(6, 9))
    weights = np.random.default_rng(1).normal(size=(6, 9))
    tiny = (z * scale).astype("float32")

    def weighted(x):
        return tf.reduce_sum(losses.l2_normalise(x) * tf.cast(weights, x.dtype))

    np.testing.assert_allclose(losses.l2_normalise(tf.constant(tiny)), unit(z), atol=1e-6)
    _, (found,) = gradient_of(weighted, tiny)
    # d (w z / |z|) / dz = (w - (w u) u) / |z|
    u = unit(z)
    expected = weights - (weights * u).sum(axis=1, keepdims=True) * u
    expected /= np.linalg.norm(z, axis=1, keepdims=True)
    np.testing.assert_allclose(np.asarray(found, np.float64) * scale, expected, atol=1e-5)


def test_l2_normalise_of_nothing_is_nothing():
    z = np.zeros((3, 4), "float32")
    z[1] = 2.0
    found = losses.l2_normalise(tf.constant(z))
    np.testing.assert_array_equal(found, [[0] * 4, [0.5] * 4, [0] * 4])
    _, (gradient,) = gradient_of(lambda x: tf.reduce_sum(losses.l2_normalise(x)[:, 0]), z)
    np.testing.assert_array_equal(np.asarray(gradient)[[0, 2]], 0.0)
    assert np.isfinite(gradient).all()


@pytest.mark.parametrize(
    "dtype, precise", [("float16", "float32"), ("bfloat16", "float32"), ("float64", "float64")]
)
def test_unit_vectors_are_precise(dtype, precise):
    z = tf.cast(np.random.default_rng(0).normal(size=(6, 300)), dtype)
    found = losses.l2_normalise(z)
    assert found.dtype == precise
    np.testing.assert_allclose(found, unit(np.asarray(tf.cast(z, "float64"))), atol=1e-7)


@pytest.mark.parametrize("temperature", [0.05, 0.2, 1.0])
def test_info_nce_equals_the_oracle(temperature):
    """Equation 1 sum by sum, and its gradient: -(k+ - sum of p k) / (N T)."""
    rng = np.random.default_rng(0)
    q, k, negatives = (unit(rng.normal(size=(n, 7))) for n in (12, 12, 50))
    q = unit(q + 0.5 * k)
    logits = np.concatenate([(q * k).sum(1, keepdims=True), q @ negatives.T], 1) / temperature
    p = scipy.special.softmax(logits, axis=1)
    expected = -np.log(p[:, 0]).mean()
    gradient = ((p[:, :1] - 1) * k + p[:, 1:] @ negatives) / temperature / len(q)

    def loss(q):
        return losses.info_nce(q, tf.constant(k), tf.constant(negatives), temperature)[0]

    found, (own,) = gradient_of(loss, q)
    np.testing.assert_allclose(found, expected, rtol=1e-12)
    np.testing.assert_allclose(own, gradient, rtol=1e-10, atol=1e-14)
    found, accuracy = losses.info_nce(*float32(q, k, negatives), temperature)
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    np.testing.assert_allclose(accuracy, (logits.argmax(axis=1) == 0).mean())
    assert 0 < accuracy < 1


def test_info_nce_stays_finite():
    rng = np.random.default_rng(0)
    q = unit(rng.normal(size=(8, 5)))
    for keys, negatives in ((q, -q), (-q, q), (q, q), (q * 0, q)):
        for temperature in (1e-3, 0.2):
            loss, (g, *_) = gradient_of(
                lambda *x, t=temperature: losses.info_nce(*x, t)[0], *float32(q, keys, negatives)
            )
            assert np.isfinite(loss) and loss >= 0 and np.isfinite(g).all()
    # All keys alike: one of K + 1.
    loss, accuracy = losses.info_nce(*float32(q, q * 0, np.zeros((9, 5))))
    np.testing.assert_allclose(loss, np.log(10), rtol=1e-6)
    assert accuracy == 0


@pytest.mark.parametrize("scale", [1.0, 100.0])
def test_soft_cross_entropy_equals_scipy(scale):
    rng = np.random.default_rng(0)
    s, t = scale * rng.normal(size=(6, 40)), scale * rng.normal(size=(6, 40))
    p, q = scipy.special.softmax(t, axis=1), scipy.special.softmax(s, axis=1)
    divergence = np.where(p > 0, p * (scipy.special.log_softmax(t, 1)), 0).sum(1)
    divergence -= (p * scipy.special.log_softmax(s, axis=1)).sum(axis=1)

    def loss(s, t):
        return losses.soft_cross_entropy(s, t)[0]

    found, (own, of_teacher) = gradient_of(loss, s, t)
    entropy = losses.soft_cross_entropy(tf.constant(s), tf.constant(t))[1]
    np.testing.assert_allclose(entropy, scipy.stats.entropy(p, axis=1).mean(), atol=1e-12)
    np.testing.assert_allclose(found - entropy, divergence.mean(), rtol=1e-10)
    np.testing.assert_allclose(own, (q - p) / len(s), atol=1e-12)
    assert of_teacher is None
    if scale == 1.0:
        np.testing.assert_allclose(
            found - entropy, scipy.special.rel_entr(p, q).sum(axis=1).mean(), rtol=1e-10
        )


def oracle_sinkhorn(scores, epsilon, iterations):
    """As the released code has it: sums and quotients, prototypes in rows."""
    q = np.exp(np.asarray(scores, np.float64) / epsilon).T
    q /= q.sum()
    prototypes, images = q.shape
    for _ in range(iterations):
        q /= q.sum(axis=1, keepdims=True)
        q /= prototypes
        q /= q.sum(axis=0, keepdims=True)
        q /= images
    return (q * images).T


@pytest.mark.parametrize("images, prototypes", [(24, 6), (6, 24), (16, 16), (5, 1)])
@pytest.mark.parametrize("iterations", [1, 3, 300])
def test_sinkhorn_equals_the_released_code(images, prototypes, iterations):
    scores = np.random.default_rng(0).uniform(-1, 1, (images, prototypes))
    found = losses.sinkhorn(tf.constant(scores), 0.05, iterations)
    np.testing.assert_allclose(found, oracle_sinkhorn(scores, 0.05, iterations), atol=1e-10)
    single = losses.sinkhorn(tf.constant(scores, "float32"), 0.05, iterations)
    np.testing.assert_allclose(single, found, atol=1e-4)
    np.testing.assert_allclose(np.sum(found, axis=1), 1.0, rtol=1e-12)
    if iterations == 300:
        np.testing.assert_allclose(np.sum(found, axis=0), images / prototypes, rtol=1e-4)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_sinkhorn_of_any_scores_is_finite(dtype):
    rng = np.random.default_rng(0)
    for scale in (0.0, 1.0, 1e3, 6e4):
        scores = tf.cast(rng.uniform(-scale, scale, (12, 5)), dtype)
        found = losses.sinkhorn(scores)
        assert found.dtype == tf.float32 and np.isfinite(found).all()
        np.testing.assert_allclose(np.sum(found, axis=1), 1.0, rtol=1e-5)
        if not scale:
            np.testing.assert_allclose(found, 0.2, rtol=1e-6)


def test_sinkhorn_has_no_gradient():
    scores = np.random.default_rng(0).normal(size=(6, 4))
    assert gradient_of(lambda x: tf.reduce_sum(losses.sinkhorn(x)[:, 0]), scores)[1] == [None]


def test_embedding_std_tells_spread_from_collapse():
    rng = np.random.default_rng(0)
    spread = rng.normal(size=(4096, 64))
    assert 0.95 < losses.embedding_std(tf.constant(spread)) < 1.05
    assert losses.embedding_std(tf.constant(1e-19 * spread, "float32")) > 0.95
    assert losses.embedding_std(tf.ones((32, 64))) < 1e-6
    two_dimensions = spread @ np.pad(np.eye(64)[:, :2], ((0, 0), (0, 62)))
    assert losses.embedding_std(tf.constant(two_dimensions)) < 0.3
