"""The faster passes against Keras' own batch normalisation."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from keras_sacl import batch_norm
from keras_sacl.batch_norm import TrainingBatchNorm, training_pass


def run(layer, norm, x):
    """Output, gradients of input and parameters, and moving statistics of one training pass."""
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = layer(x, training=True)
        loss = tf.reduce_sum(tf.sin(3.0 * tf.cast(y, tf.float32)))
    gradients = tape.gradient(loss, [x, *norm.trainable_variables])
    return [np.asarray(tf.cast(v, tf.float32)) for v in (y, *gradients, *norm.variables)]


@pytest.mark.parametrize(
    "dtype, tolerance", [("float32", 1e-5), ("mixed_bfloat16", 4e-2), ("float64", 1e-9)]
)
@pytest.mark.parametrize("settings", [{}, {"scale": False}, {"center": False, "momentum": 0.5}])
@pytest.mark.parametrize("shape", [(6, 5, 4, 7), (60, 7), (6, 10, 7)])
def test_equals_the_layer(shape, settings, dtype, tolerance):
    rng = np.random.default_rng(0)
    x = tf.constant(rng.normal(3.0, 2.0, size=shape), "float32")
    found = []
    for fused in (False, True):
        norm = layers.BatchNormalization(dtype=dtype, **settings)
        norm.build(x.shape)
        for seed, variable in enumerate(norm.variables):
            values = np.random.default_rng(seed).uniform(0.5, 1.5, variable.shape)
            variable.assign(values)
        found.append(run(TrainingBatchNorm(norm) if fused else norm, norm, x))
    for plain, fused in zip(*found, strict=True):
        np.testing.assert_allclose(fused, plain, atol=tolerance * np.abs(plain).max())


@pytest.mark.parametrize("dtype, tolerance", [("float32", 1e-5), ("float64", 1e-12)])
@pytest.mark.parametrize("groups", [1, 2, 4])
@pytest.mark.parametrize("shape", [(8, 5, 4, 7), (8, 7), (8, 10, 7)])
def test_groups_equal_as_many_layers(shape, groups, dtype, tolerance):
    """Values, gradients, and moving statistics: the mean of those of the layers."""
    rng = np.random.default_rng(0)
    x = tf.constant(
        rng.normal(3.0, 2.0, size=shape) + np.arange(8).reshape(8, *[1] * (len(shape) - 1))
    )
    x = tf.cast(x, dtype)
    norms = []
    for _ in range(groups + 1):
        norm = layers.BatchNormalization(dtype=dtype, momentum=0.8)
        norm.build(x.shape)
        for seed, variable in enumerate(norm.variables):
            variable.assign(np.random.default_rng(seed).uniform(0.5, 1.5, variable.shape))
        norms.append(norm)
    found = run(TrainingBatchNorm(norms[0], groups), norms[0], x)
    parts = [
        run(norm, norm, part) for norm, part in zip(norms[1:], tf.split(x, groups), strict=True)
    ]
    y, dx, dgamma, dbeta, gamma, beta, mean, variance = zip(*parts, strict=True)
    expected = [
        np.concatenate(y), np.concatenate(dx), np.sum(dgamma, 0), np.sum(dbeta, 0), gamma[0],
        beta[0], np.mean(mean, 0), np.mean(variance, 0),
    ]  # fmt: skip
    for own, other in zip(found, expected, strict=True):
        # `run` gives float32.
        np.testing.assert_allclose(own, other, atol=max(tolerance, 1e-6) * np.abs(other).max())


def test_groups_in_half_precision_have_statistics_in_float32():
    norm = layers.BatchNormalization(dtype="mixed_bfloat16", epsilon=1e-5)
    x = np.random.default_rng(0).normal(100.0, 1.0, (64, 3)).astype("float32")
    norm.build(x.shape)
    x = tf.cast(x, "bfloat16")
    y = TrainingBatchNorm(norm, 2)(x, training=True)
    assert y.dtype == "bfloat16"
    parts = np.split(np.asarray(tf.cast(x, "float64")), 2)
    expected = np.concatenate([(p - p.mean(0)) / np.sqrt(p.var(0) + 1e-5) for p in parts])
    np.testing.assert_allclose(np.asarray(tf.cast(y, "float64")), expected, atol=0.02)


def test_a_pass_in_groups_is_a_pass_of_each():
    inputs = keras.Input((8, 8, 3))
    x = layers.BatchNormalization()(layers.Conv2D(4, 3)(inputs))
    model = keras.Model(inputs, layers.GlobalAveragePooling2D()(layers.ReLU()(x)))
    images = np.random.default_rng(0).normal(size=(6, 8, 8, 3)).astype("float32")
    images[3:] *= 4.0
    found = training_pass(model, groups=2)(images, training=True)
    expected = np.concatenate([model(part, training=True) for part in np.split(images, 2)])
    np.testing.assert_allclose(found, expected, atol=1e-5)
    np.testing.assert_allclose(training_pass(model, groups=2)(images), model(images), atol=1e-6)


@pytest.mark.parametrize("norm", [True, False])
def test_a_pass_of_any_size(norm):
    inputs = keras.Input((8, 8, 3))
    x = layers.Conv2D(4, 3, strides=2, padding="same")(inputs)
    x = layers.BatchNormalization()(x) if norm else x
    model = keras.Model(inputs, layers.GlobalAveragePooling2D()(layers.ReLU()(x)))
    any_size = training_pass(model, any_size=True)
    assert [id(v) for v in any_size.variables] == [id(v) for v in model.variables]
    images = np.random.default_rng(0).normal(size=(6, 8, 8, 3)).astype("float32")
    kept = model.get_weights()
    expected = np.asarray(model(images, training=True))
    model.set_weights(kept)
    np.testing.assert_allclose(any_size(images, training=True), expected, atol=1e-5)
    for size in (5, 13):
        small = np.random.default_rng(0).normal(size=(6, size, size + 1, 3)).astype("float32")
        y = any_size(small, training=True)
        features = model.layers[1](small)
        if norm:
            features = layers.BatchNormalization()(features, training=True)
        np.testing.assert_allclose(y, np.maximum(features, 0).mean(axis=(1, 2)), atol=1e-5)


def test_a_model_shares_its_variables_and_its_inference():
    inputs = keras.Input((8, 8, 3))
    x = layers.Conv2D(4, 3, use_bias=False)(inputs)
    x = layers.ReLU()(layers.BatchNormalization(name="norm")(x))
    x = layers.Dense(5)(layers.GlobalAveragePooling2D()(x))
    model = keras.Model(inputs, layers.BatchNormalization(name="flat")(x))
    fused = training_pass(model)
    assert [id(v) for v in fused.variables] == [id(v) for v in model.variables]
    for name in ("norm_training", "flat_training"):
        assert isinstance(fused.get_layer(name), TrainingBatchNorm)
    images = np.random.default_rng(0).normal(size=(5, 8, 8, 3)).astype("float32")
    fused(images, training=True)
    assert np.abs(model.get_layer("norm").moving_mean).max() > 0
    np.testing.assert_allclose(fused(images), model(images), rtol=1e-6)


def test_what_cannot_be_fused_is_left_alone():
    inputs = keras.Input((8, 8, 3))
    for norm in (
        layers.BatchNormalization(axis=1),
        layers.BatchNormalization(synchronized=True),
        layers.LayerNormalization(),
    ):
        model = keras.Model(inputs, norm(inputs))
        assert training_pass(model) is model

    class Own(keras.Model):
        pass

    own = Own()
    assert training_pass(own) is own


def test_what_cannot_be_synchronised_is_refused_on_several_replicas(monkeypatch):
    monkeypatch.setattr(batch_norm, "replica_count", lambda: 2)
    inputs = keras.Input((8, 8, 3))
    synchronised = keras.Model(inputs, layers.BatchNormalization(synchronized=True)(inputs))
    assert training_pass(synchronised) is synchronised
    model = keras.Model(inputs, layers.BatchNormalization(axis=1, name="odd")(inputs))
    with pytest.raises(ValueError, match="must be `synchronized`.*Received: 'odd' in model"):
        training_pass(model)
    model = keras.Model(inputs, layers.BatchNormalization(dtype="float64")(inputs))
    assert isinstance(training_pass(model).layers[-1], TrainingBatchNorm)
