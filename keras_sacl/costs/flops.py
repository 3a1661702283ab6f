"""How much arithmetic a network is."""

import math

import keras


def forward_flops(model):
    """Floating-point operations of one image's forward pass, a multiply-add counted as two.

    Convolutions, dense layers and attention only, as papers count: what normalisations,
    activations and poolings add is a few percent.

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
        elif isinstance(layer, keras.layers.MultiHeadAttention):
            total += 2 * _attention(layer)
    return total


def _attention(layer):
    """Multiply-adds of an attention layer: its four projections, Q K^T and A V."""
    sequences = layer.input if isinstance(layer.input, list) else [layer.input]
    queries, keys = (math.prod(x.shape[1:-1]) for x in (sequences[0], sequences[-1]))
    query, key, value, output = (
        math.prod(dense.kernel.shape)
        for dense in (layer.query_dense, layer.key_dense, layer.value_dense, layer.output_dense)
    )
    products = queries * keys * layer.num_heads * (layer.key_dim + layer.value_dim)
    return queries * (query + output) + keys * (key + value) + products
