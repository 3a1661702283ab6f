"""The stages, called from Python: what they record, and what they do without labels."""

import dataclasses
import json
import shutil

import keras
import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from keras_sacl import stages
from keras_sacl.callbacks import read_metrics
from keras_sacl.config import ConfigError, RunConfig
from keras_sacl.evaluation import fitting
from keras_sacl.report.run_report import RunReport
from keras_sacl.report.tables import score_table
from keras_sacl.slimming import SlimmableEncoder
from keras_sacl.stages import build, evaluate, inputs
from keras_sacl.stages.build import (
    build_method,
    build_networks,
    deployed_float32,
    steps_per_execution,
)
from keras_sacl.stages.report import _costs
from keras_sacl.stages.summary import summary
from tests.networks import small_encoder
from tests.stages.small_runs import SMALL, run

WITHOUT_REPORT = ("pretrain", "evaluate", "export")


@pytest.fixture
def photos(tmp_path):
    """A folder of 80 real images without labels."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for i, image in enumerate(load_digits().images[:80]):
        Image.fromarray((image * 15).astype("uint8")).save(folder / f"{i:03d}.png")
    return folder


@pytest.mark.long
@pytest.mark.parametrize("lambd, little", [(5.0, True), (0.005, False)])
def test_a_loss_no_better_than_chance_is_said(tmp_path, lambd, little):
    settings = {**SMALL, "method": "barlow_twins", "epochs": 3, "lambd": lambd}
    config = RunConfig(
        **settings, dataset="digits", run_dir=str(tmp_path / "run"), stages=("pretrain",)
    ).validated()
    _, said = run(config)
    lines = [line for line in said if line.startswith("little was learned: barlow_twins is ")]
    assert len(lines) == little
    assert not lines or "a smaller --lambd (it is 5) or more steps" in lines[0]


@pytest.mark.long
def test_a_folder_without_labels_is_pretrained_and_exported(photos, tmp_path):
    config = RunConfig(
        **SMALL, dataset=str(photos), run_dir=str(tmp_path / "run"), export_formats=("tflite",),
        stages=WITHOUT_REPORT,
    ).validated()  # fmt: skip
    run_dir, said = run(config)
    assert any(line.startswith("no labels: nothing to evaluate") for line in said)
    results = json.loads(run_dir.results_file.read_text())
    assert results["pretrain"]["images"] < 80  # some are held out for export to look at
    evaluate(dataclasses.replace(config, eval_protocols=("knn", "representation")), run_dir)
    found = run_dir.results()["evaluate"]
    assert "effective_rank_untrained" in found and "knn_top1" not in found
    row = results["export"]["encoder.tflite"]
    assert row["passed"] and "knn_top1" not in row and row["max_abs_diff"] <= 1e-4
    assert "encoder.tflite" in summary(results) and "k-NN top-1" not in summary(results)


@pytest.mark.long
def test_evaluation_may_name_labels_of_its_own(photos, tmp_path):
    config = RunConfig(
        **SMALL,
        dataset=str(photos),
        eval_dataset="digits",
        eval_train_split="train[:300]",
        eval_test_split="test[:100]",
        eval_protocols=("all",),
        stages=("pretrain", "evaluate"),
        run_dir=str(tmp_path / "run"),
    ).validated()
    run_dir, _ = run(config)
    found = run_dir.results()["evaluate"]
    assert found["dataset"] == "digits"
    assert (found["num_train"], found["num_test"]) == (300, 100)
    table = summary({"evaluate": found})
    for name in (
        "knn_top1", "nn_top1", "best_nn_top1", "knn_1shot_top1", "knn_1pct_top1", "knn_10pct_top1",
        "linear_top1", "linear_sgd_top1", "linear_disco_top1", "linear_ssl_small_top1",
        "linear_compress_top1", "clusters_top1", "recall_at_8", "instance_discrimination_test",
    ):  # fmt: skip
        assert 0 < found[name] <= 1 and 0 < found[f"{name}_untrained"] <= 1
        assert f"{found[name]:.4f}" in table
    assert found["uniformity"] < 0 and found["effective_rank"] > 1
    protocols = [name for name in found if name.endswith("_protocol")]
    assert len(protocols) == len(fitting("one", views=True, encoder=True))
    assert all(found[name] in table and "-v" in found[name] for name in protocols)


@pytest.mark.long
def test_a_file_is_evaluated_as_the_encoder_it_was_made_from(tmp_path):
    config = RunConfig(
        **SMALL, dataset="digits", train_split="train[:300]", test_split="test[:100]",
        stages=WITHOUT_REPORT,
        run_dir=str(tmp_path / "run"), eval_protocols=("knn", "representation"),
        export_formats=("tflite", "tflite_int8", "onnx"),
    ).validated()  # fmt: skip
    run_dir, _ = run(config)
    expected = run_dir.results()["evaluate"]
    shutil.copy(run_dir.encoder, tmp_path)
    files = [*sorted(run_dir.export.glob("*.*")), tmp_path / "encoder.keras"]
    for file in files:
        alone = dataclasses.replace(
            config, stages=("evaluate",), eval_encoder=str(file), image_size=64,
            run_dir=str(tmp_path / "files"),
        ).validated()  # fmt: skip
        into, _ = run(alone)
    found = into.results()["evaluate_files"]
    assert list(found) == [str(file) for file in files] and len(found) == 4
    for name, scores in found.items():
        near = 0.06 if "int8" in name else 1e-6
        assert scores["knn_top1"] == pytest.approx(expected["knn_top1"], abs=near)
        assert scores["effective_rank"] == pytest.approx(expected["effective_rank"], rel=0.05)
        assert scores["knn_protocol"] == expected["knn_protocol"]
        assert "knn_top1_untrained" not in scores
    table = summary(into.results())
    assert all(str(file) in table for file in files)


@pytest.mark.slow
def test_files_that_take_pixels_get_pixels(tmp_path):
    config = RunConfig(
        **SMALL, dataset="digits", train_split="train[:300]", test_split="test[:100]",
        stages=WITHOUT_REPORT,
        run_dir=str(tmp_path / "run"), export_input="pixels", export_formats=("tflite", "onnx"),
        eval_protocols=("knn",),
    ).validated()  # fmt: skip
    run_dir, _ = run(config)
    expected = run_dir.results()["evaluate"]["knn_top1"]
    for name in ("encoder.tflite", "encoder.onnx"):
        alone = dataclasses.replace(
            config, stages=("evaluate",), eval_encoder=str(run_dir.export / name)
        ).validated()
        run(alone)
        found = run_dir.results()
        scores = found["evaluate_files"][str(run_dir.export / name)]
        assert scores["knn_top1"] == pytest.approx(expected, abs=1e-6)
        assert found["evaluate"]["knn_top1"] == expected  # the run's own stays
        with pytest.raises(ConfigError, match="--eval_protocols=two_views: cannot be measured"):
            inputs.check_inputs(dataclasses.replace(alone, eval_protocols=("two_views",)))


@pytest.mark.long
def test_augmenting_in_the_training_step_is_the_same_run(tmp_path):
    final = []
    for where in ("host", "device"):
        config = RunConfig(
            **SMALL,
            dataset="digits",
            train_split="train[:200]",
            stages=("pretrain",),
            augment_on=where,
            run_dir=str(tmp_path / where),
        ).validated()
        final.append(run(config)[0].results()["pretrain"]["final"])
    assert final[0]["loss"] == pytest.approx(final[1]["loss"], rel=1e-4)
    assert final[0]["embedding_std"] == pytest.approx(final[1]["embedding_std"], rel=1e-4)


def test_labels_that_are_named_must_be_there(photos, tmp_path):
    config = RunConfig(**SMALL, eval_dataset=str(photos), run_dir=str(tmp_path / "run")).validated()
    with pytest.raises(ConfigError, match="--eval_dataset=.*: has no labels"):
        stages.check_inputs(config)


def test_mixed_precision_deploys_float32():
    settings = {**SMALL, "method": "sacl_xd", "mixed_precision": "bfloat16"}
    config = RunConfig(**settings, dataset="digits").validated()
    method = build_method(config, images=1000)
    assert keras.config.dtype_policy().name == "float32"  # the policy is back to what it was
    assert method.encoder.host.layers[1].compute_dtype == "bfloat16"
    deployed = deployed_float32(method.encoder, config)
    assert {layer.compute_dtype for layer in deployed.layers} == {"float32"}
    for a, b in zip(deployed.get_weights(), method.deployed_encoder().get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_without_a_wider_host_sacl_is_what_is_left_of_it():
    config = RunConfig(method="sacl_xd", width=0.5, host_width=0.5).validated()
    assert config.effective_method == "xd" and not config.slims and config.alpha == 0.5
    assert RunConfig(method="sacl_xd").validated().alpha == 0.5
    assert RunConfig(method="sacl", width=1.0).validated().host_width == 1.5
    one = RunConfig(method="sacl", width=0.5, slim_widths=(0.5,)).validated()
    assert type(build_networks(one)[0]) is SlimmableEncoder


def test_the_host_is_alone_for_a_third_of_the_epochs_unless_each_network_contrasts_its_own():
    dense = {
        epochs: RunConfig(method="sacl", epochs=epochs).validated().dense_epochs
        for epochs in (1, 2, 3, 12, 100)
    }
    assert dense == {1: 0, 2: 0, 3: 1, 12: 4, 100: 33}
    assert RunConfig(sacl_contrast="across", epochs=12).validated().dense_epochs == 4
    assert RunConfig(sacl_contrast="own", epochs=12).validated().dense_epochs == 0
    assert RunConfig(method="sacl", slim_start_epoch=0).validated().dense_epochs == 0
    config = RunConfig(method="xd", slim_start_epoch=5).validated()
    assert config.dense_epochs == 0 and list(config.idle()) == ["slim_start_epoch"]


@pytest.mark.parametrize(
    "settings, ends",
    [
        ({}, (6,)),
        ({"epochs": 1}, ()),
        ({"slim_start_epoch": 2}, (2, 6)),
        ({"slim_start_epoch": 10}, (10, 11)),  # both for one epoch at least
        ({"slim_alone_epochs": 0}, ()),
        ({"sacl_contrast": "across"}, (4,)),
        ({"sacl_contrast": "across", "slim_alone_epochs": 3}, (4, 9)),
        ({"method": "sacl", "slim_alone_epochs": 9}, (2, 3)),
        ({"method": "sacl"}, (4,)),
        ({"method": "xd", "slim_alone_epochs": 3}, ()),
        ({"stop_epoch": 6}, ()),
        ({"stop_epoch": 7}, (6,)),
    ],
)
def test_the_slim_network_is_alone_in_the_end_if_each_contrasts_its_own(settings, ends):
    assert RunConfig(**{"epochs": 12, **settings}).validated().phase_ends == ends


@pytest.mark.long
def test_several_steps_per_execution_are_the_same_steps(tmp_path):
    """Not to the last bit: within one execution, operations may run in another order."""
    epochs = []
    for most in (1, 4):
        config = RunConfig(
            **{**SMALL, "epochs": 2},
            dataset="digits",
            train_split="train[:288]",
            steps_per_execution=most,
            stages=("pretrain",),
            knn_every=0,
            run_dir=str(tmp_path / str(most)),
        ).validated()
        run_dir, _ = run(config)
        epochs.append(read_metrics(run_dir.metrics))
    assert [line["step"] for line in epochs[1]] == [9, 18]
    for one, several in zip(*epochs, strict=True):
        assert several["loss"] == pytest.approx(one["loss"], rel=1e-3)
        assert several["embedding_std"] == pytest.approx(one["embedding_std"], rel=1e-3)


@pytest.mark.parametrize(("most", "expected"), [(1, 1), (4, 3), (9, 9), (1000, 45)])
def test_an_execution_never_runs_into_the_next_epoch(most, expected):
    config = RunConfig(steps_per_execution=most).validated()
    assert steps_per_execution(config, steps_per_epoch=45) == expected
    selecting = dataclasses.replace(config, slim_selection="magnitude", slim_refresh_steps=10)
    assert 10 % steps_per_execution(selecting, steps_per_epoch=45) == 0


def test_cached_pixels_change_neither_the_bank_nor_the_queries(photos, tmp_path):
    """Files are evaluated as files: only the views are made of what is cached."""
    config = RunConfig(
        **SMALL,
        dataset=str(photos),
        cache_images=True,
        stages=WITHOUT_REPORT,
        run_dir=str(tmp_path / "run"),
    ).validated()
    assert inputs.augmented_images(config).decoded
    assert not inputs.training_images(config).decoded
    assert not any(source.decoded for source in inputs.labelled_images(config))


def test_an_encoder_file_with_code_is_refused(tmp_path):
    inputs = keras.Input((8, 8, 3))
    pooled = keras.layers.GlobalAveragePooling2D()(inputs)
    model = keras.Model(inputs, keras.layers.Lambda(lambda x: x * 2)(pooled))
    run_dir = stages.RunDir(tmp_path)
    model.save(run_dir.encoder)
    with pytest.raises(ConfigError, match="encoder.keras that cannot be loaded .*ambda"):
        run_dir.load_encoder()


def test_every_encoder_of_a_run_has_its_activation(monkeypatch):
    given = []

    def recorded(name, *, activation, **settings):
        given.append((settings["width"], activation))
        return small_encoder(name, activation=activation, **settings)

    monkeypatch.setattr(build, "build_encoder", recorded)
    config = RunConfig(
        **{**SMALL, "method": "sacl"}, slim_widths=(0.5, 0.25), activation="relu6",
        mixed_precision="bfloat16",
    ).validated()  # fmt: skip
    deployed_float32(build_networks(config)[0], config)
    assert given == [(width, "relu6") for width in (0.25, 0.5, 0.75, 0.5)]


@pytest.mark.long
def test_three_widths_of_one_run_are_three_encoders(tmp_path, monkeypatch):
    monkeypatch.setattr(build, "build_encoder", small_encoder)
    config = RunConfig(
        **{**SMALL, "method": "sacl", "batch_size": 64}, slim_widths=(0.5, 0.375, 0.25),
        dataset="digits", train_split="train[:200]", test_split="test[:100]",
        export_formats=("tflite",), eval_protocols=("knn",), knn_every=0, views_every=0,
        stages=WITHOUT_REPORT, run_dir=str(tmp_path / "run"),
    ).validated()  # fmt: skip
    assert (config.width, config.host_width, config.widths) == (0.5, 0.75, (0.5, 0.375, 0.25))
    assert RunConfig.from_flag_lines("\n".join(config.flag_lines())) == config
    run_dir, said = run(config)
    assert any("widths 0.5, 0.375, 0.25 (one of them each step)" in line for line in said)
    results = run_dir.results()
    assert list(results["evaluate_widths"]) == ["0.375", "0.25"]
    parameters = list(results["pretrain"]["parameters_by_width"].values())
    files = run_dir.encoders(config.widths)
    assert [path.name for path in files.values()] == [
        "encoder.keras", "encoder_w0.375.keras", "encoder_w0.25.keras"
    ]  # fmt: skip
    host = None
    for path, count in zip(files.values(), parameters, strict=True):
        encoder = run_dir.load_encoder(path)
        assert encoder.count_params() == count
        kernels = [v for v in encoder.trainable_variables if len(v.shape) == 4]
        for wider, kernel in zip(host or kernels, kernels, strict=True):
            block = np.asarray(wider)[tuple(slice(n) for n in kernel.shape)]
            np.testing.assert_array_equal(np.asarray(kernel), block)
        host = kernels
    assert parameters == sorted(parameters, reverse=True)
    assert list(results["export"]) == [
        "encoder.tflite", "w0.375/encoder.tflite", "w0.25/encoder.tflite"
    ]  # fmt: skip
    for name, row in results["export"].items():
        assert row["passed"] and (run_dir.export / name).is_file()
    page = score_table([RunReport("run", [], [], results)])
    costs = dict(_costs(config, results))
    for width, found in results["evaluate_widths"].items():
        assert 0 < found["knn_top1"] <= 1 and 0 < found["knn_top1_untrained"] <= 1
        assert f"width {width}" in summary(results) and f"run, width {width}: trained" in page
        assert f"of width {width}" in costs
