"""The one contract of preprocessing: uint8 pixels, 0 to 255, normalised inside the graph."""

import keras
import numpy as np


def with_preprocessing(encoder, mean, std, dtype="uint8"):
    """The encoder behind its normalisation: (pixel / 255 - mean) / std.

    As one scale and one offset per channel, constants that every converter folds (a Keras
    `Normalization` layer gives an invalid ONNX graph).

    Args:
        encoder: A `keras.Model`, (B, S, S, 3) normalised pixels to (B, F).
        mean, std: Three numbers each, for pixels in [0, 1].
        dtype: Type of the pixels, "uint8" or "float32"; 0 to 255 either way.

    Returns:
        A `keras.Model`, (B, S, S, 3) pixels to (B, F).
    """
    pixels = keras.Input(encoder.input_shape[1:], dtype=dtype, name="pixels")
    normalised = keras.layers.Rescaling(
        scale=[1 / (255 * s) for s in std],
        offset=[-m / s for m, s in zip(mean, std, strict=True)],
        dtype="float32",
        name="normalise",
    )(pixels)
    return keras.Model(pixels, encoder(normalised, training=False), name=encoder.name)
