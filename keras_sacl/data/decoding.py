"""Files of images to pixels."""

import io

import numpy as np
import tensorflow as tf
from PIL import Image

_ORIENTATION = 0x0112  # the tag of EXIF


def decode(encoded):
    """Decodes a JPEG, PNG, BMP, WebP or the first frame of a GIF.

    A JPEG by the exact transform, to the pixels that Pillow and browsers see. TensorFlow's default
    is another: red and blue of a photo were lower by 1 of 255 in the mean, in 2 % less time.

    Args:
        encoded: Scalar string: the content of a file.

    Returns:
        (H, W, 3) uint8; grey images get three equal channels.

    Raises:
        tf.errors.InvalidArgumentError: If it is no such image, or a broken one.
    """
    image = tf.cond(
        tf.io.is_jpeg(encoded),
        lambda: tf.io.decode_jpeg(encoded, channels=3, dct_method="INTEGER_ACCURATE"),
        lambda: tf.io.decode_image(encoded, channels=3, expand_animations=False),
    )
    return tf.ensure_shape(image, (None, None, 3))


def upright(image, orientation):
    """Turns an image as its EXIF orientation says.

    Args:
        image: (H, W, 3).
        orientation: Scalar integer tensor, 1 to 8.

    Returns:
        (H, W, 3), or (W, H, 3) for codes from 5 on.
    """

    def among(*codes):
        return tf.reduce_any(tf.cast(orientation, tf.int32) == tf.constant(codes))

    image = tf.cond(orientation >= 5, lambda: tf.transpose(image, [1, 0, 2]), lambda: image)
    image = tf.cond(among(2, 3, 6, 7), lambda: image[:, ::-1], lambda: image)
    image = tf.cond(among(3, 4, 7, 8), lambda: image[::-1], lambda: image)
    return tf.ensure_shape(image, (None, None, 3))


def exif_orientation(encoded):
    """The EXIF orientation of an image file, 1 (upright) to 8.

    Args:
        encoded: bytes, the content of a file.

    Returns:
        An int; 1 if the file does not say.
    """
    try:
        with Image.open(io.BytesIO(encoded)) as image:
            code = image.getexif().get(_ORIENTATION, 1)
    except Exception:  # Pillow has many kinds; what TensorFlow decodes is no worse for it
        return 1
    return code if code in range(1, 9) else 1


def pixel_count(encoded):
    """The number of pixels that an image claims to have, read from its header.

    Args:
        encoded: bytes, the content of a file.

    Returns:
        An int; 0 if it cannot be told.
    """

    def number(first, last, order="little"):
        return int.from_bytes(encoded[first:last], order)

    if encoded.startswith(b"\x89PNG\r\n\x1a\n"):
        return number(16, 20, "big") * number(20, 24, "big")
    if encoded.startswith(b"GIF8"):
        return number(6, 8) * number(8, 10)
    if encoded.startswith(b"BM"):
        return number(18, 22) * abs(int.from_bytes(encoded[22:26], "little", signed=True))
    if encoded.startswith(b"RIFF") and encoded[8:12] == b"WEBP":
        kind = encoded[12:16]
        if kind == b"VP8X":  # extended: 24 bits each, less one
            return (number(24, 27) + 1) * (number(27, 30) + 1)
        if kind == b"VP8L":  # lossless: 14 bits each, less one
            bits = number(21, 25)
            return ((bits & 0x3FFF) + 1) * ((bits >> 14 & 0x3FFF) + 1)
        return (number(26, 28) & 0x3FFF) * (number(28, 30) & 0x3FFF)
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
