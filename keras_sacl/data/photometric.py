"""Operations on the values of pixels, batched: each image has a strength of its own.

All take float32 images (B, H, W, 3) in [0, 1] and return the same, clipped. One strength in (B,)
leaves its image as it is (to rounding), so an operation that happens with a probability needs no
branch. Definitions as in torchvision.transforms, on floats.
"""

import math

import tensorflow as tf

_GREY = (0.2989, 0.587, 0.114)


def luminance(images):
    """Grey value (B, H, W) of images (B, H, W, 3)."""
    red, green, blue = tf.unstack(images, axis=-1)
    return _GREY[0] * red + _GREY[1] * green + _GREY[2] * blue


def adjust_brightness(images, factors):
    """factor * image. `factors` (B,); 1 changes nothing."""
    return _clip(images * _per_image(factors))


def adjust_contrast(images, factors):
    """Blends with the mean grey value of each image. `factors` (B,); 1 changes nothing."""
    factors = _per_image(factors)
    mean = tf.reduce_mean(luminance(images), axis=(1, 2))
    return _clip(images * factors + (1 - factors) * _per_image(mean))


def adjust_saturation(images, factors):
    """Blends with the grey image. `factors` (B,); 1 changes nothing, 0 removes the colours."""
    factors = _per_image(factors)
    return _clip(images * factors + (1 - factors) * luminance(images)[..., None])


def adjust_hue(images, turns):
    """Rotates the hue in HSV space. `turns` (B,) in [-1, 1]; 0 changes nothing."""
    # With hue h in sixths of a turn, a channel whose own hue is o has the value
    # V - C clip(|h - o| - 1, 0, 1), |.| around the circle, V the maximum and C the chroma.
    # Written out, it takes half the time of tf.image.rgb_to_hsv and back, and equals them.
    red, green, blue = tf.unstack(images, axis=-1)
    value = tf.maximum(tf.maximum(red, green), blue)
    chroma = value - tf.minimum(tf.minimum(red, green), blue)
    scale = 1 / tf.maximum(chroma, 1e-30)
    hue = tf.where(
        value == red,
        (green - blue) * scale,
        tf.where(value == green, 2 + (blue - red) * scale, 4 + (red - green) * scale),
    )
    hue += 6 * turns[:, None, None]

    def channel(own_hue):
        apart = hue - own_hue
        apart = tf.abs(apart - 6 * tf.round(apart * (1 / 6)))
        return value - chroma * tf.clip_by_value(apart - 1, 0, 1)

    return tf.stack([channel(0.0), channel(2.0), channel(4.0)], axis=-1)


def remove_colour(images, chosen):
    """Makes the images whose flag in `chosen` (B,) bool is set grey."""
    amounts = _per_image(tf.cast(chosen, images.dtype))
    return images + amounts * (luminance(images)[..., None] - images)


def solarize(images, thresholds):
    """Inverts the pixels at or above a threshold. `thresholds` (B,); above 1 changes nothing."""
    return tf.where(images >= _per_image(thresholds), 1 - images, images)


def blur_kernel_size(image_size):
    """Taps of the blur's kernel: about a tenth of the image, odd, at least 3 (23 at 224 px)."""
    return max(3, image_size // 10 // 2 * 2 + 1)


def gaussian_blur(images, sigmas, kernel_size):
    """Blurs each image with a Gaussian of its own, the border reflected.

    Args:
        images: (B, H, W, 3) float32; H and W above kernel_size // 2.
        sigmas: (B,) standard deviations in pixels, positive.
        kernel_size: Odd number of taps.

    Returns:
        (B, H, W, 3) float32.
    """
    half = kernel_size // 2
    offsets = tf.range(-half, half + 1, dtype=images.dtype)
    weights = tf.exp(-0.5 * tf.square(offsets[:, None] / sigmas))
    weights /= tf.reduce_sum(weights, axis=0)  # (taps, B)
    # Every channel of every image becomes a channel of one depthwise convolution.
    batch, height, width, channels = tf.unstack(tf.shape(images))
    folded = tf.reshape(tf.transpose(images, [1, 2, 0, 3]), [1, height, width, batch * channels])
    taps = tf.repeat(weights, channels, axis=1)
    column = tf.pad(folded, [[0, 0], [half, half], [0, 0], [0, 0]], mode="REFLECT")
    column = tf.nn.depthwise_conv2d(column, taps[:, None, :, None], [1, 1, 1, 1], "VALID")
    row = tf.pad(column, [[0, 0], [0, 0], [half, half], [0, 0]], mode="REFLECT")
    row = tf.nn.depthwise_conv2d(row, taps[None, :, :, None], [1, 1, 1, 1], "VALID")
    unfolded = tf.reshape(row, [height, width, batch, channels])
    return tf.ensure_shape(tf.transpose(unfolded, [2, 0, 1, 3]), images.shape)


def blur_some(images, chosen, sigmas, kernel_size):
    """`gaussian_blur` of the images whose flag in `chosen` (B,) bool is set, and of no others.

    View B of the papers blurs one image in ten; the blur is the dearest operation of all.
    """

    def blurred():
        where = tf.where(chosen)
        some = gaussian_blur(tf.gather_nd(images, where), tf.gather_nd(sigmas, where), kernel_size)
        return tf.tensor_scatter_nd_update(images, where, some)

    return tf.cond(tf.reduce_any(chosen), blurred, lambda: images)


def uniform(draws, low, high):
    """Maps draws that are uniform in [0, 1) to [low, high)."""
    return low + (high - low) * draws


def factors(draws, strength, chosen):
    """U(max(0, 1 - strength), 1 + strength) where `chosen`, and 1, the identity, elsewhere."""
    return tf.where(chosen, uniform(draws, max(0.0, 1 - strength), 1 + strength), 1.0)


def thresholds(chosen, threshold):
    """Thresholds (B,) of `solarize` for the images that are `chosen` (B,) bool."""
    return tf.where(chosen, threshold, math.inf)


def _per_image(values):
    return values[:, None, None, None]


def _clip(images):
    return tf.clip_by_value(images, 0.0, 1.0)
