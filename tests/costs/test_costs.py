"""FLOPs of training, by hand."""

import dataclasses

import keras
import pytest

from keras_sacl import costs
from keras_sacl.costs import (
    PUBLISHED,
    Network,
    Options,
    added_work,
    compare,
    measure,
    training_cost,
)
from keras_sacl.costs.flops import forward_flops
from keras_sacl.costs.passes import SMALL_AREA
from keras_sacl.costs.products import correlation_flops, projector_flops, similarity_flops
from keras_sacl.distillation import AT, CC, SEED, CompRess1Q, DisCo, Objective, Widths
from keras_sacl.encoders import build_encoder
from keras_sacl.heads import build_projector

# Round numbers, to be multiplied by hand.
SLIM = Network("small", 1.0, 224, features=10, flops=100)
HOST = Network("small", 2.0, 224, features=20, flops=300)
TEACHER = Network("large", 1.0, 224, features=40, flops=1000)
NETWORKS = {"host": HOST, "teacher": TEACHER}


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
    found = {m: training_cost(m, SLIM, encoders_only=True, **NETWORKS).per_image for m in PUBLISHED}
    assert found == pytest.approx(expected)


def test_parts_by_hand():
    parts = training_cost("sacl_xd", SLIM, projector=(5, 7), batch_size=4, **NETWORKS).parts
    assert parts["host"] == 4 * (300 + 2 * (20 * 5 + 5 * 7))
    assert parts["slim"] == 4 * (100 + 2 * (20 * 5 + 5 * 7))  # padded to the host's features
    assert parts["momentum"] == parts["teacher"] == 0
    # Four products of 2 x 4 x 4 x 7 for the trained pair, three for each frozen one.
    assert parts["loss"] == (4 + 3 + 3) * 2 * 4 * 4 * 7 / 4
    own = Options(sacl_contrast="own")
    settings = {"projector": (5, 7), "batch_size": 4, "options": own, **NETWORKS}
    parts = training_cost("sacl_xd", SLIM, **settings).parts
    assert parts["host"] == 6 * (300 + 2 * (20 * 5 + 5 * 7))
    assert parts["slim"] == 6 * (100 + 2 * (20 * 5 + 5 * 7))
    assert parts["loss"] == (2 * (4 + 3 + 3) + 3 + 3) * 2 * 4 * 4 * 7 / 4
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


def test_a_paper_is_a_method_and_its_objectives():
    heads = {"projector": (2048, 128), "teacher_projector": (40, 128)}
    found = training_cost("moco_v2", SLIM, objectives={"disco": DisCo()}, **heads, **NETWORKS)
    disco = training_cost("disco", SLIM, teacher_epochs=0, **NETWORKS)
    assert dataclasses.replace(found, method="disco") == disco
    found = training_cost(
        "distill",
        SLIM,
        objectives={"1q": CompRess1Q()},
        epochs=130,
        cached_teacher=True,
        **NETWORKS,
    )
    cached = training_cost("compress", SLIM, cached_teacher=True, teacher_epochs=0, **NETWORKS)
    assert dataclasses.replace(found, method="compress") == cached


def test_a_student_of_its_own_passes_by_hand():
    """Each view that a method has not encoded is one more pass with gradient of the student."""
    found = {
        (method, name): training_cost(
            method, SLIM, objectives={name: make()}, encoders_only=True, epochs=1, **NETWORKS
        ).parts["slim"]
        for method in ("barlow_twins", "xd", "sacl", "sacl_xd", "moco_v2", "swav", "distill")
        for name, make in (("seed", SEED), ("disco", DisCo))
    }
    small = 6 * 300 * 9 / 49
    assert found == pytest.approx({
        ("barlow_twins", "seed"): 600, ("barlow_twins", "disco"): 600,
        ("xd", "seed"): 600, ("xd", "disco"): 600,
        ("sacl", "seed"): 600, ("sacl", "disco"): 600,  # view B is there, A comes first
        ("sacl_xd", "seed"): 700, ("sacl_xd", "disco"): 700,
        ("moco_v2", "seed"): 300, ("moco_v2", "disco"): 600,
        ("swav", "seed"): 600 + small, ("swav", "disco"): 600 + small,
        ("distill", "seed"): 300, ("distill", "disco"): 600,
    })  # fmt: skip


def test_what_the_teacher_sees_once():
    settings = {"images": 300_000, "epochs": 2, "encoders_only": True, **NETWORKS}
    clusters = {"cc": CC()}
    live = training_cost("distill", SLIM, objectives=clusters, **settings)
    assert live.parts["teacher"] == 1000 and live.once == 200_000 * 1000
    cached = training_cost("distill", SLIM, objectives=clusters, cached_teacher=True, **settings)
    assert cached.parts["teacher"] == 0 and cached.once == 300_000 * 1000
    assert cached.per_run == 2 * 300_000 * 300 + cached.once
    few = training_cost("distill", SLIM, objectives=clusters, **{**settings, "images": 100})
    assert few.once == 100 * 1000


def test_an_objective_of_ones_own():
    class Mine(Objective):
        views = 2

    added_work.register(Mine, lambda objective, n, student, teacher: costs.objectives.Work(loss=n))
    assert added_work(Mine(), 5, Widths(1, 1), Widths(1, 1)).loss == 5
    cost = training_cost("moco_v2", SLIM, objectives={"mine": Mine()}, **NETWORKS)
    alone = training_cost("moco_v2", SLIM)
    assert cost.parts["loss"] == alone.parts["loss"] + 2
    assert cost.parts["slim"] == alone.parts["slim"] + 300 and cost.parts["teacher"] == 2000


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

    assert convolutions(96) == pytest.approx(SMALL_AREA * convolutions(224))
    given, shared = (
        training_cost("swav", SLIM, encoders_only=True, options=Options(small_flops=small))
        for small in (SMALL_AREA * SLIM.flops, None)
    )
    assert given == shared


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


@pytest.mark.parametrize(
    "change, message",
    [
        ({}, "`objectives` must hold at least one for distill. Received: objectives=None"),
        ({"objectives": {"cc": CC()}, "teacher": None}, "`teacher` must be a Network for distill"),
        ({"objectives": {"cc": CC()}, "epochs": None}, "`epochs` must be at least 1.*epochs=None"),
        (
            {"objectives": {"at": AT()}, "cached_teacher": True},
            r"`cached_teacher` must be False with objectives of maps.*objectives=\['at'\]",
        ),
        ({"objectives": {"own": Objective()}}, "`objectives` must be of this library, or reg"),
    ],
)
def test_errors_of_distillation(change, message):
    with pytest.raises(ValueError, match=message):
        training_cost("distill", SLIM, **{"epochs": 1, **NETWORKS, **change})


@pytest.mark.parametrize(
    "options, message",
    [
        ({"queue_size": 0}, "`queue_size` must be at least 1. Received: queue_size=0"),
        ({"prototypes": 0}, "`prototypes` must be at least 1"),
        ({"small_views": -1}, "`small_views` must be at least 0"),
        ({"sacl_contrast": "x"}, "`sacl_contrast` must be one of .*across.*contrast='x'"),
        ({"xd_form": "log"}, "`xd_form` must be one of .*neg_log.*Received: xd_form='log'"),
    ],
)
def test_errors_of_options(options, message):
    with pytest.raises(ValueError, match=message):
        Options(**options)


def test_a_comparison_needs_a_teacher():
    with pytest.raises(ValueError, match="`rival` must be one of seed, disco.*rival='moco_v2'"):
        compare("xd", "moco_v2", SLIM, teacher=TEACHER)
