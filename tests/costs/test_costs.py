"""FLOPs of training: against the operations in the traced steps, and by hand."""

import keras
import pytest
import tensorflow as tf
from tensorflow.python.framework import ops
from tensorflow.python.profiler.internal import flops_registry  # noqa: F401  (fills the registry)

from keras_sacl import costs
from keras_sacl.costs import Network, compare, measure, training_cost
from keras_sacl.costs.flops import forward_flops
from keras_sacl.costs.passes import METHODS, correlation_flops, projector_flops, similarity_flops
from keras_sacl.encoders import build_encoder
from keras_sacl.heads import build_projector
from keras_sacl.methods import SACL, SACLXD, XD, BarlowTwins
from keras_sacl.slimming import SlimmableEncoder

CLASSES = {"barlow_twins": BarlowTwins, "xd": XD, "sacl": SACL, "sacl_xd": SACLXD}
PRODUCTS = {"MatMul", "BatchMatMulV2"} | {
    f"{kind}{gradient}"
    for kind in ("Conv2D", "DepthwiseConv2dNative")
    for gradient in ("", "BackpropInput", "BackpropFilter")
}
# Round numbers, to be multiplied by hand.
SLIM = Network("small", 1.0, 224, features=10, flops=100)
HOST = Network("small", 2.0, 224, features=20, flops=300)
TEACHER = Network("large", 1.0, 224, features=40, flops=1000)
NETWORKS = {"host": HOST, "teacher": TEACHER}


def traced_flops(method, shape):
    """What TensorFlow's own registry says of the convolutions and products in a training step."""
    method.compile(optimizer="sgd", jit_compile=False)
    method.optimizer.build(method.trainable_variables)
    views = (tf.zeros(shape), tf.zeros(shape))
    graph = tf.function(method.train_step).get_concrete_function(views).graph
    return sum(
        ops.get_stats_for_node_def(graph, op.node_def, "flops").value
        for op in graph.get_operations()
        if op.type in PRODUCTS
    )


@pytest.fixture(scope="module")
def encoders():
    """{"slim": ..., "host": ...} of 32 px."""
    return {
        "slim": build_encoder("resnet20_cifar", width=0.5, image_size=32),
        "host": build_encoder("resnet20_cifar", width=1.0, image_size=32),
    }


@pytest.mark.parametrize(
    "name, n, widths",  # with N < D, and N > D
    [
        ("barlow_twins", 4, (24, 16)),
        ("barlow_twins", 8, (6,)),
        ("xd", 8, (6,)),
        ("sacl", 8, (6,)),
        ("sacl_xd", 4, (24, 16)),
    ],
)
def test_equals_the_operations_of_the_step(name, n, widths, encoders):
    slimmed = METHODS[name].needs("host")
    encoder = SlimmableEncoder(encoders["host"], encoders["slim"]) if slimmed else encoders["slim"]
    method = CLASSES[name](encoder, build_projector(encoder.output_shape[-1], widths))
    slim, host = (
        Network("resnet20_cifar", w, 32, encoders[k].output_shape[-1], forward_flops(encoders[k]))
        for w, k in ((0.5, "slim"), (1.0, "host"))
    )
    cost = training_cost(name, slim, host=host, batch_size=n, projector=widths)
    # XD's two pairs: the traced graph also holds the product for the gradient of the frozen side.
    # Nothing reads it, so that it is pruned and never runs.
    product = correlation_flops(n, widths[-1]) - correlation_flops(n, widths[-1], frozen=True)
    unused = 2 * product if "xd" in name else 0
    assert traced_flops(method, (n, 32, 32, 3)) == cost.per_step + unused


def test_passes_by_hand():
    expected = {
        "barlow_twins": 2 * 300,
        "xd": 2 * 300,
        "sacl": 900 + 300,
        "sacl_xd": 900 + 300 + 300 + 100,
        "moco_v2": 300 + 100,
        "swav": 2 * 300 + 6 * 300 * 9 / 49,
        "seed": 300 + 1000,
        "disco": 2 * 300 + 100 + 2 * 1000,
        "compress": 300 + 1000,
        "compress_2q": 300 + 100 + 1000,
    }
    found = {m: training_cost(m, SLIM, encoders_only=True, **NETWORKS).per_image for m in METHODS}
    assert found == pytest.approx(expected)


def test_parts_by_hand():
    parts = training_cost("sacl_xd", SLIM, projector=(5, 7), batch_size=4, **NETWORKS).parts
    assert parts["host"] == 4 * (300 + 2 * (20 * 5 + 5 * 7))
    assert parts["slim"] == 4 * (100 + 2 * (20 * 5 + 5 * 7))  # padded to the host's features
    assert parts["momentum"] == parts["teacher"] == 0
    # Four products of 2 x 4 x 4 x 7 for the trained pair, three for each frozen one.
    assert parts["loss"] == (4 + 3 + 3) * 2 * 4 * 4 * 7 / 4
    parts = training_cost("seed", SLIM, **NETWORKS).parts
    assert parts["slim"] == 3 * (100 + 2 * (10 * 10 + 10 * 128))
    assert parts["teacher"] == 1000 + 2 * (40 * 40 + 40 * 128)
    assert parts["loss"] == 3 * 2 * 128 * 65536
    parts = training_cost("compress", SLIM, **NETWORKS).parts
    assert parts["slim"] == 3 * (100 + 2 * 10 * 40) and parts["teacher"] == 1000
    assert parts["loss"] == 3 * 2 * 40 * 128000
    parts = training_cost("compress_2q", SLIM, **NETWORKS).parts
    assert parts["loss"] == 2 * (2 * 10 + 40) * 128000


