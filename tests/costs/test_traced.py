"""FLOPs of a step against the operations in the traced steps of methods and objectives."""

import keras
import pytest
import tensorflow as tf

from keras_sacl import methods
from keras_sacl.costs import METHODS, Network, Options, measure, training_cost
from keras_sacl.costs.flops import forward_flops
from keras_sacl.distillation import OBJECTIVES, Distiller, Widths
from keras_sacl.encoders import build_encoder
from keras_sacl.heads import build_projector
from keras_sacl.slimming import SlimmableEncoder
from tests.costs.traced import pruned_flops, traced_flops

SIDE, N = 16, 8
QUEUE = {"queue_size": 20}
SETTINGS = {
    "disco": {"hidden": 5}, "seed": {"hidden": 5, **QUEUE}, "compress_1q": QUEUE,
    "compress_2q": QUEUE, "cc": {"clusters": 7}, "crd": {"width": 5, **QUEUE},
}  # fmt: skip


def tiny_encoder(width, side):
    """Padded, so that TensorFlow's formulae for gradients of strides hold."""
    x = images = keras.Input((side, side, 3))
    for i, strides in enumerate((2, 1)):
        x = keras.layers.Conv2D(8 * width, 3, strides, "same", use_bias=False, name=f"conv{i}")(x)
        x = keras.layers.BatchNormalization(name=f"norm{i}")(x)
        x = keras.layers.ReLU(name=f"relu{i}")(x)
    return keras.Model(images, keras.layers.GlobalAveragePooling2D(name="pool")(x), name="tiny")


def network(model, **kwargs):
    side, features = model.input_shape[1], model.output_shape[-1]
    return Network(model.name, 1.0, side, features, forward_flops(model), **kwargs)


def check(
    name, objectives=(), head=(12, 6), teacher_head=None, cached=False, dropout=0.0, **settings
):
    """Counts a step of small networks, and traces it."""
    objectives = {o: OBJECTIVES[o](**SETTINGS.get(o, {})) for o in objectives}
    slim, host, teacher = (tiny_encoder(width, SIDE) for width in (1, 2, 4))
    encoder = SlimmableEncoder(host, slim) if METHODS[name].needs("host") else slim
    projector = head and build_projector(encoder.output_shape[-1], head, dropout=dropout)
    widths = Widths(32, (32, *(teacher_head or ()))[-1])
    if cached:
        distiller = Distiller(objectives, teacher_widths=widths)
    elif objectives:
        teacher_projector = teacher_head and build_projector(32, teacher_head)
        distiller = Distiller(objectives, teacher=teacher, teacher_projector=teacher_projector)
    else:
        distiller = None
    groups = {"batch_norm_groups": 2} if name == "moco_v2" else {}
    method = methods.METHODS[name](encoder, projector, distiller=distiller, **settings, **groups)

    extras, options = {}, dict(settings)
    if name == "swav":
        extras["small_views"] = (tf.zeros((N, 8, 8, 3)),) * 2
        options |= {"small_views": 2, "small_flops": forward_flops(tiny_encoder(1, 8))}
    if cached:
        extras["teacher"] = tf.zeros((N, sum(widths)))
    random = {"deterministic": not dropout}
    cost = training_cost(
        name, network(slim, **random), host=network(host, **random),
        teacher=network(teacher), objectives=objectives, batch_size=N, epochs=1,
        projector=head or (), teacher_projector=teacher_head, cached_teacher=cached,
        options=Options(**options),
    )  # fmt: skip
    views = (tf.zeros((N, SIDE, SIDE, 3)), tf.zeros((N, SIDE, SIDE, 3)))
    never_run = 0
    if head and "xd_form" not in settings:
        never_run = pruned_flops(name, N, head[-1], options.get("sacl_contrast"))
    assert traced_flops(method, (*views, extras)) == cost.per_step + never_run
    return cost


@pytest.mark.long
@pytest.mark.parametrize(
    "name, settings",
    [
        ("barlow_twins", {"head": (24, 16)}),  # N < D
        ("barlow_twins", {}),  # N > D
        ("xd", {}),
        ("xd", {"xd_form": "neg_log"}),
        ("xd", {"dropout": 0.5}),  # frozen passes of their own
        ("sacl", {}),
        ("sacl_xd", {"head": (24, 16), "sacl_contrast": "across"}),
        ("sacl_xd", {"head": (24, 16), "sacl_contrast": "own"}),
        ("sacl_xd", {"dropout": 0.5, "sacl_contrast": "across"}),
        ("sacl_xd", {"dropout": 0.5, "sacl_contrast": "own"}),
        ("moco_v2", QUEUE),
        ("swav", {"prototypes": 9}),
    ],
)
def test_methods(name, settings):
    assert check(name, **settings).method == name


@pytest.mark.parametrize("name", ["sacl_xd", "swav"])
def test_an_encoder_of_the_library(name):
    slim, host = (build_encoder("resnet20_cifar", width=w, image_size=32) for w in (0.5, 1.0))
    encoder = SlimmableEncoder(host, slim) if name == "sacl_xd" else slim
    settings = {"sacl_contrast": "own"} if name == "sacl_xd" else {}
    projector = build_projector(encoder.output_shape[-1], (12, 6))
    method = methods.METHODS[name](encoder, projector, **settings)
    # Not the encoder that is built for 16 px, which has fewer strides.
    small = measure("resnet20_cifar", 0.5, 32, view_size=16).flops
    cost = training_cost(
        name, measure("resnet20_cifar", 0.5, 32), host=measure("resnet20_cifar", 1.0, 32),
        batch_size=N, projector=(12, 6),
        options=Options(small_views=1, small_flops=small, **settings),
    )  # fmt: skip
    views = (tf.zeros((N, 32, 32, 3)), tf.zeros((N, 32, 32, 3)))
    extras = {"small_views": (tf.zeros((N, 16, 16, 3)),)} if name == "swav" else {}
    assert traced_flops(method, (*views, extras)) == (
        cost.per_step + pruned_flops(name, N, 6, **settings)
    )


@pytest.mark.parametrize(
    "name, teacher_head",
    [*((name, None) for name in OBJECTIVES), ("disco", (10, 6)), ("seed", (10, 6))],
)
def test_objectives_alone(name, teacher_head):
    cost = check("distill", [name], head=None, teacher_head=teacher_head)
    assert cost.method == f"distill+{name}" and cost.parts["teacher"]


@pytest.mark.parametrize(
    "name, objectives, settings",
    [
        # By the projector of the method, or by a head of its own.
        ("moco_v2", ("disco",), {"teacher_head": (10, 6), **QUEUE}),
        ("moco_v2", ("disco",), QUEUE),
        ("moco_v2", ("compress_2q", "rkd"), QUEUE),
        ("swav", ("disco",), {"teacher_head": (10, 6), "prototypes": 9}),
        # The student of a slimmed method is its slim network, which sees view B anyway.
        ("sacl", ("disco",), {"teacher_head": (10, 6)}),
        ("sacl", ("seed",), {"teacher_head": (10, 6)}),
        ("sacl_xd", ("crd",), {"sacl_contrast": "across"}),
        ("sacl_xd", ("crd",), {"sacl_contrast": "own"}),
        ("barlow_twins", ("disco", "at", "reg"), {}),
        ("xd", ("disco",), {"teacher_head": (10, 6), "cached": True}),
        ("distill", ("crd",), {"head": None, "cached": True}),
    ],
)
def test_compositions(name, objectives, settings):
    cost = check(name, objectives, **settings)
    assert bool(cost.once) == settings.get("cached", False)
