"""Each objective's loss and gradient against the paper's formula."""

import numpy as np
import pytest
import scipy.special
import tensorflow as tf
from sklearn.cluster import KMeans

from keras_sacl.distillation import (
    attention_loss,
    cluster_centres,
    cluster_loss,
    compress_loss,
    disco_loss,
    nce_logits,
    nce_loss,
    regression_loss,
    rkd_losses,
    seed_loss,
)
from keras_sacl.losses import l2_normalise
from tests.distillation.oracles import (
    compress_oracle,
    crd_oracle,
    disco_oracle,
    regression_oracle,
    rkd_oracle,
    seed_oracle,
    unit,
)

RNG = np.random.default_rng(0)
S, T, NARROW = RNG.normal(size=(6, 5)), RNG.normal(size=(6, 5)), RNG.normal(size=(6, 3))
QUEUE, OTHER_QUEUE = unit(RNG.normal(size=(11, 5))), unit(RNG.normal(size=(11, 3)))


def crd(s, t):
    return nce_loss(*nce_logits(l2_normalise(s), l2_normalise(t), QUEUE, 0.3), np.log(1.7))


CASES = {
    "disco": (disco_loss, disco_oracle, S, T),
    "seed": (
        lambda s, t: seed_loss(s, t, QUEUE, 0.3, 0.1),
        lambda s, t: seed_oracle(s, t, QUEUE, 0.3, 0.1),
        S, T,
    ),
    "compress_1q": (
        lambda s, t: compress_loss(s, t, QUEUE, QUEUE, 0.2),
        lambda s, t: compress_oracle(s, t, QUEUE, QUEUE, 0.2),
        S, T,
    ),
    "compress_2q": (
        lambda s, t: compress_loss(s, t, OTHER_QUEUE, QUEUE, 0.2),
        lambda s, t: compress_oracle(s, t, OTHER_QUEUE, QUEUE, 0.2),
        NARROW, T,
    ),
    "rkd distance": (lambda s, t: rkd_losses(s, t)[0], lambda s, t: rkd_oracle(s, t)[0], NARROW, T),
    "rkd angle": (lambda s, t: rkd_losses(s, t)[1], lambda s, t: rkd_oracle(s, t)[1], NARROW, T),
    "reg": (regression_loss, lambda s, t: regression_oracle(s, t, False), S, T),
    "reg_bn": (
        lambda s, t: regression_loss(s, t, whiten=True),
        lambda s, t: regression_oracle(s, t, True),
        S, T,
    ),
    "crd": (crd, lambda s, t: crd_oracle(s, t, QUEUE, 0.3, 1.7), S, T),
}  # fmt: skip


def loss_and_gradient(loss, s, t):
    s, t = tf.constant(s), tf.constant(t)
    with tf.GradientTape() as tape:
        tape.watch([s, t])
        value = loss(s, t)
    return value, tape.gradient(value, [s, t])


def slopes(oracle, s, t, step=1e-6):
    found = np.empty(s.shape)
    for i in np.ndindex(s.shape):
        moved = [s.copy(), s.copy()]
        moved[0][i] += step
        moved[1][i] -= step
        found[i] = (oracle(moved[0], t) - oracle(moved[1], t)) / (2 * step)
    return found


@pytest.mark.parametrize("name", CASES)
def test_equals_the_formula(name):
    """In float64 to its rounding, gradient and all; in float32 to that of float32."""
    loss, oracle, s, t = CASES[name]
    value, (of_student, of_teacher) = loss_and_gradient(loss, s, t)
    np.testing.assert_allclose(value, oracle(s, t), rtol=1e-9)
    np.testing.assert_allclose(of_student, slopes(oracle, s, t), atol=1e-7)
    assert of_teacher is None or name == "crd"  # which cuts the teacher off before its map
    single, (g, _) = loss_and_gradient(loss, s.astype("float32"), t.astype("float32"))
    np.testing.assert_allclose(single, value, rtol=1e-4)
    np.testing.assert_allclose(g, of_student, atol=1e-4)


