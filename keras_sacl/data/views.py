"""One augmented view of a batch of images: a pure function of the images, a preset and a seed.

    view = augment_view(images, get_preset("cifar10")[0], seed=[1, 2], image_size=32)

Everything is batched: on CPUs the usual per-image layers are slower than the training of a small
network. All random numbers of a view are one draw (B, columns), so image i of a batch has its own
row, and leaving an operation out changes nothing for the others.
"""

import tensorflow as tf

from keras_sacl.data import photometric
from keras_sacl.data.crops import CROP_ATTEMPTS, random_crops
from keras_sacl.data.resampling import crop_batch

_CROP_COLUMNS = 2 * CROP_ATTEMPTS + 2
_COLUMNS = (
    "flip", "jitter", "brightness", "contrast", "saturation", "hue", "grayscale",
    "blur", "blur_sigma", "solarize",
)  # fmt: skip


def draw_table(seed, batch_size):
    """All random numbers of one view of a batch.

    Args:
        seed: (2,) integer tensor or pair; equal seeds give equal numbers.
        batch_size: Number of images B, an int or a scalar tensor.

    Returns:
        (B, columns) float32, uniform in [0, 1): row i is for image i.
    """
    shape = [batch_size, _CROP_COLUMNS + len(_COLUMNS)]
    return tf.random.stateless_uniform(shape, seed, alg="philox")


class Draws:
    """The random numbers of one view, by what they are for.

    Args:
        table: (B, columns), from `draw_table`.

    Attributes:
        crop: (B, 22) for `random_crops`.
        flip, jitter, brightness, ...: (B,) each.
    """

    def __init__(self, table):
        self.crop = table[:, :_CROP_COLUMNS]
        columns = tf.unstack(table[:, _CROP_COLUMNS:], num=len(_COLUMNS), axis=1)
        for name, column in zip(_COLUMNS, columns, strict=True):
            setattr(self, name, column)

    def flips(self, preset):
        """(B,) bool: which images to mirror."""
        return self.flip < preset.flip


def augment_view(images, preset, seed, image_size):
    """Makes one view of each image.

    Args:
        images: (B, H, W, 3) float32 in [0, 1].
        preset: `ViewPreset`.
        seed: (2,) integer tensor or pair. The view is a function of it: two views of the same
            images need two seeds.
        image_size: Side of the view, in pixels.

    Returns:
        (B, image_size, image_size, 3) float32 in [0, 1].
    """
    images = tf.convert_to_tensor(images, tf.float32)
    batch_size = images.shape[0] or tf.shape(images)[0]
    draws = Draws(draw_table(seed, batch_size))
    shape = tf.shape(images)
    crops = random_crops(draws.crop, preset, shape[1], shape[2])
    planes = crop_batch(photometric.to_planes(images), crops, draws.flips(preset), image_size)
    return photometric.from_planes(change_pixels(planes, preset, draws))


def change_pixels(images, preset, draws):
    """The operations after crop and flip.

    Args:
        images: (B, 3, S, S) float32 in [0, 1].
        preset: `ViewPreset`.
        draws: `Draws` of the same batch.

    Returns:
        (B, 3, S, S) float32 in [0, 1].
    """
    p = preset
    if p.jitter > 0:
        jittered = draws.jitter < p.jitter
        if p.brightness > 0:
            images = photometric.adjust_brightness(
                images, photometric.factors(draws.brightness, p.brightness, jittered)
            )
        if p.contrast > 0:
            images = photometric.adjust_contrast(
                images, photometric.factors(draws.contrast, p.contrast, jittered)
            )
        if p.saturation > 0:
            images = photometric.adjust_saturation(
                images, photometric.factors(draws.saturation, p.saturation, jittered)
            )
        if p.hue > 0:
            turns = photometric.uniform(draws.hue, -p.hue, p.hue)
            images = photometric.adjust_hue(images, tf.where(jittered, turns, 0.0))
    if p.grayscale > 0:
        grey = photometric.remove_colour(images)
        images = photometric.blend(draws.grayscale < p.grayscale, grey, images)
    if p.blur > 0:
        sigmas = photometric.uniform(draws.blur_sigma, *p.blur_sigma)
        taps = photometric.blur_kernel_size(images.shape[-1])

        def blur(images):
            return photometric.gaussian_blur(images, sigmas, taps)

        images = photometric.on_chosen(draws.blur < p.blur, blur, images)
    if p.solarize > 0:
        inverted = photometric.solarize(images, p.solarize_threshold)
        images = photometric.blend(draws.solarize < p.solarize, inverted, images)
    return images
