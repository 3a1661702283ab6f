"""The oracle of what a step costs: the operations in its traced graph."""

import tensorflow as tf
from tensorflow.python.framework import ops
from tensorflow.python.profiler.internal import flops_registry  # noqa: F401  (fills the registry)

from keras_sacl.costs.products import correlation_flops

_PRODUCTS = {"MatMul", "BatchMatMulV2"} | {
    f"{kind}{gradient}"
    for kind in ("Conv2D", "DepthwiseConv2dNative")
    for gradient in ("", "BackpropInput", "BackpropFilter")
}


def traced_flops(method, data):
    """What TensorFlow's own registry says of the convolutions and products in a training step.

    Args:
        method: A `TwoViewMethod`.
        data: A batch, as `fit` takes it.
    """
    method.compile(optimizer="sgd", jit_compile=False)
    method.optimizer.build(method.trainable_variables)
    graph = tf.function(method.train_step).get_concrete_function(data).graph
    return sum(
        ops.get_stats_for_node_def(graph, op.node_def, "flops").value
        for op in graph.get_operations()
        if op.type in _PRODUCTS
    )


def pruned_flops(name, n, d, sacl_contrast=None):
    """FLOPs in the traced graph of a method that never run.

    XD's two pairs, and those of host and slim network by themselves: the gradient of the frozen
    side, which nothing reads.
    """
    product = correlation_flops(n, d) - correlation_flops(n, d, frozen=True)
    pairs = 6 if (name, sacl_contrast) == ("sacl_xd", "own") else 2
    return pairs * product if "xd" in name else 0
