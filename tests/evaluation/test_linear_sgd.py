"""The grid against a float64 loop in NumPy, one setting at a time; the probe on real digits."""

import dataclasses

import numpy as np
import pytest
from scipy.special import softmax
from sklearn.datasets import load_digits

from keras_sacl.evaluation import SGDSettings, linear_probe, linear_sgd_probe
from keras_sacl.evaluation.linear_sgd import fit_linear_grid, predict

SETTINGS = SGDSettings(
    learning_rates=(0.3, 0.01), weight_decays=(0.0, 1e-2), epochs=4, batch_size=100, milestones=(2,)
)


@pytest.fixture(scope="module")
def digits():
    x, y = load_digits(return_X_y=True)
    x = (x / 16).astype("float32")
    return x[:1200], y[:1200], x[1200:], y[1200:]


def sgd(x, y, rate, decay, settings, seed):
    """torch.optim.SGD on torch.nn.Linear from zeros, in its own words."""
    x, targets = x.astype("float64"), np.eye(y.max() + 1)[y]
    w, b = np.zeros((x.shape[1], targets.shape[1])), np.zeros(targets.shape[1])
    v_w, v_b = 0.0, 0.0
    rng = np.random.default_rng(seed)
    for epoch in range(settings.epochs):
        if epoch in settings.milestones:
            rate = rate * settings.decay
        order = rng.permutation(len(x))
        for start in range(0, len(x) - settings.batch_size + 1, settings.batch_size):
            rows = order[start : start + settings.batch_size]
            error = (softmax(x[rows] @ w + b, axis=1) - targets[rows]) / len(rows)
            v_w = settings.momentum * v_w + x[rows].T @ error + decay * w
            v_b = settings.momentum * v_b + error.sum(axis=0) + decay * b
            w, b = w - rate * v_w, b - rate * v_b
    return np.concatenate([w, b[None]])


def test_every_setting_is_what_it_is_alone(digits):
    x, y, *_ = digits
    found = fit_linear_grid(x[:1150], y[:1150], SETTINGS, seed=3)
    assert found.shape == (4, 65, 10)
    for weights, (rate, decay) in zip(found, SETTINGS.grid, strict=True):
        expected = sgd(x[:1150], y[:1150], rate, decay, SETTINGS, seed=3)
        np.testing.assert_allclose(weights, expected, atol=1e-5)
    assert np.abs(found[0] - found[1]).max() > 1e-2  # the decay has an effect


def test_predictions_are_the_largest_logits(digits):
    x = digits[0]
    weights = np.random.default_rng(0).normal(size=(3, 65, 10)).astype("float32")
    expected = [(x.astype("float64") @ w[:-1] + w[-1]).argmax(axis=1) for w in weights]
    np.testing.assert_array_equal(predict(weights, x), np.transpose(expected))
    assert predict(weights, x[:0]).shape == (0, 3)


def test_the_best_on_the_held_out_fifth_is_tested(digits):
    x, y, queries, labels = digits
    settings = dataclasses.replace(SETTINGS, learning_rates=(1e-6, 0.1), epochs=20)
    shift = 5  # labels need not be 0, 1, ...
    found = linear_sgd_probe(x, 3 * y + shift, queries, 3 * labels + shift, settings)
    best = max(found["held_out"], key=lambda row: row["top1"])
    assert found["learning_rate"] == best["learning_rate"] == 0.1
    assert found["weight_decay"] == best["weight_decay"]
    assert len(found["held_out"]) == 4
    # The convex problem of the other protocol, with another penalty.
    assert abs(found["top1"] - linear_probe(x, y, queries, labels)["top1"]) < 0.02
    assert found["top1"] > 0.88


def test_fewer_rows_than_a_batch(digits):
    x, y, queries, labels = digits
    assert linear_sgd_probe(x[:60], y[:60], queries, labels)["top1"] > 0.5


def test_bad_input(digits):
    x, y, *_ = digits
    with pytest.raises(ValueError, match="at least 2 classes"):
        linear_sgd_probe(x, np.zeros(len(x), int), x, y)
    with pytest.raises(ValueError, match="grid must not be empty"):
        linear_sgd_probe(x, y, x, y, SGDSettings(weight_decays=()))