@pytest.mark.parametrize("name", CASES)
def test_the_order_of_the_batch_does_not_matter(name):
    loss, _, s, t = CASES[name]
    order = np.random.default_rng(1).permutation(len(s))
    np.testing.assert_allclose(loss(s[order], t[order]), loss(s, t), rtol=1e-9)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize(
    "spoil",
    [
        lambda z: z * 1e-19,
        lambda z: z * 0,
        lambda z: np.repeat(z[:1], 6, axis=0),
        lambda z: np.vstack([z[:3] * 0, z[3:]]),
        lambda z: np.vstack([z[:3], z[:3]]),
        lambda z: np.vstack([z[:3], z[:3] + 1e-6]),
        lambda z: z * 1e4,
    ],
    ids=["tiny", "zero", "identical", "zero rows", "twins", "near twins", "large"],
)
def test_nothing_makes_it_infinite(name, dtype, spoil):
    loss, _, s, t = CASES[name]
    for student, teacher in ((spoil(s), t), (s, spoil(t)), (spoil(s), spoil(t))):
        value, (gradient, _) = loss_and_gradient(loss, student.astype(dtype), teacher.astype(dtype))
        assert value.dtype == tf.float32
        assert gradient.dtype == dtype
        assert np.isfinite(value) and np.isfinite(gradient).all()


@pytest.mark.parametrize("name", ["disco", "seed", "compress_1q", "rkd distance", "rkd angle"])
def test_tiny_features_count_as_any(name):
    """Their scale does not matter, and rounding does not eat them."""
    loss, oracle, s, t = CASES[name]
    value, (g, _) = loss_and_gradient(loss, (1e-19 * s).astype("float32"), t.astype("float32"))
    np.testing.assert_allclose(value, oracle(s, t), rtol=1e-4)
    np.testing.assert_allclose(1e-19 * np.asarray(g, "float64"), slopes(oracle, s, t), atol=1e-4)


@pytest.mark.parametrize("width", [16, 2048])
@pytest.mark.parametrize("apart", [0.0, 1e-7, 1e-6, 1e-5, 1e-3, 1e-2])
def test_rkd_of_images_that_are_almost_one(width, apart):
    """Of one image, three times: angles between differences that rounding makes."""
    rng = np.random.default_rng(0)
    s, t = rng.normal(size=(2, 12, width))
    s[1:3] = s[0] + apart * rng.normal(size=(2, width))
    s = s.astype("float32").astype("float64")
    value, (g, _) = loss_and_gradient(
        lambda *x: sum(rkd_losses(*x)), s.astype("float32"), t.astype("float32")
    )
    assert abs(value - sum(rkd_oracle(s, t))) < (2e-4 if apart > 1e-4 else 0.05)
    assert np.linalg.norm(g, axis=1).max() < 3


def test_rkd_of_equal_points_has_no_gradient():
    value, (g, _) = loss_and_gradient(lambda *x: rkd_losses(*x)[0], 0 * S + 3.0, T)
    assert value > 0
    np.testing.assert_array_equal(g, 0.0)


