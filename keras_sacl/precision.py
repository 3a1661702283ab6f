"""The dtype in which a network computes, whatever it was built for."""

import contextlib

import keras
from keras import layers

PRECISIONS = ("float32", "float16", "bfloat16")
# Pixels from 0 to 255 come out of or go into these; as into any layer with `keeps_float32`.
_FLOAT32 = (layers.Normalization, layers.Rescaling)


@contextlib.contextmanager
def dtype_policy(name):
    """Makes `name` the policy of layers that are built inside."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(name)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


def with_precision(model, precision):
    """A model of the same weights that computes in another dtype.

    Variables stay float32, as do pixels, the global average and the output.

    Args:
        model: A functional `keras.Model` with one output.
        precision: One of `PRECISIONS`.

    Returns:
        A `keras.Model`; `model` itself if it is what is asked for.
    """
    parts = model._flatten_layers(include_self=False)
    if precision == "float32" and all(layer.compute_dtype == "float32" for layer in parts):
        return model
    policy = "float32" if precision == "float32" else f"mixed_{precision}"

    def clone_function(layer):
        # An operation of keras.ops has no dtype; and what Normalization computes with is a copy of
        # its variables, which `set_weights` does not renew.
        if not isinstance(layer, layers.Layer) or _keeps_float32(layer):
            return layer
        pool = isinstance(layer, layers.GlobalAveragePooling2D)
        return type(layer).from_config(
            {**layer.get_config(), "dtype": "float32" if pool else policy}
        )

    # The policy is also for layers within layers, which no configuration reaches.
    with dtype_policy(policy):
        clone = keras.models.clone_model(model, clone_function=clone_function, recursive=True)
    clone.set_weights(model.get_weights())
    return keras.Model(clone.inputs[0], as_float32(clone.outputs[0]), name=model.name)


def as_float32(x):
    """A Keras tensor, cast if it must be."""
    return x if x.dtype == "float32" else layers.Activation("linear", dtype="float32")(x)


def _keeps_float32(layer):
    return isinstance(layer, _FLOAT32) or getattr(layer, "keeps_float32", False)
