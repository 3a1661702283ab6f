"""Access to the images of a source from inside a `tf.data` graph."""

import tensorflow as tf


def reader(source):
    """A function from an index (scalar tensor) to the content of that file."""
    with tf.device("CPU"):
        strings = tf.constant(source.images)
    if source.paths:
        return lambda index: tf.io.read_file(strings[index])
    return lambda index: strings[index]