def adaptive_average(q, size):
    """torch.nn.AdaptiveAvgPool2d, as its source has it."""
    found = np.empty((len(q), *size))
    for i, j in np.ndindex(*size):
        ends = [(k * large // small, -(-(k + 1) * large // small))
                for k, large, small in zip((i, j), q.shape[1:], size, strict=True)]  # fmt: skip
        (top, bottom), (left, right) = ends
        found[:, i, j] = q[:, top:bottom, left:right].mean(axis=(1, 2))
    return found


def attention_oracle(student, teacher):
    total = 0.0
    for s, t in zip(student[::-1], teacher[::-1], strict=False):
        q = [np.mean(x**2, axis=-1) for x in (s, t)]
        size = [min(x.shape[i] for x in q) for i in (1, 2)]
        q_s, q_t = (unit(adaptive_average(x, size).reshape(len(x), -1)) for x in q)
        total += np.sum((q_s - q_t) ** 2, axis=1).mean()
    return total


@pytest.mark.parametrize(
    "student, teacher",
    [
        ([(6, 6)], [(6, 6)]),
        ([(8, 8), (4, 4)], [(8, 8), (4, 4), (2, 2)]),  # matched from the last on
        ([(8, 8)], [(4, 4)]),
        ([(7, 5)], [(3, 4)]),
        ([(4, 6)], [(6, 4)]),  # one is larger in one way, one in the other
    ],
)
def test_attention_equals_the_formula(student, teacher):
    rng = np.random.default_rng(0)
    s, t = ([rng.normal(size=(3, *size, c)) for size in sizes]
            for sizes, c in ((student, 4), (teacher, 7)))  # fmt: skip
    expected = attention_oracle(s, t)
    np.testing.assert_allclose(attention_loss(*_tensors(s, t)), expected, rtol=1e-12)
    for scale in (1.0, 1e-19, 1e10):
        own = [(scale * x).astype("float32") for x in s]
        x, teachers = _tensors(own, [x.astype("float32") for x in t])
        with tf.GradientTape() as tape:
            tape.watch([x, teachers])
            value = attention_loss(x, teachers)
        np.testing.assert_allclose(value, expected, rtol=1e-4)
        found, none = tape.gradient(value, [x, teachers])
        assert all(g is None for g in none)
        used = [g for g in found if g is not None]
        assert len(used) == min(len(s), len(t))
        assert all(np.isfinite(g).all() and np.abs(g).max() > 0 for g in used)


def _tensors(*lists):
    return [[tf.constant(x) for x in maps] for maps in lists]


def test_attention_is_compiled_by_xla():
    rng = np.random.default_rng(0)
    s, t = (tf.constant(rng.normal(size=(2, n, n, 3)), tf.float32) for n in (7, 4))
    compiled = tf.function(lambda s, t: attention_loss([s], [t]), jit_compile=True)
    np.testing.assert_allclose(compiled(s, t), attention_loss([s], [t]), rtol=1e-5)


def test_clusters_are_those_that_scikit_learn_predicts():
    rng = np.random.default_rng(0)
    middles = np.eye(5)[:4]
    features = np.repeat(middles, 50, axis=0) + 0.2 * rng.normal(size=(200, 5))
    features *= rng.uniform(0.5, 2.0, size=(200, 1))  # lengths do not count
    centres = cluster_centres(features, 4)
    assert centres.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(centres, axis=1), 1.0, atol=1e-6)
    np.testing.assert_array_equal(cluster_centres(features, 4), centres)
    oracle = KMeans(4, init=centres.astype("float64"), n_init=1, max_iter=1).fit(unit(features))
    oracle.cluster_centers_ = centres.astype("float64")
    named = oracle.predict(unit(features))
    # The clusters are found: each of the four is one.
    assert all(len(set(part)) == 1 for part in np.split(named, 4)) and len(set(named)) == 4
    logits = rng.normal(size=(200, 4))
    expected = -scipy.special.log_softmax(logits, axis=1)[np.arange(200), named].mean()
    value, (g, none) = loss_and_gradient(lambda x, t: cluster_loss(x, t, centres), logits, features)
    np.testing.assert_allclose(value, expected, rtol=1e-12)
    expected = (scipy.special.softmax(logits, axis=1) - np.eye(4)[named]) / 200
    np.testing.assert_allclose(g, expected, atol=1e-12)
    assert none is None
    for clusters in (1, 201):
        with pytest.raises(ValueError, match=f"`clusters` must .*Received: clusters={clusters}"):
            cluster_centres(features, clusters)
