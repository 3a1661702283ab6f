"""What all pipelines share: access to a source's images, and how much runs at a time."""

import os

import tensorflow as tf

# Calls of one `map` at a time: what an autotuner would find, since every call keeps a core busy.
PARALLEL_CALLS = os.cpu_count() or 1


def untuned(data):
    """A data set without tf.data's autotuner.

    Its thread sleeps twice as long each time, and the end of an iterator waits for it to wake: an
    epoch of 5.7 s then took 10.4.
    """
    options = tf.data.Options()
    options.autotune.enabled = False
    return data.with_options(options)


def reader(source):
    """A function from an index (scalar tensor) to the content of that file."""
    with tf.device("CPU"):
        strings = tf.constant(source.images)
    if source.paths:
        return lambda index: tf.io.read_file(strings[index])
    return lambda index: strings[index]
