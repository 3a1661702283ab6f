"""The encoders by kind, and which of them the fast tests leave to the slow ones."""

import pytest

from keras_sacl.encoders import ENCODERS

TRANSFORMERS = ("deit_tiny", "vit_tiny")
CONVOLUTIONAL = [name for name in ENCODERS if name not in TRANSFORMERS]


def slow(names, slow_ones):
    return [pytest.param(n, marks=pytest.mark.slow if n in slow_ones else ()) for n in names]


# Deeper ones of a kind that is tested anyway: EfficientNet-B1 takes half a minute.
DEEPEST = ("resnet101", "resnet152")
DEEPER = (*DEEPEST, "efficientnet_b1", "mobilenet_v3_large", "resnet50", "vit_tiny")
ALL, MOST = slow(ENCODERS, DEEPEST), slow(ENCODERS, DEEPER)
