"""The first blocks of an encoder: what takes converters a third of the time."""

import keras


def truncated(encoder, layer):
    """An encoder up to one of its layers, and the average of that one's maps."""
    pool = keras.layers.GlobalAveragePooling2D(name="features")
    maps = encoder.get_layer(layer).output
    return keras.Model(encoder.inputs[0], pool(maps), name=encoder.name)
