"""The settings: names that stand in two places, since one of them is read without TensorFlow."""

import dataclasses

import pytest

from keras_sacl.config import RunConfig, distilling, method_fields, training_fields
from keras_sacl.distillation import OBJECTIVES
from keras_sacl.methods import METHODS
from keras_sacl.methods.moco_v2 import KEY_BATCH_NORMS
from keras_sacl.methods.sacl import CONTRASTS
from keras_sacl.methods.xd import XD_FORMS, XD_PAIRS
from keras_sacl.optim import OPTIMIZERS
from keras_sacl.slimming.encoder import EXECUTIONS, SELECTIONS


def test_names_are_those_of_the_packages_below():
    fields = {field.name: field.metadata for field in dataclasses.fields(RunConfig)}
    assert set(method_fields.METHOD_NAMES) == set(METHODS)
    assert set(training_fields.OPTIMIZER_NAMES) == set(OPTIMIZERS)
    assert set(distilling.OBJECTIVE_NAMES) == set(OBJECTIVES)
    for name, choices in (
        ("key_batch_norm", KEY_BATCH_NORMS),
        ("xd_pairs", XD_PAIRS),
        ("xd_form", XD_FORMS),
        ("sacl_contrast", CONTRASTS),
        ("slim_execution", EXECUTIONS),
        ("slim_selection", SELECTIONS),
    ):
        assert set(fields[name]["choices"]) == set(choices)
    assert all(name in fields["distill"]["help"] for name in OBJECTIVES)


def test_a_default_is_within_its_own_limits():
    RunConfig().validated()


def test_the_scale_of_a_loss_of_a_few_nats_is_one():
    for method, scale in (("barlow_twins", 0.1), ("moco_v2", 1.0), ("swav", 1.0)):
        assert RunConfig(method=method, optimizer="sgd").validated().loss_scale == scale


@pytest.mark.parametrize(
    "settings, lambd",
    [
        ({"method": "xd", "projector": "64-1024"}, 0.03),
        ({"method": "sacl_xd"}, 0.015),  # the projector's default has 2,048
        ({"method": "sacl_xd", "sacl_contrast": "across", "projector": "256"}, 0.12),
        # Contrasts of two views alone, or nearly: those of Barlow Twins.
        (
            {"method": "sacl_xd", "sacl_contrast": "across", "xd_pairs": "same_encoder"},
            0.005,
        ),
        ({"method": "sacl_xd", "sacl_contrast": "across", "xd_form": "neg_log"}, 0.005),
        ({"method": "sacl", "projector": "256"}, 0.005),
        ({"method": "barlow_twins", "projector": "256"}, 0.005),
        ({"method": "xd", "projector": "256", "lambd": 0.0}, 0.0),
        ({"method": "moco_v2"}, None),
    ],
)
def test_lambd_goes_by_the_method_and_with_xd_by_the_projector(settings, lambd):
    found = RunConfig(**settings).validated()
    assert found.lambd == pytest.approx(lambd) and "lambd" not in found.idle()


def test_widths_are_floats_however_they_are_given():
    config = RunConfig(method="sacl", width=1, host_width=2).validated()
    assert (str(config.width), str(config.host_width)) == ("1.0", "2.0")


def test_settings_without_effect_are_named():
    assert RunConfig(method="xd").validated().idle() == {}
    found = RunConfig(method="xd", temperature=0.5, prototypes=9, distill_hidden=64).validated()
    other = "with --method=xd"
    expected = {"temperature": other, "prototypes": other, "distill_hidden": "without --distill"}
    assert found.idle() == expected
    unslimmed = RunConfig(method="sacl_xd", width=1, host_width=1, slim_execution="mask")
    reason = "with --host_width equal to --width"
    assert unslimmed.validated().idle() == {"slim_execution": reason}
    distill = RunConfig(method="distill", distill=("reg",), teacher="x", projector="8-8")
    assert distill.validated().idle() == {"projector": "with --method=distill"}
    assert RunConfig(method="swav", small_views=2, image_size=224).validated().small_size == 96


def test_what_a_run_and_its_resumption_may_differ_in():
    one = RunConfig(method="moco_v2", replicas=2, batch_size=64).validated()
    assert one.differences(dataclasses.replace(one, replicas=4, run_dir="x")) == []
    assert one.differences(dataclasses.replace(one, temperature=0.5)) == ["temperature"]
    assert one.differences(dataclasses.replace(one, alpha=0.9, xd_form="neg_log")) == []
    slimmed = RunConfig(method="sacl_xd").validated()
    assert slimmed.differences(dataclasses.replace(slimmed, alpha=0.9)) == ["alpha"]
    assert "alpha" in slimmed.differences(RunConfig(method="xd", alpha=0.9).validated())
    across = dataclasses.replace(slimmed, sacl_contrast="across")
    assert slimmed.differences(across) == ["sacl_contrast"]
    shuffled = dataclasses.replace(one, key_batch_norm="shuffle")
    assert shuffled.differences(dataclasses.replace(shuffled, replicas=4)) == ["replicas"]
