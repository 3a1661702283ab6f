"""What a TFLite file holds: integers throughout, pixels as they are, no custom operation."""

import keras
import numpy as np
import pytest

from keras_sacl.data.normalisation import IMAGENET_MEAN, IMAGENET_STD
from keras_sacl.export import convert_tflite, with_preprocessing
from keras_sacl.export.contents import float_tensors, tflite_ops


@pytest.fixture(scope="module")
def encoder():
    images = keras.Input((16, 16, 3))
    x = keras.layers.Conv2D(8, 3, activation="relu")(images)
    return keras.Model(images, keras.layers.GlobalAveragePooling2D()(x))


def test_quantised_pixels_are_the_pixels(encoder, digit_images):
    """Scale 1 and zero point 0, though no calibration image is brighter than 60."""
    from ai_edge_litert.interpreter import Interpreter

    model = with_preprocessing(encoder, IMAGENET_MEAN, IMAGENET_STD, dtype="float32")
    dark = np.float32(digit_images[0][:50, ::2, ::2] * 60)
    before = dark.copy()
    content = convert_tflite(model, "int8", dark, integer_input="uint8")
    (details,) = Interpreter(model_content=content).get_input_details()
    assert details["dtype"] == np.uint8
    assert details["quantization"] == (1.0, 0)
    np.testing.assert_array_equal(dark, before)


def test_integer_file_has_no_floats(encoder, digit_images):
    images = digit_images[0][:50, ::2, ::2]
    assert float_tensors(convert_tflite(encoder, "int8", images)) == []
    assert float_tensors(convert_tflite(encoder))


def test_custom_operation_is_found():
    """Without a Flex prefix: `igamma` is known to neither TFLite nor its TensorFlow extension."""
    import tensorflow as tf

    function = tf.function(
        lambda x: tf.math.igamma(tf.abs(x) + 1.0, tf.abs(x)),
        input_signature=[tf.TensorSpec((1, 4), tf.float32)],
    )
    converter = tf.lite.TFLiteConverter.from_concrete_functions([function.get_concrete_function()])
    converter.allow_custom_ops = True
    names, foreign = tflite_ops(converter.convert())
    assert foreign == ["Igamma"]
    assert "ABS" in names
