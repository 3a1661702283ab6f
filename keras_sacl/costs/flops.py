"""How much arithmetic a network is."""

import math

import keras


def forward_flops(model):
    """Floating-point operations of one image's forward pass, a multiply-add counted as two.

    Convolutions and dense layers only, as papers count: what normalisations, activations and
    poolings add is a few percent.

    Args:
        model: A built functional `keras.Model`; models inside it are counted too.

    Returns:
        An int.
    """
    total = 0
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            total += forward_flops(layer)
        elif isinstance(layer, (keras.layers.Conv2D, keras.layers.DepthwiseConv2D)):
            _, height, width, _ = layer.output.shape
            # Every weight of the kernel is used once at every position of the output map.
            total += 2 * math.prod(layer.kernel.shape) * height * width
        elif isinstance(layer, keras.layers.Dense):
            positions = math.prod(layer.output.shape[1:-1])
            total += 2 * math.prod(layer.kernel.shape) * positions
    return total
