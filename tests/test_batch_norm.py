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
