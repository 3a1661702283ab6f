"""Metrics of representations against SciPy on real digits, and against theory on known ones."""

import numpy as np
import pytest
from scipy.spatial.distance import cdist, pdist
from scipy.special import hyp0f1
from scipy.stats import entropy
from sklearn.datasets import load_digits
from sklearn.preprocessing import normalize

from keras_sacl.evaluation import representation


@pytest.fixture(scope="module")
def digits():
    x, y = load_digits(return_X_y=True)
    return x[:1500].astype("float32"), y[:1500]  # more than a block


@pytest.fixture(scope="module")
def views(digits):
    rng = np.random.default_rng(0)
    x = digits[0]
    return tuple(x + rng.normal(0, 3, x.shape).astype("float32") for _ in range(2))


def test_equal_scipy_on_digits(digits, views):
    x, y = digits
    unit = normalize(x.astype("float64"))
    a, b = (normalize(v.astype("float64")) for v in views)
    near = {"rel": 1e-5}
    assert representation.alignment(*views) == pytest.approx(
        np.mean(np.linalg.norm(a - b, axis=1) ** 2), **near
    )
    assert representation.uniformity(x) == pytest.approx(
        np.log(np.mean(np.exp(-2 * pdist(unit, "sqeuclidean")))), **near
    )
    pairs = np.concatenate([pdist(unit[y == label], "sqeuclidean") for label in range(10)])
    assert representation.intra_class_alignment(x, y) == pytest.approx(pairs.mean(), **near)
    nearest = cdist(a, b, "cosine").argmin(axis=1)
    assert representation.instance_discrimination(*views) == pytest.approx(
        np.mean(nearest == np.arange(len(a)))
    )
    values = np.linalg.svd(x.astype("float64"), compute_uv=False)
    assert representation.effective_rank(x) == pytest.approx(np.exp(entropy(values)), rel=1e-4)
    assert representation.dimension_std(x) == pytest.approx(unit.std(axis=0).mean() * 8, **near)


def test_correlation_equals_numpys(digits):
    x = digits[0]
    x = x[:, x.std(axis=0) > 0]
    expected = np.abs(np.corrcoef(x, rowvar=False))
    np.fill_diagonal(expected, 0)
    size = len(expected)
    assert representation.off_diagonal_correlation(x) == pytest.approx(
        expected.sum() / (size * (size - 1)), rel=1e-5
    )
    rng = np.random.default_rng(0)
    other = rng.normal(size=x.shape)
    cross = np.abs(np.corrcoef(x, other, rowvar=False)[:size, size:])
    assert representation.off_diagonal_correlation(x, other) == pytest.approx(
        (cross.sum() - np.trace(cross)) / (size * (size - 1)), rel=1e-5
    )


def test_a_constant_is_one_point():
    x = np.full((50, 8), 3.0)
    assert representation.uniformity(x) == pytest.approx(0, abs=1e-5)
    assert representation.alignment(x, x) == 0
    assert representation.effective_rank(x) == pytest.approx(1, abs=1e-4)
    assert representation.effective_rank(np.zeros((50, 8))) == 1
    assert representation.dimension_std(x) == pytest.approx(0, abs=1e-6)
    assert representation.instance_discrimination(x, x) == pytest.approx(1 / 50)
    assert representation.off_diagonal_correlation(x) == 0


def test_a_sphere_filled_at_random():
    """E exp(-t ||x - y||^2) on the unit sphere of n dimensions is e^{-2t} 0F1(; n/2; t^2)."""
    n, t = 16, 2.0
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(2, 4000, n))
    expected = -2 * t + np.log(hyp0f1(n / 2, t**2))
    assert representation.uniformity(x, t) == pytest.approx(expected, abs=0.01)
    assert representation.alignment(x, y) == pytest.approx(2, abs=0.02)
    assert representation.effective_rank(x) == pytest.approx(n, rel=0.01)
    assert representation.dimension_std(x) == pytest.approx(1, abs=0.01)
    # Two normal variables over N images correlate by sqrt(2 / (pi N)) on average.
    assert representation.off_diagonal_correlation(x) == pytest.approx(
        np.sqrt(2 / np.pi / 4000), rel=0.15
    )


def test_a_collapse_to_two_dimensions():
    rng = np.random.default_rng(0)
    basis = np.linalg.qr(rng.normal(size=(16, 2)))[0]
    x = rng.normal(size=(1000, 2)) @ basis.T
    assert representation.effective_rank(x) == pytest.approx(2, rel=0.01)
    assert representation.uniformity(x) == pytest.approx(-4 + np.log(hyp0f1(1, 4)), abs=0.03)


def test_perfect_clusters():
    labels = np.arange(60) % 3
    x = np.eye(3)[labels]
    assert representation.intra_class_alignment(x, labels) == pytest.approx(0, abs=1e-12)
    assert representation.effective_rank(x) == pytest.approx(3, rel=1e-4)
    assert representation.instance_discrimination(x, x) == pytest.approx(1 / 20)


def test_no_pair_of_one_class_is_refused():
    with pytest.raises(ValueError, match="`labels` must hold two images of one class"):
        representation.intra_class_alignment(np.eye(3), [0, 1, 2])


@pytest.mark.parametrize("scale", [1e-19, 1e12])
def test_nothing_depends_on_the_scale(digits, views, scale):
    x, y = digits
    a, b = views
    for metric, arguments in (
        (representation.alignment, (a, b)),
        (representation.uniformity, (x,)),
        (representation.instance_discrimination, (a, b)),
        (representation.effective_rank, (x,)),
        (representation.dimension_std, (x,)),
    ):
        scaled = [argument * np.float32(scale) for argument in arguments]
        assert metric(*scaled) == pytest.approx(metric(*arguments), rel=1e-4)
    assert representation.intra_class_alignment(x * scale, y) == pytest.approx(
        representation.intra_class_alignment(x, y), rel=1e-4
    )
