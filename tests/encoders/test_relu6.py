"""`activation="relu6"`: everywhere, and nothing else."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_sacl.encoders import build_encoder
from keras_sacl.slimming import check_pair
from tests.encoders.names import CONVOLUTIONAL, slow

QUICK = ("mobilenet_v3_small", "resnet20_cifar", "alexnet")


@pytest.mark.long
@pytest.mark.parametrize("name", slow(CONVOLUTIONAL, {*CONVOLUTIONAL} - {*QUICK}))
def test_relu6_is_everywhere_and_changes_nothing_else(name, digits, tmp_path):
    def build(width, activation):
        keras.utils.set_random_seed(0)
        return build_encoder(name, width=width, image_size=32, activation=activation)

    default, host, encoder = build(0.25, "default"), build(0.5, "relu6"), build(0.25, "relu6")
    check_pair(host, encoder)
    assert [type(layer) for layer in encoder.layers] == [type(layer) for layer in default.layers]
    for a, b in zip(encoder.get_weights(), default.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)  # beta = 1 in front of activations among them
    x = np.linspace(-20, 20, 401)
    kinds = {}
    for layer in encoder.layers:
        function = layer if isinstance(layer, keras.layers.ReLU) else layer_activation(layer)
        if function is not None:
            y = np.asarray(function(tf.constant(x)))
            gate = function is keras.activations.sigmoid
            expected = 1 / (1 + np.exp(-x)) if gate else np.clip(x, 0, 6)
            np.testing.assert_allclose(y, expected, atol=1e-6)
            kinds[gate] = kinds.get(gate, 0) + 1
    assert kinds[False] >= (7 if name == "alexnet" else 17) and kinds.get(True, 0) in (0, 16, 23)
    features = np.asarray(tf.function(encoder)(digits[0][:120], training=True))
    assert 0.01 <= features.std(axis=0).mean() <= 10
    encoder.save(tmp_path / "encoder.keras")
    loaded = keras.models.load_model(tmp_path / "encoder.keras", safe_mode=True)
    np.testing.assert_allclose(loaded(digits[0][:2]), encoder(digits[0][:2]), rtol=1e-6)


def layer_activation(layer):
    function = getattr(layer, "activation", None)
    return None if function in (None, keras.activations.linear) else function


@pytest.mark.slow
@pytest.mark.parametrize(
    "name, gate", [("mobilenet_v3_small", []), ("efficientnet_b0", ["LOGISTIC"])]
)
def test_relu6_is_part_of_the_convolutions_of_an_int8_file(name, gate, digits):
    from keras_sacl.export import convert_tflite  # its converters take seconds to import
    from keras_sacl.export.contents import tflite_ops

    encoder = build_encoder(name, width=0.25, image_size=32, activation="relu6")
    names, foreign = tflite_ops(convert_tflite(encoder, "int8", digits[0][:8]))
    expected = ["ADD", "CONV_2D", "DEPTHWISE_CONV_2D", *gate, "MEAN", "MUL"]
    assert [n for n in names if n not in ("QUANTIZE", "RESHAPE")] == expected and not foreign


def test_relu6_and_relu_are_no_pair():
    host = build_encoder("resnet20_cifar", width=0.5, image_size=8)
    slim = build_encoder("resnet20_cifar", width=0.25, image_size=8, activation="relu6")
    with pytest.raises(ValueError, match="differs is 'stem_relu'.* max_value is None against 6.0"):
        check_pair(host, slim)
