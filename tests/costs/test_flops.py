"""FLOPs against the numbers that the papers print."""

import keras
import pytest

from keras_sacl.costs.flops import forward_flops
from keras_sacl.encoders import build_encoder

# Multiply-adds at 224 px in millions, less those of the classifier. "MobileNets" (2017), table 6;
# "MobileNetV2" (2018), table 4; "Searching for MobileNetV3" (2019), table 3; "EfficientNet"
# (2019), table 2; ResNets and AlexNet: torchvision's table; transformers: timm's.
MULTIPLY_ADDS = {
    "mobilenet_v1": 569 - 1.0,
    "mobilenet_v2": 300 - 1.3,
    "mobilenet_v3_large": 219 - 2.5,
    "efficientnet_b0": 390 - 1.3,
    "resnet18": 1814 - 0.5,
    "resnet34": 3664 - 0.5,
    "resnet50": 4089 - 2.0,
    "resnet101": 7801 - 2.0,
    "resnet152": 11514 - 2.0,
    "alexnet": 714 - 4.1,
    "deit_tiny": 1258 - 0.2,
    "vit_tiny": 1258 - 0.2,
}
DEEPEST = ("resnet101", "resnet152")


@pytest.mark.long
@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=pytest.mark.slow if n in DEEPEST else ()) for n in MULTIPLY_ADDS],
)
def test_encoders_are_as_published(name):
    found = forward_flops(build_encoder(name)) / 2e6
    assert found == pytest.approx(MULTIPLY_ADDS[name], rel=0.03)


def test_by_hand():
    inputs = keras.Input((8, 8, 3))
    x = keras.layers.Conv2D(5, 3, strides=2, padding="same")(inputs)  # 4 x 4 x 5
    x = keras.layers.DepthwiseConv2D(3, padding="valid")(x)  # 2 x 2 x 5
    inner = keras.Sequential([keras.Input((20,)), keras.layers.Dense(7)])
    model = keras.Model(inputs, inner(keras.layers.Flatten()(x)))
    expected = 16 * 5 * (9 * 3) + 4 * 5 * 9 + 20 * 7
    assert forward_flops(model) == 2 * expected


def test_attention_by_hand():
    """Two heads, of 3 channels for queries and keys, 5 for values; 4 places look at 7."""
    queries, values = keras.Input((4, 6)), keras.Input((7, 8))
    attention = keras.layers.MultiHeadAttention(2, key_dim=3, value_dim=5)
    across = keras.Model([queries, values], attention(queries, values))
    projections = 4 * 6 * (2 * 3) + 7 * 8 * (2 * 3) + 7 * 8 * (2 * 5) + 4 * (2 * 5) * 6
    assert forward_flops(across) == 2 * (projections + 2 * 4 * 7 * (3 + 5))
    itself = keras.Model(queries, keras.layers.MultiHeadAttention(2, key_dim=3)(queries, queries))
    assert forward_flops(itself) == 2 * (4 * (4 * 6 * 6) + 2 * 4 * 4 * (3 + 3))
