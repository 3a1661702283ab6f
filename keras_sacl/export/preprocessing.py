"""The contracts of an exported file's input: one preprocessing, more or less of it inside.

normalised  float32 (B, S, S, 3), (pixel / 255 - mean) / std, called "images"
pixels      uint8 (B, S, S, 3), called "pixels"
photos      uint8 (B, H, W, 3) of any height and width, called "photos": also cropped inside
"""

import keras
import numpy as np
import tensorflow as tf

from keras_sacl.data.crops import centre_crop
from keras_sacl.data.resampling import resampling

INPUTS = {"normalised": "images", "pixels": "pixels", "photos": "photos"}
# Operations of the crop are found by this name in a converted graph.
CROP_LAYER = "photo_crop"


@keras.saving.register_keras_serializable("keras_sacl")
class PhotoCrop(keras.layers.Layer):
    """Photos of any size to the pixels that `raw_batches` gives; halves may round the other way.

    A centred square, resized with antialiasing by two products of matrices, which are made of the
    photo's size: so it needs no operation that TFLite and ONNX do not have.

    Args:
        size: Side of the result in pixels.
        share: Side of the square, as a share of the photo's shorter side.

    Raises:
        ValueError: If the share is not above 0 and at most 1.
    """

    def __init__(self, size, share, **kwargs):
        super().__init__(**kwargs)
        if not 0 < share <= 1:
            raise ValueError(f"`share` must be above 0 and at most 1. Received: share={share}")
        self.size, self.share = size, share

    def call(self, photos):
        """(B, H, W, 3) uint8 to (B, size, size, 3) float32, whole numbers from 0 to 255."""
        shape = tf.shape(photos)
        crop = centre_crop(shape[1], shape[2], self.share)
        top, height, rows = self._taps(crop[0], crop[2], shape[1])
        left, width, columns = self._taps(crop[1], crop[3], shape[2])
        # Cut while it is bytes: the rest of a large photo is never turned into floats.
        part = tf.cast(photos[:, top : top + height, left : left + width], tf.float32)
        x = tf.matmul(rows, tf.reshape(part, [-1, height, 3 * width]))
        x = tf.transpose(tf.reshape(x, [-1, self.size, width, 3]), [0, 2, 1, 3])
        x = tf.matmul(columns, tf.reshape(x, [-1, width, 3 * self.size]))
        pixels = tf.reshape(x, [-1, self.size, self.size, 3])
        return tf.round(tf.transpose(pixels, [0, 2, 1, 3]))

    def _taps(self, start, length, extent):
        """First input pixel, number of them, and the weights of these in each output pixel."""
        reach = tf.maximum(length / self.size, 1.0)
        first = tf.maximum(tf.cast(tf.floor(start - reach), tf.int32), 0)
        last = tf.minimum(tf.cast(tf.math.ceil(start + length + reach), tf.int32), extent)
        here = start - tf.cast(first, tf.float32)
        weights = resampling(
            here[None], length[None], tf.constant([False]), last - first, self.size
        )
        return first, last - first, weights

    def compute_output_shape(self, input_shape):
        return (input_shape[0], self.size, self.size, 3)

    def get_config(self):
        return {**super().get_config(), "size": self.size, "share": self.share}


def with_preprocessing(encoder, mean, std, dtype="uint8", share=None):
    """The encoder behind its normalisation: (pixel / 255 - mean) / std.

    As a depthwise 1 x 1 convolution with a bias: constants that every converter folds (a Keras
    `Normalization` layer gives an invalid ONNX graph), and one operation, so that the int8 file
    rounds once where a multiplication and an addition round twice.

    Args:
        encoder: A `keras.Model`, (B, S, S, 3) normalised pixels to (B, F).
        mean, std: Three numbers each, for pixels in [0, 1].
        dtype: Type of the pixels, "uint8" or "float32"; 0 to 255 either way.
        share: None for pixels of the encoder's size. Or a share in (0, 1], for photos of any
            size: see `PhotoCrop`.

    Returns:
        A `keras.Model`, (B, S, S, 3) pixels, or (B, H, W, 3) photos, to (B, F).
    """
    shape = encoder.input_shape[1:] if share is None else (None, None, 3)
    given = keras.Input(shape, dtype=dtype, name=INPUTS["pixels" if share is None else "photos"])
    if share is None:
        pixels = keras.ops.cast(given, "float32")
    else:
        pixels = PhotoCrop(encoder.input_shape[1], share, dtype="float32", name=CROP_LAYER)(given)
    normalise = keras.layers.DepthwiseConv2D(1, dtype="float32", trainable=False, name="normalise")
    normalised = normalise(pixels)
    mean, std = np.asarray(mean, "float64"), np.asarray(std, "float64")
    normalise.set_weights([(1 / (255 * std)).reshape(1, 1, -1, 1), -mean / std])
    return keras.Model(given, encoder(normalised, training=False), name=encoder.name)
