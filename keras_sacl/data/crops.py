"""Where crops lie.

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


def centre_crop(height, width, share=1.0):
    """The centred square (4,) whose side is `share` of the image's shorter side, in pixels."""
    height, width = tf.cast(height, tf.float32), tf.cast(width, tf.float32)
    side = share * tf.minimum(height, width)
    return tf.stack([(height - side) / 2, (width - side) / 2, side, side])
