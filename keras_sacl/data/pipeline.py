"""`tf.data` pipelines: pairs of views to train on, plain images to evaluate and export with."""

import numpy as np
import tensorflow as tf

from keras_sacl.data.crops import (
    centre_crop,
    crop_batch,
    crop_together,
    flip_batch,
    pad_for_crops,
    random_crops,
)
from keras_sacl.data.decoding import decode
from keras_sacl.data.normalisation import IMAGENET_MEAN, IMAGENET_STD, normalise
from keras_sacl.data.views import Draws, change_pixels

# What a random number is for, as the second half of its seed.
_ORDER, _VIEWS = 0, (1, 2)
# Photos: the shorter side goes to 256 of every 224 pixels, then the centre is cropped.
_PHOTO_SHARE = 224 / 256
_AUTOTUNE = tf.data.AUTOTUNE


def two_view_dataset(
    source,
    preset_pair,
    *,
    image_size,
    batch_size,
    seed,
    epochs,
    start_step=0,
    mean=IMAGENET_MEAN,
    std=IMAGENET_STD,
):
    """Two augmented views of each image, in an order shuffled anew every epoch.

    An epoch has N // batch_size steps. The batch of step t is a function of (seed, t) alone, so a
    run that goes on at `start_step` sees, bit for bit, what one never interrupted would have seen.

    Args:
        source: `ImageSource` of N images.
        preset_pair: (`ViewPreset`, `ViewPreset`) of view A and view B.
        image_size: Side of the views, in pixels.
        batch_size: Images per step, 2 to N.
        seed: Integer of at least 0; of the order and of the augmentations.
        epochs: Passes over the images.
        start_step: Steps to leave out, counted from the start of the run.
        mean, std: See `normalise`.

    Returns:
        `tf.data.Dataset` of (view_a, view_b), float32 (batch_size, image_size, image_size, 3)
        each, with epochs * (N // batch_size) - start_step elements.

    Raises:
        ValueError: On a `batch_size`, `epochs`, `start_step` or `seed` out of its range.
    """
    total = _check(len(source), batch_size, epochs, start_step, seed)
    steps = _steps(len(source), batch_size, seed, epochs, start_step)

    def draws(step, role):
        key = tf.constant([seed, role], tf.int64)
        return Draws(tf.random.experimental.stateless_fold_in(key, step), batch_size)

    def finish(images, preset, numbers):
        return normalise(change_pixels(images * (1 / 255), preset, numbers), mean, std)

    if source.decoded:
        with tf.device("CPU"):
            padded = pad_for_crops(tf.constant(source.images))

        def views(step, indices):
            found = []
            for preset, role in zip(preset_pair, _VIEWS, strict=True):
                numbers = draws(step, role)
                crops = random_crops(numbers.crop, preset, *source.images.shape[1:3])
                flips = numbers.flips(preset)
                cropped = crop_batch(padded, indices, crops, flips, image_size)
                found.append(finish(cropped, preset, numbers))
            return tuple(found)

        data = steps.map(views, num_parallel_calls=_AUTOTUNE, deterministic=True)
    else:
        read = _reader(source)

        def places(step, indices):
            return indices, *(draws(step, role).crop for role in _VIEWS)

        def crop_twice(index, *numbers):
            image = decode(read(index))
            shape = tf.shape(image)
            return tuple(
                crop_together(
                    image[None], random_crops(row[None], preset, shape[0], shape[1])[0], image_size
                )[0]
                for row, preset in zip(numbers, preset_pair, strict=True)
            )

        def views(step, crops):
            found = []
            for cropped, preset, role in zip(crops, preset_pair, _VIEWS, strict=True):
                numbers = draws(step, role)
                flipped = flip_batch(cropped, numbers.flips(preset)) if preset.flip else cropped
                found.append(finish(flipped, preset, numbers))
            return tuple(found)

        crops = (
            steps.map(places)
            .unbatch()
            .map(crop_twice, num_parallel_calls=_AUTOTUNE, deterministic=True)
            .batch(batch_size, drop_remainder=True)
        )
        data = tf.data.Dataset.zip(tf.data.Dataset.range(start_step, total), crops)
        data = data.map(views, num_parallel_calls=_AUTOTUNE, deterministic=True)
    # Known to Keras, which then neither guesses nor warns about the end.
    data = data.apply(tf.data.experimental.assert_cardinality(total - start_step))
    return data.prefetch(_AUTOTUNE)


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
        (B,), -1 where there is no label.

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
        data = data.map(prepare, num_parallel_calls=_AUTOTUNE, deterministic=True)
    else:
        read = _reader(source)

        def load(index, label):
            image = decode(read(index))
            shape = tf.shape(image)
            crop = centre_crop(shape[0], shape[1], _PHOTO_SHARE)
            return _to_uint8(crop_together(image[None], crop, image_size)[0]), label

        data = tf.data.Dataset.from_tensor_slices((np.arange(len(source)), labels))
        data = data.map(load, num_parallel_calls=_AUTOTUNE, deterministic=True).batch(batch_size)
    return data.prefetch(_AUTOTUNE)


