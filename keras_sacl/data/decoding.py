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


def pixel_count(encoded):
    """The number of pixels that a JPEG or PNG claims to have, read from its header.

    Args:
        encoded: bytes, the content of a file.

    Returns:
        An int; 0 for other formats, whose files are about as large as their images, and for
        headers that cannot be read.
    """
    if encoded.startswith(b"\x89PNG\r\n\x1a\n"):
        return int.from_bytes(encoded[16:20], "big") * int.from_bytes(encoded[20:24], "big")
    if encoded.startswith(b"\xff\xd8\xff"):
        try:
            height, width, _ = tf.io.extract_jpeg_shape(encoded).numpy()
        except tf.errors.OpError:
            return 0
        return int(height) * int(width)
    return 0


def is_grey(pixels):
    """Whether the three channels of pixels (..., 3) are equal everywhere."""
    return bool(np.array_equal(pixels[..., :2], pixels[..., 1:]))
