"""The export stage after fine-tuning: encoder and classifier, with what they are inside."""

import dataclasses

import keras
import numpy as np
import pytest
from sklearn.datasets import load_digits

from keras_sacl import stages
from keras_sacl.config import RunConfig
from keras_sacl.data import load_source, plain_batches
from keras_sacl.export import read_metadata
from keras_sacl.export.check import main as check
from keras_sacl.report.tables import export_table
from keras_sacl.stages.summary import summary
from tests.networks import small_encoder


@pytest.fixture(scope="module")
def monkeypatch_module():
    with pytest.MonkeyPatch.context() as patch:
        yield patch


@pytest.fixture(scope="module")
def exported(tmp_path_factory, monkeypatch_module):
    monkeypatch_module.setattr("keras_sacl.stages.build.build_encoder", small_encoder)
    config = RunConfig(
        method="xd", encoder="resnet20_cifar", width=0.5, image_size=8, augmentation="digits",
        projector="16-16", batch_size=64, epochs=1, tensorboard=False, verbose="quiet",
        dataset="digits", train_split="train[:500]", eval_protocols=("knn",), finetune_steps=40,
        finetune_learning_rate=0.05, finetune_baseline=False, knn_every=0, views_every=0,
        stages=("pretrain", "evaluate", "finetune", "export"),
        export_formats=("tflite", "tflite_int8", "onnx"),
        run_dir=str(tmp_path_factory.mktemp("export") / "run"),
    ).validated()  # fmt: skip
    run_dir = stages.RunDir(config.run_dir)
    run_dir.start(config)
    for name in config.stages:
        stages.RUNNERS[name](config, run_dir, say=lambda line: None)
    return config, run_dir


@pytest.mark.long
def test_the_classifier_is_exported_beside_the_encoder(exported):
    config, run_dir = exported
    rows = run_dir.results()["export"]
    names = [f"{stem}{end}" for stem in ("encoder", "classifier")
             for end in (".tflite", "_int8.tflite", ".onnx")]  # fmt: skip
    assert list(rows) == names
    assert [row["reason"] for row in rows.values()] == [None] * 6
    model = keras.saving.load_model(run_dir.classifier)
    test = load_source("digits", "test")
    images, labels = next(iter(plain_batches(test, image_size=8, batch_size=len(test))))
    expected = np.mean(np.asarray(model(images, training=False)).argmax(axis=1) == labels.numpy())
    for name in names[3:]:
        near = 0.02 if "int8" in name else 1e-6
        assert rows[name]["top1_keras"] == pytest.approx(expected)
        assert rows[name]["top1"] == pytest.approx(expected, abs=near)
        assert "knn_top1" not in rows[name]
    table = summary(run_dir.results())
    assert "top-1" in table.splitlines()[-7] and f"{expected:.4f}" in table
    assert "top-1 in Keras" in export_table(
        [type("Run", (), {"name": "run", "results": run_dir.results()})]
    )


def test_files_hold_scores_and_classes(exported):
    _, run_dir = exported
    results = run_dir.results()
    for ending in (".tflite", "_int8.tflite", ".onnx"):
        card, labels = read_metadata(run_dir.export / f"encoder{ending}")
        assert labels is None and card["name"] == "resnet20_cifar, width 0.5"
        found = results["evaluate"]
        assert card["scores"]["knn_top1"] == {
            "value": found["knn_top1"], "protocol": found["knn_protocol"]
        }  # fmt: skip
        assert not [name for name in card["scores"] if "untrained" in name or "dim" in name]
        card, labels = read_metadata(run_dir.export / f"classifier{ending}")
        assert labels == [str(name) for name in load_digits().target_names]
        tuned = results["finetune"][-1]
        assert card["scores"] == {"top1": {"value": tuned["top1"], "protocol": tuned["protocol"]}}


def test_the_command_agrees_with_the_stage(exported):
    _, run_dir = exported
    for stem in ("encoder", "classifier"):
        file, against = run_dir.export / f"{stem}.tflite", run_dir.path / f"{stem}.keras"
        assert check([str(file), f"--against={against}", "--images=digits", "--limit=60"]) == 0


@pytest.mark.long
def test_classes_of_other_data_are_neither_named_nor_scored(exported, tmp_path):
    """The classifier's logits are of digits; these images are of two other classes."""
    from PIL import Image

    config, run_dir = exported
    for i, image in enumerate(load_digits().images[:40]):
        folder = tmp_path / f"{i % 2}"
        folder.mkdir(exist_ok=True)
        Image.fromarray((image * 15).astype("uint8")).save(folder / f"{i:03d}.png")
    other = dataclasses.replace(
        config, eval_dataset=str(tmp_path), eval_train_split="train", stages=("export",),
        export_formats=("tflite",),
    ).validated()  # fmt: skip
    before = run_dir.results_file.read_text()
    try:
        row = stages.export(other, run_dir, say=lambda line: None)["classifier.tflite"]
        card, labels = read_metadata(run_dir.export / "classifier.tflite")
    finally:
        run_dir.results_file.write_text(before)
    assert row["passed"] and "top1" not in row
    encoder_card, _ = read_metadata(run_dir.export / "encoder.tflite")
    assert labels is None and card["scores"] == {} and card["evaluated_on"] is None
    assert encoder_card["evaluated_on"] == "digits"  # its scores are of the evaluation then