def plain_batches(source, *, image_size, batch_size, mean=IMAGENET_MEAN, std=IMAGENET_STD):
    """`raw_batches`, normalised: what the encoder takes.

    The pixels are those of `raw_batches`, rounded as there, so that an exported model with the
    preprocessing inside sees the same numbers.

    Args:
        source, image_size, batch_size: As in `raw_batches`.
        mean, std: See `normalise`.

    Returns:
        `tf.data.Dataset` of (images, labels): float32 (B, image_size, image_size, 3) and int64
        (B,), -1 where there is no label.

    Raises:
        ValueError: As `raw_batches` and `normalise`.
    """

    def prepare(images, labels):
        return normalise(tf.cast(images, tf.float32) / 255, mean, std), labels

    data = raw_batches(source, image_size=image_size, batch_size=batch_size)
    return data.map(prepare, num_parallel_calls=_AUTOTUNE, deterministic=True).prefetch(_AUTOTUNE)


def _check(count, batch_size, epochs, start_step, seed):
    """The number of steps of the whole run."""
    if not 2 <= batch_size <= count:
        raise ValueError(
            f"`batch_size` must be at least 2 and at most the number of images, {count}. "
            f"Received: batch_size={batch_size}"
        )
    if epochs < 1:
        raise ValueError(f"`epochs` must be at least 1. Received: epochs={epochs}")
    if seed < 0:
        raise ValueError(f"`seed` must be at least 0. Received: seed={seed}")
    total = epochs * (count // batch_size)
    if not 0 <= start_step <= total:
        raise ValueError(
            f"`start_step` must be in [0, {total}], the steps of {epochs} epochs. "
            f"Received: start_step={start_step}"
        )
    return total


def _steps(count, batch_size, seed, epochs, start_step):
    """Dataset of (step, indices (batch_size,) int32): a new permutation for each epoch."""
    per_epoch = count // batch_size
    first_epoch = start_step // per_epoch

    def epoch_steps(epoch):
        key = tf.random.experimental.stateless_fold_in(tf.constant([seed, _ORDER], tf.int64), epoch)
        order = tf.random.experimental.stateless_shuffle(tf.range(count), key, alg="philox")
        order = tf.reshape(order[: per_epoch * batch_size], [per_epoch, batch_size])
        numbers = epoch * per_epoch + tf.range(per_epoch, dtype=tf.int64)
        return tf.data.Dataset.from_tensor_slices((numbers, order))

    data = tf.data.Dataset.range(first_epoch, epochs).flat_map(epoch_steps)
    return data.skip(start_step - first_epoch * per_epoch)


def _reader(source):
    """A function from an index (scalar tensor) to the content of that file."""
    with tf.device("CPU"):
        strings = tf.constant(source.images)
    if source.paths:
        return lambda index: tf.io.read_file(strings[index])
    return lambda index: strings[index]


def _to_uint8(images):
    return tf.cast(tf.clip_by_value(tf.round(images), 0, 255), tf.uint8)
