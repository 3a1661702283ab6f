"""Information in bits against scikit-learn and SciPy on digits, and against known values."""

from collections import Counter

import numpy as np
import pytest
from scipy.stats import entropy
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import mutual_info_score
from sklearn.preprocessing import StandardScaler, normalize

from keras_sacl.evaluation.information import information_plane, probe_information


def names(t, bins, low, high):
    """The cell of each row, as a text."""
    cut = np.linspace(low, high, bins + 1)[1:-1]
    return [str([int(np.searchsorted(cut, value, side="right")) for value in row]) for row in t]


@pytest.mark.parametrize("bins", [2, 4, 30, 300])
@pytest.mark.parametrize("dimensions", [1, 2, 5])
def test_equals_scikit_learn_and_scipy(digits, bins, dimensions):
    x, y = digits[:2]
    rng = np.random.default_rng(dimensions)
    t = np.tanh(x.astype("float64") @ rng.normal(size=(64, dimensions)) / 40)
    found = information_plane(t, y, bins=bins)
    cells = names(t, bins, t.min(), t.max())
    counts = list(Counter(cells).values())
    assert found["i_x_t"] == pytest.approx(entropy(counts, base=2))
    assert found["i_t_y"] == pytest.approx(mutual_info_score(cells, y) / np.log(2))
    assert found["i_t_y_max"] == pytest.approx(entropy(np.bincount(y), base=2))
    assert found["i_x_t_max"] == pytest.approx(np.log2(1200))
    assert found["i_t_y"] <= min(found["i_x_t"], found["i_t_y_max"]) + 1e-9


def test_known_values():
    t = np.repeat([0.0, 1, 2, 3], 8)[:, None]  # 4 equally likely cells: 2 bits
    y = np.repeat([0, 1], 16)  # of which 1 bit says the label
    assert information_plane(t, y, bins=4) == {
        "i_x_t": 2.0, "i_x_t_max": 5.0, "i_t_y": 1.0, "i_t_y_max": 1.0,
    }  # fmt: skip
    assert information_plane(t, bins=2) == {"i_x_t": 1.0, "i_x_t_max": 5.0}
    assert information_plane(t, np.tile([0, 1], 16), bins=4)["i_t_y"] == 0
    assert information_plane(np.full((32, 3), 7.0), y, bins=9) == {
        "i_x_t": 0.0, "i_x_t_max": 5.0, "i_t_y": 0.0, "i_t_y_max": 1.0,
    }  # fmt: skip


def test_the_range_of_the_bins():
    t = np.array([[-3.0], [0.1], [0.4], [0.6], [9.0], [1.0]])
    found = information_plane(t, bins=2, value_range=(0, 1))
    assert found["i_x_t"] == 1.0  # three on each side of 0.5
    assert information_plane(t, bins=2)["i_x_t"] == pytest.approx(entropy([5, 1], base=2))


def test_many_dimensions_tell_all_images_apart(digits):
    x, y = digits[:2]
    found = information_plane(x, y, bins=16)
    assert found["i_x_t"] == pytest.approx(np.log2(1200))
    assert found["i_t_y"] == pytest.approx(found["i_t_y_max"])
    noise = np.random.default_rng(0).normal(size=(1200, 64))
    assert information_plane(noise, y, bins=16) == pytest.approx(found)  # and so does noise


def test_neither_scale_nor_order_matters(digits):
    x, y = digits[0][:, 20:23], digits[1]
    found = information_plane(x, y, bins=8)
    order = np.random.default_rng(0).permutation(len(x))
    assert information_plane(x[order][:, ::-1], y[order], bins=8) == pytest.approx(found)
    assert information_plane(2.0**-60 * x, y, bins=8) == pytest.approx(found)


def test_outputs_of_a_probe_on_digits(digits):
    x, y, test, labels = digits
    found = probe_information(x, y, test, labels)
    noise = np.random.default_rng(0).normal(size=(len(x) + len(test), 64))
    nothing = probe_information(noise[: len(x)], y, noise[len(x) :], labels)
    # Most of the label is known here, nothing there: as much as of labels that were shuffled.
    assert found["i_t_y"] - found["i_t_y_shuffled"] > 2
    assert nothing["i_t_y"] == pytest.approx(nothing["i_t_y_shuffled"], abs=0.05)
    assert found["i_x_t"] < 0.7 * found["i_x_t_max"]  # far from telling all images apart
    scale = StandardScaler().fit(normalize(x))
    peer = LogisticRegression(C=0.01).fit(scale.transform(normalize(x)), y)
    outputs = peer.predict_proba(scale.transform(normalize(test)))
    expected = information_plane(outputs, labels, bins=5, value_range=(0, 1))
    assert found["i_t_y"] == pytest.approx(expected["i_t_y"], abs=0.2)
    assert found["i_x_t"] == pytest.approx(expected["i_x_t"], abs=0.8)
    assert probe_information(x, y, test, labels) == found


def test_bad_arguments():
    t = np.random.default_rng(0).normal(size=(8, 2))
    for bins in (1, 2**16 + 1):
        with pytest.raises(ValueError, match=f"`bins` must be from 2 .* bins={bins}"):
            information_plane(t, bins=bins)
    for wrong in (t[0], t[:0], np.full((2, 2), np.nan)):
        with pytest.raises(ValueError, match=r"`t` must be finite, of shape \(N, D\)"):
            information_plane(wrong, bins=4)
    with pytest.raises(ValueError, match="`value_range` must be two finite numbers"):
        information_plane(t, bins=4, value_range=(1, 0))
    for labels in ([0] * 7, [-1] * 8):
        with pytest.raises(ValueError, match="`labels` must be 8 classes from 0"):
            information_plane(t, labels, bins=4)
    with pytest.raises(ValueError, match=r"`labels` must be one class .* shape \(8, 2\)"):
        information_plane(t, np.zeros((8, 2), int), bins=4)
