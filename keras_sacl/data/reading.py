"""What all pipelines share: access to a source's images, and how much runs at a time."""

import dataclasses
import os

import numpy as np
import tensorflow as tf

from keras_sacl.data.decoding import decode, upright

# Calls of one `map` at a time. Each keeps a core busy; with two for each core there is always one
# ready, which makes a tenth more photos' views than one for each.
PARALLEL_CALLS = 2 * (os.cpu_count() or 1)


def untuned(data):
    """A data set without tf.data's autotuner.

    Its thread sleeps twice as long each time, and the end of an iterator waits for it to wake: an
    epoch of 5.7 s then took 10.4.
    """
    options = tf.data.Options()
    options.autotune.enabled = False
    return data.with_options(options)


def reader(source):
    """A function from an index (scalar tensor) to that image, uint8 (H, W, 3), upright."""
    with tf.device("CPU"):
        images = tf.constant(source.images)
        codes = None if source.orientations is None else tf.constant(source.orientations)
    if source.decoded:
        return lambda index: images[index]

    def read(index):
        file = tf.io.read_file(images[index]) if source.paths else images[index]
        return decode(file) if codes is None else upright(decode(file), codes[index])

    return read


def decode_all(source):
    """The same images as one array of pixels, decoded once and for all.

    Args:
        source: `ImageSource`.

    Returns:
        `ImageSource` with `images` uint8 (N, H, W, 3).

    Raises:
        ValueError: If the images are not all of one size.
    """
    if source.decoded:
        return source
    read = reader(source)
    data = tf.data.Dataset.range(len(source)).map(
        read, num_parallel_calls=PARALLEL_CALLS, deterministic=True
    )
    pixels = None
    for index, image in enumerate(untuned(data).as_numpy_iterator()):
        if pixels is None:
            pixels = np.empty((len(source), *image.shape), np.uint8)
        if image.shape != pixels.shape[1:]:
            (height, width, _), (other_height, other_width, _) = pixels.shape[1:], image.shape
            raise ValueError(
                f"the images must be of one size. Received: {height} x {width} pixels for image 0 "
                f"and {other_height} x {other_width} for image {index}"
            )
        pixels[index] = image
    return dataclasses.replace(source, images=pixels, orientations=None)
