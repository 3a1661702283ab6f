"""How crops are resampled: bilinearly and antialiased, as `tf.image.resize(antialias=True)` does.

Each row of the result is a weighted sum of rows of the image, and each column one of columns. What
is the fastest way to take such sums depends on the sizes, hence three functions.
"""

import functools

import numpy as np
import tensorflow as tf

# A pass over the image for each pair of taps; of more pairs `ScaleAndTranslate` is faster.
_MOST_PAIRS = 2


def crop_batch(images, crops, flips, size):
    """Crops, flips and resizes small images of one size.

    By two products of matrices for each plane: on a CPU three times as fast as
    `tf.image.crop_and_resize` at 32 px.

    Args:
        images: (B, C, W, H) float32, see `photometric.to_planes`.
        crops: (B, 4) float32, in pixels.
        flips: (B,) bool, whether to mirror left and right.
        size: Side of the result, in pixels.

    Returns:
        (B, C, size, size) float32 in the unit of `images`.
    """
    _, _, width, height = tf.unstack(tf.shape(images))
    columns = resampling(crops[:, 1], crops[:, 3], flips, width, size)
    rows = resampling(crops[:, 0], crops[:, 2], tf.zeros_like(flips), height, size)
    return tf.matmul(tf.matmul(columns[:, None], images), rows[:, None], transpose_b=True)


def crop_image(image, crop, flip, size):
    """Crops, flips and resizes one photo.

    By a product for each tap and direction, two of them where the photo is enlarged, in compiled
    passes over the part that the crop needs: from 224 px to 224 px in 0.2 ms of a core, where
    `ScaleAndTranslate` takes 0.8.

    Args:
        image: (H, W, 3) uint8.
        crop: (4,) float32, in pixels.
        flip: Scalar bool, whether to mirror left and right.
        size: Side of the result, in pixels.

    Returns:
        (3, size, size) float32 in [0, 1]: a plane for each colour, by columns.
    """
    pairs = tf.cast(tf.math.ceil(tf.reduce_max(crop[2:]) / size), tf.int32)

    def by_taps(count):
        corner, taps, weights = _taps(crop, flip, tf.shape(image)[:2], size, count)
        rows = _resample_rows(_part(image, corner, count // 2 * (size + 1)), taps[0], weights[0])
        return _resample_columns(rows, taps[1], weights[1])

    def by_library():
        planes = tf.transpose(crop_together(image[None], crop, size)[0]) * (1 / 255)
        return tf.where(flip, tf.reverse(planes, axis=[1]), planes)

    branches = [functools.partial(by_taps, 2 * n) for n in range(1, _MOST_PAIRS + 1)]
    return tf.switch_case(tf.maximum(pairs, 1) - 1, [*branches, by_library])


def crop_together(images, crop, size):
    """Takes one and the same crop of every image, resized with antialiasing in one resampling.

    The whole square image gives `tf.image.resize(images, (size, size), antialias=True)`.

    Args:
        images: (B, H, W, 3) of any numeric type.
        crop: (4,) float32 in pixels.
        size: Side of the result, in pixels.

    Returns:
        (B, size, size, 3) float32 in the unit of `images`.
    """
    scale = size / crop[2:]
    return tf.raw_ops.ScaleAndTranslate(
        images=images,
        size=[size, size],
        scale=scale,
        translation=-crop[:2] * scale,
        kernel_type="triangle",
        antialias=True,
    )


def resampling(start, length, flips, extent, size):
    """The weights of the input pixels in each output pixel, along one side of an image.

    Args:
        start, length: (B,) float32: where crops begin, and how far they reach, in input pixels.
        flips: (B,) bool, whether the order of the output pixels is turned round.
        extent: Number of input pixels, an int32 scalar.
        size: Number of output pixels.

    Returns:
        (B, size, extent) float32; rows sum to 1.
    """
    centres, width = _centres(start[:, None], length[:, None], flips[:, None], size)
    apart = centres[:, :, None] - tf.range(tf.cast(extent, tf.float32))
    weights = _triangle(apart, width[:, :, None])
    return weights / tf.reduce_sum(weights, axis=2, keepdims=True)


# Not compiled: XLA may compute the same floor twice, and round it differently for the index and for
# its weight.
def _taps(crop, flip, extents, size, count):
    """Which input rows and columns go into each output row and column, and how much of them.

    Returns:
        corner: (2,) int32: the first row and the first column.
        indices: (2, count, size) int32, counted from the corner: for rows and for columns.
        weights: (2, count, size) float32; those of one output row or column sum to 1.
    """
    flips = tf.stack([False, flip])
    centres, width = _centres(crop[:2, None], crop[2:, None], flips[:, None], size)
    centres, width = centres[:, None], width[:, None]
    indices = tf.floor(centres - width) + tf.range(1.0, count + 1)[:, None]
    last = tf.cast(extents[:, None, None] - 1, tf.float32)
    # What lies outside of the image has no weight.
    inside = tf.clip_by_value(indices, 0.0, last)
    weights = tf.where(inside == indices, _triangle(centres - indices, width), 0.0)
    inside = tf.cast(inside, tf.int32)
    corner = tf.reduce_min(inside, axis=(1, 2))
    weights /= tf.reduce_sum(weights, axis=1, keepdims=True)
    return corner, inside - corner[:, None, None], weights


def _part(image, corner, side):
    """(side, side, 3) from a corner on: of one size, as compiled code needs it."""
    part = image[corner[0] : corner[0] + side, corner[1] : corner[1] + side]
    # Concatenation copies lines, `tf.pad` single bytes.
    height, width, _ = tf.unstack(tf.shape(part))
    part = tf.concat([part, tf.zeros([height, side - width, 3], part.dtype)], axis=1)
    part = tf.concat([part, tf.zeros([side - height, side, 3], part.dtype)], axis=0)
    return tf.ensure_shape(part, [side, side, 3])


# Two compiled functions, not one: of both passes in one, XLA makes a single slow loop.
@tf.function(jit_compile=True, autograph=False)
def _resample_rows(part, indices, weights):
    """(H, W, 3) uint8 to (3, size, W) float32 in [0, 1], see `_taps`."""
    return _weighted(tf.transpose(part, [2, 0, 1]), indices, weights * (1 / 255))


@tf.function(jit_compile=True, autograph=False)
def _resample_columns(rows, indices, weights):
    """(3, H, W) to (3, size, H)."""
    return _weighted(tf.transpose(rows, [0, 2, 1]), indices, weights)


def _centres(start, length, flip, size):
    """Centres of the output pixels, in input pixels, and the half width of what each takes in."""
    step = length / size
    positions = np.arange(size, dtype=np.float32) + 0.5
    centres = start + tf.where(flip, positions[::-1], positions) * step - 0.5
    # As wide as an output pixel, or as an input pixel where the image is enlarged.
    return centres, tf.maximum(step, 1.0)


def _triangle(apart, width):
    return tf.nn.relu(1 - tf.abs(apart) / width)


def _weighted(planes, indices, weights):
    """Sums of what lies at (taps, size) indices of the middle axis, by weights of that shape."""
    pairs = zip(tf.unstack(indices), tf.unstack(weights), strict=True)
    return tf.add_n(
        [w[:, None] * tf.cast(tf.gather(planes, i, axis=1), tf.float32) for i, w in pairs]
    )
