"""Networks for tests, and how far their outputs are apart."""

import keras
import numpy as np


def truncated(encoder, layer):
    """An encoder up to one of its layers and the average of its maps: a third of the time."""
    pool = keras.layers.GlobalAveragePooling2D(name="features")
    maps = encoder.get_layer(layer).output
    return keras.Model(encoder.inputs[0], pool(maps), name=encoder.name)


def with_statistics(model, seed=0):
    """The same model, its statistics and biases drawn: zeros and ones hide what goes wrong."""
    rng = np.random.default_rng(seed)
    for v in model.variables:
        if v.name in ("gamma", "moving_variance"):
            v.assign(rng.uniform(0.5, 1.5, v.shape))
        elif v.name in ("beta", "bias", "moving_mean"):
            v.assign(rng.normal(0, 0.1, v.shape))
    return model


def small_encoder(name, *, width, image_size, activation="default"):
    """In place of those by name, whose graphs take long to make, once for each width."""
    images = keras.Input((image_size, image_size, 3))
    x = keras.layers.Conv2D(round(32 * width), 3, strides=2, use_bias=False, name="conv")(images)
    x = keras.layers.BatchNormalization(momentum=0.9, name="norm")(x)
    x = keras.layers.ReLU(name="relu")(x)
    return keras.Model(images, keras.layers.GlobalAveragePooling2D(name="pool")(x))


def difference(found, expected, floor=0.0):
    """The norm of the difference, relative to the expected array or, if larger, to `floor`."""
    return np.linalg.norm(found - expected) / max(np.linalg.norm(expected), floor)
