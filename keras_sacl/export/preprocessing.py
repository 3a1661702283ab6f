"""The one contract of preprocessing: uint8 pixels, 0 to 255, normalised inside the graph."""

import keras
import numpy as np


def with_preprocessing(encoder, mean, std, dtype="uint8"):
    """The encoder behind its normalisation: (pixel / 255 - mean) / std.

    As a depthwise 1 x 1 convolution with a bias: constants that every converter folds (a Keras
    `Normalization` layer gives an invalid ONNX graph), and one operation, so that the int8 file
    rounds once where a multiplication and an addition round twice.

    Args:
        encoder: A `keras.Model`, (B, S, S, 3) normalised pixels to (B, F).
        mean, std: Three numbers each, for pixels in [0, 1].
        dtype: Type of the pixels, "uint8" or "float32"; 0 to 255 either way.

    Returns:
        A `keras.Model`, (B, S, S, 3) pixels to (B, F).
    """
    pixels = keras.Input(encoder.input_shape[1:], dtype=dtype, name="pixels")
    normalise = keras.layers.DepthwiseConv2D(1, dtype="float32", trainable=False, name="normalise")
    normalised = normalise(keras.ops.cast(pixels, "float32"))
    mean, std = np.asarray(mean, "float64"), np.asarray(std, "float64")
    normalise.set_weights([(1 / (255 * std)).reshape(1, 1, -1, 1), -mean / std])
    return keras.Model(pixels, encoder(normalised, training=False), name=encoder.name)
