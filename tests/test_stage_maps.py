"""Encoders that have no maps to find."""

import keras
import pytest
from keras import layers

from keras_sacl.encoders import build_encoder
from keras_sacl.finetuning import build_classifier
from keras_sacl.stage_maps import stage_maps


def test_a_transformer_has_none():
    encoder = build_encoder("deit_tiny", width=0.1, image_size=8)
    text = "`encoder` must have maps .* Received: encoder=deit_tiny, with tokens from 'tokens' on$"
    for read in (stage_maps, lambda model: build_classifier(model, 10, "last_blocks")):
        with pytest.raises(ValueError, match=text):
            read(encoder)


def test_maps_that_are_made_of_tokens_are_found():
    images = keras.Input((8, 8, 3))
    x = layers.Conv2D(4, 3, strides=2, padding="same", name="stem")(images)
    x = layers.MultiHeadAttention(1, 4)(*2 * [layers.Reshape((16, 4))(x)])
    x = layers.Conv2D(4, 2, strides=2, name="last")(layers.Reshape((4, 4, 4), name="maps")(x))
    encoder = keras.Model(images, layers.GlobalAveragePooling2D()(x))
    assert list(stage_maps(encoder)) == ["maps", "last"]
