"""Networks of 8 px, their projectors, teachers and views, for tests of the methods."""

import keras
import numpy as np
import tensorflow as tf
from keras import layers

from keras_sacl.distillation import DisCo, Distiller
from keras_sacl.heads import build_projector
from keras_sacl.methods import METHODS
from keras_sacl.slimming import SlimmableEncoder


@keras.saving.register_keras_serializable("tests")
class Counter(layers.Layer):
    """Counts the forward passes through it, per step, and those of them in training mode."""

    calls = training_calls = 0

    def call(self, x, training=None):
        type(self).calls += 1
        type(self).training_calls += bool(training)
        return x

    @classmethod
    def reset(cls):
        cls.calls = cls.training_calls = 0


@keras.saving.register_keras_serializable("tests")
class TeacherCounter(Counter):
    """The same of a teacher, counted by itself."""

    calls = training_calls = 0


def network(width, dropout=0.0, counter=Counter):
    c = int(8 * width)
    inputs = keras.Input((8, 8, 3))
    x = counter(name="counter")(inputs)
    x = layers.Conv2D(c, 3, strides=2, use_bias=False, name="conv")(x)
    x = layers.BatchNormalization(momentum=0.9, name="bn")(x)
    x = layers.ReLU(name="relu")(x)
    if dropout:
        x = layers.Dropout(dropout, name="dropout")(x)
    return keras.Model(inputs, layers.GlobalAveragePooling2D(name="pool")(x), name="network")


def teacher(width=1.5):
    """A network with statistics of its own, so that its two modes differ."""
    keras.utils.set_random_seed(7)
    model = network(width, counter=TeacherCounter)
    rng = np.random.default_rng(7)
    norm = model.get_layer("bn")
    norm.moving_mean.assign(rng.normal(0, 0.3, norm.moving_mean.shape))
    norm.moving_variance.assign(rng.uniform(0.5, 2, norm.moving_variance.shape))
    return model


def distiller(objectives=None, weights=None, **settings):
    """Of a random teacher, if no widths of rows are given; DisCo by default."""
    if "teacher_widths" not in settings:
        settings["teacher"] = teacher()
    return Distiller(objectives or {"disco": DisCo(hidden=16)}, weights, **settings)


SETTINGS = {
    "moco_v2": {"queue_size": 40, "key_momentum": 0.9, "key_batch_norm": "sync"},
    "swav": {"prototypes": 20},
    "xd": {"lambd": 0.005},
    "sacl_xd": {"lambd": 0.005},
}


def make(name, execution="slice", dropout=0.0, selection="leading", **settings):
    settings = {**SETTINGS.get(name, {}), **settings}
    if name == "distill" and "distiller" not in settings:
        settings["distiller"] = distiller()
    keras.utils.set_random_seed(1)
    encoder = network(1, dropout)
    if name.startswith("sacl"):
        encoder = SlimmableEncoder(network(1.5, dropout), encoder, execution, selection)
    projector = None
    if name != "distill":
        batch_norm = name != "moco_v2"
        projector = build_projector(encoder.output_shape[-1], (16, 16), batch_norm=batch_norm)
    return METHODS[name](encoder, projector, **settings)


def views(n=16, seed=0, size=8):
    rng = np.random.default_rng(seed)
    a = rng.normal(size=(n, size, size, 3)).astype("float32")
    return tf.constant(a), tf.constant(a + 0.3 * rng.normal(size=a.shape).astype("float32"))


def values(variables):
    """Copies of variables, as arrays."""
    return [np.array(v) for v in variables]
