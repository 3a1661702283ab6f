"""That no operation's result depends on which of its neighbours was done first."""

import collections

import keras
import numpy as np
import pytest
import tensorflow as tf
from tensorflow.python.eager import context  # the graph as it runs has no public way to it

from keras_sacl.config import RunConfig
from keras_sacl.stages.build import build_method, compile_method


def sums_by_timing(graphs):
    """(Sums of three and more, those of them whose order of addition is a matter of timing).

    AddN writes its sum over the first of its inputs that nothing else holds, and begins with
    that one. a + b is b + a, so that the order is the same wherever one of the first two is free.
    """
    sums, bad = 0, []
    for graph in graphs:
        readers = collections.Counter(name for node in graph.node for name in node.input)
        for node in graph.node:
            inputs = [name for name in node.input if not name.startswith("^")]
            if node.op == "AddN" and len(inputs) > 2:
                sums += 1
                if min(readers[name] for name in inputs[:2]) > 1:
                    bad.append((node.name, inputs))
    return sums, bad


def graphs_of(run):
    context.enable_run_metadata()
    try:
        run()
        return context.export_run_metadata().partition_graphs
    finally:
        context.disable_run_metadata()


@pytest.mark.long
@pytest.mark.parametrize(
    "method, encoder, precision",
    [
        ("sacl_xd", "resnet20_cifar", "float32"),
        ("sacl_xd", "resnet20_cifar", "float64"),
        pytest.param("sacl", "mobilenet_v3_large", "float32", marks=pytest.mark.slow),
        ("sacl_xd across", "resnet20_cifar", "float32"),
        ("sacl_xd in two widths", "resnet20_cifar", "float32"),
        ("sacl_xd by the host", "resnet20_cifar", "float32"),
        ("sacl_xd by the slim", "resnet20_cifar", "float32"),
        ("xd", "mobilenet_v1", "float32"),
        ("moco_v2", "mobilenet_v1", "float32"),
        pytest.param("barlow_twins", "efficientnet_b0", "float32", marks=pytest.mark.slow),
    ],
)
def test_no_sum_of_a_step_depends_on_timing(method, encoder, precision):
    slims = {"width": 0.25, "host_width": 0.5} if method.startswith("sacl") else {"width": 0.25}
    if encoder == "efficientnet_b0":
        slims = {}
    if method == "moco_v2":
        slims["batch_norm_groups"] = 2
    if method.endswith(" in two widths"):
        method = method.removesuffix(" in two widths")
        slims = {"slim_widths": (0.5, 0.25)}
    if method.endswith(" across"):
        method = method.removesuffix(" across")
        slims["sacl_contrast"] = "across"
    method, _, alone = method.partition(" by the ")
    config = RunConfig(
        method=method, encoder=encoder, image_size=32, batch_size=4, projector="8-8-8",
        mixed_precision=precision, optimizer="lars", **slims,
    ).validated()  # fmt: skip
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy(precision)
    try:
        model = build_method(config, images=1000)
        compile_method(model, config, 10, 1.0)
    finally:
        keras.config.set_dtype_policy(policy)
    if alone:
        model.encoder.trains = alone
    view = np.random.default_rng(0).normal(size=(2, 4, 32, 32, 3)).astype(precision)
    data = iter(tf.data.Dataset.from_tensors((view[0], view[1])))
    model.make_train_function()
    sums, bad = sums_by_timing(graphs_of(lambda: model.train_function(data)))
    # One pass with a gradient, and one sum for all groups of its BatchNorm: nothing to add up.
    assert sums == 0 if method == "moco_v2" else sums > 3
    assert not bad


def test_a_sum_by_timing_is_seen():
    @tf.function
    def shared(x):
        parts = [tf.reduce_sum(x + i, 0) for i in range(3)]
        return tf.add_n(parts), tf.sin(parts[0]), tf.cos(parts[1])

    sums, bad = sums_by_timing(graphs_of(lambda: shared(tf.ones((4, 3)))))
    assert sums == len(bad) == 1
