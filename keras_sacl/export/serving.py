"""The inference graph that every format is converted from, with named inputs and outputs."""

import contextlib
import tempfile

import keras
import tensorflow as tf

from keras_sacl.export.preprocessing import INPUTS
from keras_sacl.quiet import quiet

SIGNATURE = "serving_default"


def input_name(model):
    """ "pixels" or "photos" for a model of `with_preprocessing`, else "images"."""
    name = model.inputs[0].name
    return name if name in INPUTS.values() else INPUTS["normalised"]


def serving(model, outputs, batch=None):
    """A function for one signature, and its specification.

    Args:
        model: A `keras.Model` of one input and one output.
        outputs: Name of the output.
        batch: Images a call; None for any number.

    Returns:
        (function, [tf.TensorSpec]): a batch of images to a dict of one tensor.
    """
    spec = tf.TensorSpec((batch, *model.input_shape[1:]), model.inputs[0].dtype, input_name(model))

    def serve(images):
        return {outputs: tf.identity(model(images, training=False), name=outputs)}

    return serve, [spec]


def write_saved_model(model, directory, *, outputs="features", batch=None):
    """Writes an inference SavedModel with one signature, `SIGNATURE`.

    Args:
        model: A `keras.Model` of one input and one output.
        directory: Where to; made when needed.
        outputs: Name of the output.
        batch: Images a call; None for any number.
    """
    # By way of Keras' archive: converting the Keras model or its function directly gives graphs
    # that read variables (NaN), or the training graph, without an error.
    with quiet():
        archive = keras.export.ExportArchive()
        archive.track(model)
        function, signature = serving(model, outputs, batch)
        archive.add_endpoint(SIGNATURE, function, input_signature=signature)
        archive.write_out(str(directory), verbose=False)


@contextlib.contextmanager
def saved_model(model, **settings):
    """`write_saved_model` into a directory that is gone afterwards; gives its path."""
    with tempfile.TemporaryDirectory() as directory:
        write_saved_model(model, directory, **settings)
        yield directory
