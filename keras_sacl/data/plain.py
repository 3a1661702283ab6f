"""Images without augmentation, in order: to evaluate, to calibrate and to export with."""

import numpy as np
import tensorflow as tf

from keras_sacl.data.crops import centre_crop
from keras_sacl.data.normalisation import IMAGENET_MEAN, IMAGENET_STD, normalise
from keras_sacl.data.reading import PARALLEL_CALLS, reader, untuned
from keras_sacl.data.resampling import crop_together

# Photos: the shorter side goes to 256 of every 224 pixels, then the centre is cropped.
PHOTO_SHARE = 224 / 256
_PREFETCHED = 2
_PIECE = 256


def raw_batches(source, *, image_size, batch_size):
    """The images as a phone would hand them over: uint8 pixels, in order, none twice, none lost.

    Decoded sources: the whole image, or the centred square of one that is not square. Photos:
    resized so that the shorter side has 256 / 224 of `image_size`, then cropped to the centre.

    Args:
        source: `ImageSource` of N images.
        image_size: Side of the images, in pixels.
        batch_size: Images per batch; the last batch holds what remains.

    Returns:
        `tf.data.Dataset` of (images, labels): uint8 (B, image_size, image_size, 3) and int64
        (B,), -1 where there is no label; or (B, C), where the source's are multi-hot.

    Raises:
        ValueError: If `batch_size` is less than 1.
    """
    if batch_size < 1:
        raise ValueError(f"`batch_size` must be at least 1. Received: batch_size={batch_size}")
    labels = np.full(len(source), -1, np.int64) if source.labels is None else source.labels
    if source.decoded:
        height, width = source.images.shape[1:3]

        def prepare(images, labels):
            if height == width == image_size:
                return images, labels
            crop = centre_crop(height, width)
            return _to_uint8(crop_together(images, crop, image_size)), labels

        with tf.device("CPU"):
            data = tf.data.Dataset.from_tensor_slices((source.images, labels)).batch(batch_size)
        data = data.map(prepare, num_parallel_calls=PARALLEL_CALLS, deterministic=True)
    else:
        read = reader(source)

        def load(index, label):
            image = read(index)
            shape = tf.shape(image)
            crop = centre_crop(shape[0], shape[1], PHOTO_SHARE)
            return _to_uint8(crop_together(image[None], crop, image_size)[0]), label

        data = tf.data.Dataset.from_tensor_slices((np.arange(len(source)), labels))
        data = data.map(load, num_parallel_calls=PARALLEL_CALLS, deterministic=True).batch(
            batch_size
        )
    return untuned(data.prefetch(_PREFETCHED))


def raw_pixels(source, image_size):
    """`raw_batches` in one piece: (uint8 (N, image_size, image_size, 3), labels (N,) or (N, C))."""
    batches = raw_batches(source, image_size=image_size, batch_size=_PIECE)
    images, labels = zip(*batches, strict=True)
    return np.concatenate(images), np.concatenate(labels)


def crop_share(source):
    """The share of the shorter side that `raw_batches` keeps: 1, or 224 / 256 of photos."""
    return 1.0 if source.decoded else PHOTO_SHARE


def original_images(source):
    """The images in their own sizes, in order: what `raw_batches` makes its pixels of.

    Args:
        source: `ImageSource`.

    Returns:
        `tf.data.Dataset` of uint8 (H, W, 3).
    """
    data = tf.data.Dataset.range(len(source))
    data = data.map(reader(source), num_parallel_calls=PARALLEL_CALLS, deterministic=True)
    return untuned(data)


def plain_batches(source, *, image_size, batch_size, mean=IMAGENET_MEAN, std=IMAGENET_STD):
    """`raw_batches`, normalised: what the encoder takes.

    The pixels are those of `raw_batches`, rounded as there, so that an exported model with the
    preprocessing inside sees the same numbers.

    Args:
        source, image_size, batch_size: As in `raw_batches`.
        mean, std: See `normalise`.

    Returns:
        `tf.data.Dataset` of (images, labels): float32 (B, image_size, image_size, 3), and labels
        as in `raw_batches`.

    Raises:
        ValueError: As `raw_batches` and `normalise`.
    """

    def prepare(images, labels):
        return normalise(tf.cast(images, tf.float32) / 255, mean, std), labels

    data = raw_batches(source, image_size=image_size, batch_size=batch_size)
    return data.map(prepare, num_parallel_calls=PARALLEL_CALLS, deterministic=True).prefetch(
        _PREFETCHED
    )


def _to_uint8(images):
    return tf.cast(tf.clip_by_value(tf.round(images), 0, 255), tf.uint8)
