"""What a run costs: any method with any objectives, against its traced step."""

import keras
import pytest
import tensorflow as tf

from keras_sacl.config import RunConfig
from keras_sacl.costs import measure, measure_model
from keras_sacl.distillation import OBJECTIVES, Distiller, Widths
from keras_sacl.distillation.teachers import Teacher
from keras_sacl.heads import build_projector
from keras_sacl.stages import costs, distilling
from keras_sacl.stages.build import build_method
from keras_sacl.stages.costs import run_cost
from keras_sacl.stages.report import _costs
from tests.costs.traced import pruned_flops, traced_flops

IMAGES, SIDE, N = 1000, 16, 16
SMALL = {
    "encoder": "resnet20_cifar", "width": 0.25, "image_size": SIDE, "batch_size": N, "epochs": 3,
    "projector": "12-6", "slim_start_epoch": 0, "slim_alone_epochs": 0,
}  # fmt: skip


def teacher_of(side):
    x = images = keras.Input((side, side, 3))
    x = keras.layers.Conv2D(5, 3, 2, "same", use_bias=False)(x)
    encoder = keras.Model(images, keras.layers.GlobalAveragePooling2D()(x), name="tiny")
    return Teacher(encoder, build_projector(5, (7, 6)), "tiny")


TEACHER_FLOPS = 2 * 8 * 8 * 5 * 27
TEACHER_HEAD_FLOPS = 2 * (5 * 7 + 7 * 6)


def config_of(method, *objectives, **settings):
    teacher = {"distill": objectives, "teacher": "here.keras"} if objectives else {}
    return RunConfig(**{**SMALL, "method": method, **teacher, **settings}).validated()


@pytest.mark.long
@pytest.mark.parametrize(
    "config",
    [
        config_of("swav", small_views=2, small_size=8, prototypes=9),
        config_of("moco_v2", "disco:1.0", queue_size=20),
        config_of("xd", "seed:0.5", "crd", cache_teacher=True),
        config_of("sacl_xd"),
        config_of("sacl_xd", projector_dropout=0.5),
        config_of("sacl", "compress_1q", "cc", slim_execution="mask"),
        config_of("distill", "disco", "compress_2q", "rkd", distill_hidden=9),
    ],
    ids=lambda config: "+".join((config.method, *config.distill)),
)
def test_equals_the_operations_of_the_step(config):
    teacher, distiller, extras = teacher_of(SIDE), None, {}
    if config.cache_teacher:
        distiller = Distiller(distilling.objectives(config, IMAGES), teacher_widths=Widths(5, 6))
        extras["teacher"] = tf.zeros((N, 11))
    elif config.distill:
        objectives = distilling.objectives(config, IMAGES)
        distiller = Distiller(objectives, None, teacher.encoder, teacher.projector)
    if config.small_views:
        extras["small_views"] = (tf.zeros((N, 8, 8, 3)),) * config.small_views
    method = build_method(config, IMAGES, distiller)
    cost = run_cost(config, IMAGES, teacher)
    views = tf.zeros((N, SIDE, SIDE, 3)), tf.zeros((N, SIDE, SIDE, 3))
    expected = cost.per_step + pruned_flops(config.method, N, 6, config.sacl_contrast)
    assert traced_flops(method, (*views, extras)) == expected
    assert cost.images == 992 and cost.epochs == 3 and not cost.left_out


@pytest.mark.parametrize("cached", [False, True])
def test_any_method_with_any_objective_has_rows(cached, monkeypatch):
    teacher = teacher_of(SIDE)
    monkeypatch.setattr(costs, "load", lambda config: teacher)
    for method in ("barlow_twins", "xd", "sacl", "sacl_xd", "moco_v2", "swav", "distill"):
        for name in OBJECTIVES:
            inside = name in ("at", "compress_2q")  # refused: they look into one network
            if (inside and method.startswith("sacl")) or (name == "at" and cached):
                continue
            config = config_of(method, name, cache_teacher=cached, small_views=method == "swav")
            rows = dict(_costs(config, {"pretrain": {"images": IMAGES}}))
            assert ("teacher, once in the run" in rows) == (cached or name == "cc"), (method, name)
            assert ("of it: teacher" in rows) == (not cached or name == "crd"), (method, name)
            assert rows["run"].endswith("TFLOPs") and "not counted" not in rows