def test_a_run_is_its_images():
    settings = {"images": 1000, "batch_size": 50, "encoders_only": True, **NETWORKS}
    cost = training_cost("seed", SLIM, epochs=3, teacher_epochs=5, **settings)
    assert cost.per_step == 50 * 1300
    assert cost.per_epoch == 1000 * 1300
    assert cost.per_run == 3000 * 1300
    assert cost.teacher_pretraining == 5000 * (3000 + 1000)  # MoCo-v2 of the teacher
    assert cost.per_run_with_teacher == cost.per_run + cost.teacher_pretraining
    assert set(cost.parts) == set(costs.PARTS)
    cached = training_cost("compress", SLIM, epochs=3, cached_teacher=True, **settings)
    assert cached.per_image == 300 and cached.per_run == 3000 * 300 + 1000 * 1000
    assert training_cost("xd", SLIM, **settings).per_run_with_teacher == 100 * 1000 * 600


def test_random_layers_make_xd_run_its_frozen_passes():
    noisy = Network("noisy", 1.0, 224, features=10, flops=100, deterministic=False)
    assert training_cost("xd", noisy, encoders_only=True).per_image == 2 * 300 + 2 * 100
    assert training_cost("barlow_twins", noisy, encoders_only=True).per_image == 2 * 300


def test_the_smaller_matrix_is_taken():
    for n, d in ((3, 5), (5, 3)):
        assert correlation_flops(n, d) == (4 * 2 * 9 * 5 if n < d else 3 * 2 * 5 * 9)
        assert correlation_flops(n, d, frozen=True) < correlation_flops(n, d)
    assert similarity_flops(3, 5, 7) == 210 and similarity_flops(3, 5, 7, products=3) == 630


def test_projector_and_measure_equal_the_layers():
    assert projector_flops(10, (16, 12, 8)) == forward_flops(build_projector(10, (16, 12, 8)))
    assert projector_flops(10, ()) == 0
    found = measure("resnet20_cifar", 0.5, 32)
    assert found is measure("resnet20_cifar", 0.5, 32)
    model = build_encoder("resnet20_cifar", width=0.5, image_size=32)
    assert (found.flops, found.features) == (forward_flops(model), model.output_shape[-1])
    assert found.macs == found.flops / 2 and found.deterministic


def test_small_crops_cost_their_share_of_the_pixels():
    def convolutions(size):
        x = inputs = keras.Input((size, size, 3))
        for _ in range(5):
            x = keras.layers.Conv2D(2, 3, strides=2, padding="same")(x)
        return forward_flops(keras.Model(inputs, x))

    share = next(p.area for p in METHODS["swav"].passes if p.area < 1)
    assert convolutions(96) == pytest.approx(share * convolutions(224))


def test_the_claim_from_published_numbers():
    # MobileNet-V3-Large has 219 M multiply-adds, ResNet-50 4.1 G. XD: 2 x 3 passes, 100 epochs;
    # SEED: 3 of the student and 1 of the teacher, 200; MoCo-v2 of the teacher: 4 an epoch.
    slim = Network("mobilenet_v3_large", 1.0, 224, 960, flops=2 * 219)
    teacher = Network("resnet50", 1.0, 224, 2048, flops=2 * 4100)
    found = compare("xd", "seed", slim, teacher=teacher, encoders_only=True)
    own = 6 * 219 * 100
    for epochs, about in ((0, 7), (200, 32), (400, 57), (800, 107)):
        by_hand = ((3 * 219 + 4100) * 200 + 4 * 4100 * epochs) / own
        assert found.ratio(epochs) == pytest.approx(by_hand)
        assert found.ratio(epochs) == pytest.approx(about, abs=0.5)
    needed = found.teacher_epochs_for(64)
    assert found.ratio(needed) == pytest.approx(64) and 400 < needed < 500
    longer = found.epochs_for(64, 800)
    again = compare("xd", "seed", slim, teacher=teacher, epochs=longer, encoders_only=True)
    assert again.ratio(800) == pytest.approx(64)


@pytest.mark.parametrize(
    "name, change, message",
    [
        ("sead", {}, "`method` must be one of .*; did you mean seed.*Received: method='sead'"),
        ("sacl", {"host": None}, "`host` must be a Network for sacl. Received: host=None"),
        ("disco", {"teacher": None}, "`teacher` must be a Network for disco"),
        ("sacl", {"host": SLIM, "slim": HOST}, "`host` must be at least as wide"),
        ("seed", {"teacher": Network("r", 1.0, 96, 4, 9)}, "`teacher` must see images of 224 px"),
        ("seed", {"cached_teacher": True}, "`cached_teacher` must be False for seed"),
        ("xd", {"batch_size": 1}, "`batch_size` must be at least 2. Received: batch_size=1"),
        ("xd", {"images": 0}, "`images` must be at least 1"),
        ("xd", {"epochs": float("nan")}, "`epochs` must be at least 1"),
        ("seed", {"teacher_epochs": -1}, "`teacher_epochs` must be at least 0"),
    ],
)
def test_errors(name, change, message):
    with pytest.raises(ValueError, match=message):
        training_cost(name, **{"slim": SLIM, **NETWORKS, **change})


def test_a_comparison_needs_a_teacher():
    with pytest.raises(ValueError, match="`rival` must be one of seed, disco.*rival='moco_v2'"):
        compare("xd", "moco_v2", SLIM, teacher=TEACHER)
