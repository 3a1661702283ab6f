"""Imports TensorFlow without its notes on processors and GPUs.

Imported before all else of this package: its commands answer bad input in one line, which the
notes would bury.
"""

from keras_sacl.quiet import quiet

with quiet():
    import tensorflow as tf

    tf.config.list_physical_devices()
