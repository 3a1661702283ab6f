"""Random resized crops: where they lie, and how they are resampled.

A crop is (top, left, height, width) in pixels of its image, not rounded to whole pixels: on images
of 8 or 32 px rounding would leave few different crops. Pixel i covers [i, i + 1), so the whole
image is (0, 0, H, W).
"""

import math

import tensorflow as tf

CROP_ATTEMPTS = 10


def random_crops(draws, preset, height, width):
    """Crops with the distribution of torchvision's RandomResizedCrop.

    Area and log aspect are uniform; of ten attempts the first that fits into the image is taken,
    and if none does, the largest centred crop within the limits of the aspect.

    Args:
        draws: (B, 2 * CROP_ATTEMPTS + 2) float32, uniform in [0, 1).
        preset: `ViewPreset`; `crop_area` and `crop_aspect` are used.
        height, width: Size of the images in pixels: numbers, or tensors (B,).

    Returns:
        (B, 4) float32 crops.
    """
    height = tf.cast(height, tf.float32) + tf.zeros_like(draws[:, 0])
    width = tf.cast(width, tf.float32) + tf.zeros_like(draws[:, 0])
    low_aspect, high_aspect = preset.crop_aspect
    low_area, high_area = preset.crop_area
    areas = low_area + (high_area - low_area) * draws[:, :CROP_ATTEMPTS]
    areas *= (height * width)[:, None]
    log_low, log_high = math.log(low_aspect), math.log(high_aspect)
    log_aspects = log_low + (log_high - log_low) * draws[:, CROP_ATTEMPTS : 2 * CROP_ATTEMPTS]
    aspects = tf.exp(log_aspects)
    widths, heights = tf.sqrt(areas * aspects), tf.sqrt(areas / aspects)
    # The tolerance keeps a crop of the whole image in spite of the rounding of the square roots.
    fits = (widths <= width[:, None] * (1 + 1e-6)) & (heights <= height[:, None] * (1 + 1e-6))
    first = tf.argmax(tf.cast(fits, tf.int32), axis=1)
    fitted = tf.reduce_any(fits, axis=1)
    aspect = tf.clip_by_value(width / height, low_aspect, high_aspect)
    crop_width = tf.where(
        fitted, tf.gather(widths, first, batch_dims=1), tf.minimum(width, height * aspect)
    )
    crop_height = tf.where(
        fitted, tf.gather(heights, first, batch_dims=1), tf.minimum(height, width / aspect)
    )
    crop_width, crop_height = tf.minimum(crop_width, width), tf.minimum(crop_height, height)
    shift_y = tf.where(fitted, draws[:, -2], 0.5)
    shift_x = tf.where(fitted, draws[:, -1], 0.5)
    top, left = shift_y * (height - crop_height), shift_x * (width - crop_width)
    return tf.stack([top, left, crop_height, crop_width], axis=1)


def pad_for_crops(images):
    """Repeats the border pixels of images (N, H, W, 3) once, as `crop_batch` needs them."""
    return tf.pad(images, [[0, 0], [1, 1], [1, 1], [0, 0]], mode="SYMMETRIC")


def crop_batch(padded, indices, crops, flips, size):
    """Crops, flips and resizes images of one size in one bilinear resampling.

    Args:
        padded: (N, H + 2, W + 2, 3) images of any numeric type, from `pad_for_crops`.
        indices: (B,) int32, which image each crop is of.
        crops: (B, 4) float32, in pixels of the images before padding.
        flips: (B,) bool, whether to mirror left and right.
        size: Side of the result, in pixels.

    Returns:
        (B, size, size, 3) float32 in the unit of `padded`.
    """
    # crop_and_resize samples at its box's very ends, as shares of the last pixel's index; these
    # are the centres of the first and the last output pixel. Without the padding, centres in the
    # outer half pixel of an enlarged image would be extrapolated.
    shape = tf.shape(padded)
    last = tf.cast(shape[1:3] - 1, tf.float32)
    step = crops[:, 2:] / size
    low = crops[:, :2] + 0.5 * step + 0.5
    high = low + (size - 1) * step
    left = tf.where(flips, high[:, 1], low[:, 1])
    right = tf.where(flips, low[:, 1], high[:, 1])
    ends = tf.stack([low[:, 0], left, high[:, 0], right], axis=1)
    return tf.image.crop_and_resize(padded, ends / tf.tile(last, [2]), indices, (size, size))


def centre_crop(height, width, share=1.0):
    """The centred square (4,) whose side is `share` of the image's shorter side, in pixels."""
    height, width = tf.cast(height, tf.float32), tf.cast(width, tf.float32)
    side = share * tf.minimum(height, width)
    return tf.stack([(height - side) / 2, (width - side) / 2, side, side])


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
    # Photos need the antialiasing, and next to decoding (1.3 ms at 348 x 464) its price is small
    # (1.0 instead of 0.6 ms to 224 px).
    scale = size / crop[2:]
    return tf.raw_ops.ScaleAndTranslate(
        images=images,
        size=[size, size],
        scale=scale,
        translation=-crop[:2] * scale,
        kernel_type="triangle",
        antialias=True,
    )


def flip_batch(images, flips):
    """Mirrors those of the images (B, H, W, 3) whose flag in (B,) is set."""
    return tf.where(flips[:, None, None, None], tf.reverse(images, axis=[2]), images)
