"""Files of images to pixels."""

import numpy as np
import tensorflow as tf


def decode(encoded):
    """Decodes a JPEG, PNG, BMP, WebP or the first frame of a GIF.

    Args:
        encoded: Scalar string: the content of a file.

    Returns:
        (H, W, 3) uint8; grey images get three equal channels.

    Raises:
        tf.errors.InvalidArgumentError: If it is no such image, or a broken one.
    """
    image = tf.io.decode_image(encoded, channels=3, expand_animations=False)
    return tf.ensure_shape(image, (None, None, 3))


def is_grey(pixels):
    """Whether the three channels of pixels (..., 3) are equal everywhere."""
    return bool(np.array_equal(pixels[..., :2], pixels[..., 1:]))