def test_a_cached_teacher_is_run_once():
    config = config_of("distill", "seed", cache_teacher=True)
    cost = run_cost(config, IMAGES, teacher_of(SIDE))
    assert cost.once == IMAGES * (TEACHER_FLOPS + TEACHER_HEAD_FLOPS)
    assert cost.parts["teacher"] == 0
    assert cost.per_run == 3 * 992 * cost.per_image + cost.once
    live = run_cost(config_of("distill", "seed"), IMAGES, teacher_of(SIDE))
    assert live.per_image - cost.per_image == TEACHER_FLOPS + TEACHER_HEAD_FLOPS
    assert live.once == 0


def test_a_teacher_of_any_size_is_counted_at_that_of_the_run(tmp_path):
    config = config_of("moco_v2", "disco")
    sized = run_cost(config, IMAGES, teacher_of(SIDE))
    assert run_cost(config, IMAGES, teacher_of(None)) == sized
    path = tmp_path / "teacher.keras"
    teacher_of(None).encoder.save(path)
    found = run_cost(config_of("moco_v2", "disco", teacher=str(path)), IMAGES)
    assert found.parts["teacher"] == 2 * TEACHER_FLOPS and not found.left_out


def test_a_teacher_that_cannot_be_had_is_left_out():
    config = config_of("moco_v2", "disco", "compress_2q", teacher="gone.keras")
    rows = dict(_costs(config, {"pretrain": {"images": IMAGES}}))
    assert rows["not counted"].startswith("the teacher: ") and "gone.keras" in rows["not counted"]
    cost, alone = (run_cost(c, IMAGES) for c in (config, config_of("moco_v2")))
    assert cost.parts["teacher"] == 0 and cost.per_image > alone.per_image
    inner = teacher_of(None).encoder
    images = keras.Input((SIDE, SIDE, 3))
    nested = Teacher(keras.Model(images, inner(images), name="nested"), None, "nested")
    assert "Received: model=nested" in run_cost(config, IMAGES, nested).left_out
    with pytest.raises(ValueError, match="`model` must not hold models of images of any size"):
        measure_model(nested.encoder, "nested", SIDE)


def test_widths_have_equal_shares():
    settings = {"width": 0.5, "host_width": 1.0}
    both = run_cost(config_of("sacl", **settings, slim_widths=(0.5, 0.25)), IMAGES)
    wide, narrow = (
        run_cost(config_of("sacl", **{**settings, "width": w}), IMAGES) for w in (0.5, 0.25)
    )
    assert both.per_image == pytest.approx((wide.per_image + narrow.per_image) / 2)
    host = measure("resnet20_cifar", 1.0, SIDE)
    assert both.parts["host"] == 3 * (host.flops + 2 * (host.features * 12 + 12 * 6))


@pytest.mark.parametrize(("method", "alone"), [("sacl", "barlow_twins"), ("sacl_xd", "xd")])
def test_epochs_of_one_network_alone_cost_what_its_own_training_does(method, alone):
    widths = {"width": 0.5, "host_width": 1.0}
    host = run_cost(config_of(alone, width=1.0), IMAGES)
    slimmed = run_cost(config_of(method, **widths), IMAGES)
    config = config_of(method, **widths, slim_start_epoch=1)  # of 3
    later = run_cost(config, IMAGES)
    assert later.per_run == pytest.approx((host.per_run + 2 * slimmed.per_run) / 3)
    assert later.parts["slim"] == pytest.approx(2 / 3 * slimmed.parts["slim"])

    step = build_method(config, IMAGES)
    step.encoder.trains = "host"
    views = tf.zeros((N, SIDE, SIDE, 3)), tf.zeros((N, SIDE, SIDE, 3)), {}
    assert traced_flops(step, views) == host.per_step + pruned_flops(alone, N, 6)

    step.encoder.trains = "slim"
    slim = IMAGES // N * (traced_flops(step, views) - pruned_flops(alone, N, 6))
    ends = run_cost(config_of(method, **widths, slim_start_epoch=1, slim_alone_epochs=1), IMAGES)
    epochs = host.per_epoch, slimmed.per_epoch, slim
    assert ends.per_run == pytest.approx(sum(epochs))
    cut = config_of(method, **widths, slim_start_epoch=1, slim_alone_epochs=1, stop_epoch=2)
    assert run_cost(cut, IMAGES).per_run == pytest.approx(sum(epochs[:2]))
