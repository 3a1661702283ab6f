"""Operations on the values of pixels, batched: each image has a strength of its own.

All take float32 images in [0, 1] as planes of colour, (B, 3, W, H), and return the same, clipped:
with the colours last, what differs between colours or images costs five times as much on a CPU.
One strength in (B,) leaves its image as it is (to rounding), so an operation that happens with a
probability needs no branch. Definitions as in torchvision.transforms, on floats.
"""

import tensorflow as tf

_GREY = (0.2989, 0.587, 0.114)


def to_planes(images):
    """(B, H, W, 3) to (B, 3, W, H): a plane for each colour, by columns as resampled images are."""
    return tf.transpose(images, [0, 3, 2, 1])


def from_planes(images):
    """(B, 3, W, H) to (B, H, W, 3)."""
    return tf.transpose(images, [0, 3, 2, 1])


def luminance(images):
    """Grey value (B, 1, W, H) of images (B, 3, W, H)."""
    red, green, blue = (images[:, i : i + 1] for i in range(3))
    return _GREY[0] * red + _GREY[1] * green + _GREY[2] * blue


def adjust_brightness(images, factors):
    """factor * image. `factors` (B,); 1 changes nothing."""
    return tf.minimum(images * _per_image(factors), 1.0)


def adjust_contrast(images, factors):
    """Blends with the mean grey value of each image. `factors` (B,); 1 changes nothing."""
    mean = tf.linalg.matvec(tf.reduce_mean(images, axis=(2, 3)), tf.constant(_GREY))
    return _clip(images * _per_image(factors) + _per_image((1 - factors) * mean))


def adjust_saturation(images, factors):
    """Blends with the grey image. `factors` (B,); 1 changes nothing, 0 removes the colours."""
    factors = _per_image(factors)
    return _clip(images * factors + (1 - factors) * luminance(images))


def adjust_hue(images, turns):
    """Rotates the hue in HSV space. `turns` (B,) in [-1, 1]; 0 changes nothing."""
    # With hue h in sixths of a turn, a channel whose own hue is o has the value
    # V - C clip(|h - o| - 1, 0, 1), |.| around the circle, V the maximum and C the chroma.
    # Written out, it takes half the time of tf.image.rgb_to_hsv and back, and equals them.
    red, green, blue = tf.unstack(images, axis=1)
    value = tf.maximum(tf.maximum(red, green), blue)
    chroma = value - tf.minimum(tf.minimum(red, green), blue)
    scale = 1 / tf.maximum(chroma, 1e-30)
    # No test for equality with `value`: compilers that compute a channel twice may round it twice.
    hue = tf.where(
        red >= tf.maximum(green, blue),
        (green - blue) * scale,
        tf.where(green >= blue, 2 + (blue - red) * scale, 4 + (red - green) * scale),
    )
    hue += 6 * turns[:, None, None]

    def channel(own_hue):
        apart = hue - own_hue
        apart = tf.abs(apart - 6 * tf.round(apart * (1 / 6)))
        return value - chroma * _clip(apart - 1)

    return tf.stack([channel(0.0), channel(2.0), channel(4.0)], axis=1)


def remove_colour(images):
    """The grey image, in three equal planes."""
    return tf.repeat(luminance(images), 3, axis=1)


def solarize(images, threshold):
    """Inverts the pixels at or above a threshold, one number."""
    return tf.where(images >= threshold, 1 - images, images)


def blur_kernel_size(image_size):
    """Taps of the blur's kernel: about a tenth of the image, odd, at least 3 (23 at 224 px)."""
    return max(3, image_size // 10 // 2 * 2 + 1)


def gaussian_blur(images, sigmas, kernel_size):
    """Blurs each image with a Gaussian of its own, the border reflected.

    Args:
        images: (B, 3, W, H) float32; W and H above kernel_size // 2.
        sigmas: (B,) standard deviations in pixels, positive.
        kernel_size: Odd number of taps.

    Returns:
        (B, 3, W, H) float32.
    """
    half = kernel_size // 2
    offsets = tf.range(-half, half + 1, dtype=images.dtype)
    weights = tf.exp(-0.5 * tf.square(offsets[:, None] / sigmas))
    weights = tf.unstack(weights / tf.reduce_sum(weights, axis=0), num=kernel_size)
    width, height = tf.unstack(tf.shape(images)[2:])
    # Sums of shifted images, of which XLA makes a single pass in each direction: three times as
    # fast on a CPU as one depthwise convolution with every plane of every image as a channel.
    padded = tf.pad(images, [[0, 0], [0, 0], [half, half], [0, 0]], mode="REFLECT")
    images = sum(_per_image(w) * padded[:, :, k : k + width] for k, w in enumerate(weights))
    padded = tf.pad(images, [[0, 0], [0, 0], [0, 0], [half, half]], mode="REFLECT")
    return sum(_per_image(w) * padded[:, :, :, k : k + height] for k, w in enumerate(weights))


def blend(chosen, changed, images):
    """`changed` where `chosen` (B,), `images` elsewhere; both (B, 3, W, H)."""
    return tf.where(_per_image(chosen), changed, images)


def on_chosen(chosen, function, images):
    """Applies a dear operation, only if there is an image to apply it to.

    Args:
        chosen: (B,) bool.
        function: Of images (B, 3, W, H), giving the same.
        images: (B, 3, W, H).

    Returns:
        (B, 3, W, H): the result where `chosen`, elsewhere the image.
    """
    # The branch also keeps XLA from computing the function's input anew for every use of it.
    return tf.cond(
        tf.reduce_any(chosen), lambda: blend(chosen, function(images), images), lambda: images
    )


def uniform(draws, low, high):
    """Maps draws that are uniform in [0, 1) to [low, high)."""
    return low + (high - low) * draws


def factors(draws, strength, chosen):
    """U(max(0, 1 - strength), 1 + strength) where `chosen`, and 1, the identity, elsewhere."""
    return tf.where(chosen, uniform(draws, max(0.0, 1 - strength), 1 + strength), 1.0)


def _per_image(values):
    return values[:, None, None, None]


def _clip(images):
    return tf.clip_by_value(images, 0.0, 1.0)
