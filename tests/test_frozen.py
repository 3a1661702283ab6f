"""Passes without gradient, and the mean of a network by hand."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from keras_sacl.frozen import MomentumNetwork, frozen_call, is_deterministic


def network(dropout=0.0):
    inputs = keras.Input((6,))
    x = layers.Dense(5, name="dense")(inputs)
    x = layers.BatchNormalization(momentum=0.9, name="norm")(x)
    if dropout:
        x = layers.Dropout(dropout, name="drop")(x)
    return keras.Model(inputs, layers.Dense(3, name="last")(x))


def images(seed=0):
    return tf.constant(np.random.default_rng(seed).normal(2.0, 1.0, (7, 6)).astype("float32"))


def values(model):
    return [np.array(v) for v in model.variables]


def test_a_frozen_pass_is_a_training_pass_that_leaves_nothing_behind():
    keras.utils.set_random_seed(0)
    model = network()
    before = values(model)
    with tf.GradientTape() as tape:
        y = frozen_call(model, images())
    assert all(g is None for g in tape.gradient(tf.reduce_sum(y), model.trainable_variables))
    for v, old in zip(model.variables, before, strict=True):
        np.testing.assert_array_equal(np.asarray(v), old)
    np.testing.assert_allclose(y, model(images(), training=True), atol=1e-5)
    assert np.abs(y - model(images(), training=False)).max() > 0.1


def test_dropout_goes_on():
    model = network(dropout=0.5)
    assert not is_deterministic(model) and is_deterministic(network())
    first, second = (frozen_call(model, images()) for _ in range(2))
    assert np.abs(first - second).max() > 1e-3


def test_updates_by_hand():
    keras.utils.set_random_seed(0)
    model = network()
    mean = MomentumNetwork(model, 0.75)
    start = values(model)
    for v, own in zip(start, mean.mean.variables, strict=True):
        np.testing.assert_array_equal(v, np.asarray(own))
    for v in model.variables:
        v.assign(v + 1.0)
    mean.update()
    mean.update()
    trained = [v.trainable for v in model.variables]
    for old, own, moves in zip(start, mean.mean.variables, trained, strict=True):
        # Weights go half and half again of the way; statistics of its own it has none.
        np.testing.assert_allclose(np.asarray(own), old + (1 - 0.75**2) * moves, rtol=1e-6)
    mean.copy()
    for v, own in zip(model.variables, mean.mean.variables, strict=True):
        if v.trainable:
            np.testing.assert_array_equal(np.asarray(own), np.asarray(v))


@pytest.mark.parametrize("momentum", [0.0, 1.0])
def test_the_ends_of_the_momentum(momentum):
    model = network()
    mean, start = MomentumNetwork(model, momentum), values(model)
    for v in model.trainable_variables:
        v.assign_add(tf.ones(v.shape))
    mean.update()
    np.testing.assert_allclose(np.asarray(mean.mean.variables[0]), start[0] + (1 - momentum))
    assert mean.momentum == momentum


def test_its_passes_go_by_the_statistics_of_the_batch():
    keras.utils.set_random_seed(0)
    model = network()
    mean = MomentumNetwork(model)
    before = values(mean)
    with tf.GradientTape() as tape:
        y = mean(images())
    assert all(g is None for g in tape.gradient(tf.reduce_sum(y), mean.mean.variables))
    np.testing.assert_allclose(y, model(images(), training=True), atol=1e-5)
    for v, old in zip(mean.variables, before, strict=True):
        np.testing.assert_array_equal(np.asarray(v), old)


def test_groups_have_statistics_of_their_own():
    keras.utils.set_random_seed(0)
    model = network()
    x = tf.concat([images(0)[:4], images(1)[:4] + 3.0], axis=0)
    found = MomentumNetwork(model, groups=2)(x)
    expected = tf.concat([frozen_call(model, part) for part in tf.split(x, 2)], axis=0)
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_it_has_no_variables_but_its_own():
    model = network()
    mean = MomentumNetwork(model)
    assert not mean.trainable_variables
    own, others = ({id(v) for v in m.variables} for m in (mean, model))
    assert len(own) == len(others) and not own & others


def test_its_weights_are_saved_once(tmp_path):
    h5py = pytest.importorskip("h5py")
    model = keras.Sequential([keras.Input((6,)), MomentumNetwork(network())])
    model.save_weights(tmp_path / "of.weights.h5")
    shapes = []
    with h5py.File(tmp_path / "of.weights.h5") as file:
        file.visititems(lambda _, x: shapes.append(x.shape) if hasattr(x, "shape") else None)
    assert sorted(shapes) == sorted(tuple(v.shape) for v in network().variables)


def test_random_layers_of_the_mean_do_not_repeat_themselves():
    mean = MomentumNetwork(network(dropout=0.5))
    first, second = (mean(images()) for _ in range(2))
    assert np.abs(first - second).max() > 1e-3


def test_a_momentum_out_of_range_is_refused():
    with pytest.raises(ValueError, match=r"`momentum` must be in \[0, 1\]. Received: momentum=1.1"):
        MomentumNetwork(network(), 1.1)
