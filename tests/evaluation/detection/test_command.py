"""Detection transfer: its data by name, and the command."""

import json
import re
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_sacl.evaluation import detection
from keras_sacl.evaluation.detection import __main__ as command
from keras_sacl.evaluation.detection.data import load_detection
from tests.evaluation.detection.shapes import shapes

# TensorFlow's, of eager functions beside tf.data.
pytestmark = pytest.mark.filterwarnings("ignore:Even though the `tf.config")


def test_tfds_boxes_are_loaded(prepared):
    train = load_detection("sacl_shapes", training=True, data_dir=prepared)
    test = load_detection("sacl_shapes", training=False, data_dir=prepared)
    assert (len(train), len(test)) == (12, 8)
    assert len(load_detection("sacl_shapes", "train[:5]", training=True, data_dir=prepared)) == 5
    assert test.class_names == ["rectangle", "ellipse", "unicorn"]
    made = shapes(8, seed=len("test"))
    by_pixels = {tf.io.decode_png(e).numpy().tobytes(): i for i, e in enumerate(made.images)}
    for encoded, boxes, labels, difficult in zip(
        test.images, test.boxes, test.labels, test.difficult, strict=True
    ):
        i = by_pixels[tf.io.decode_png(encoded).numpy().tobytes()]
        np.testing.assert_allclose(boxes, made.boxes[i], atol=1e-6)
        np.testing.assert_array_equal(labels, made.labels[i])
        np.testing.assert_array_equal(difficult, np.arange(len(labels)) > 0)
    assert test.num_objects == 8


def call(monkeypatch, folder, *flags):
    own = ["--encoder=" + str(folder / "encoder.keras"), "--dataset=sacl_shapes",
           f"--data_dir={folder}", "--image_size=64", "--head_width=8", "--steps=1",
           "--batch_size=2"]  # fmt: skip
    monkeypatch.setattr(sys, "argv", ["detection", *own, *flags])
    try:
        return command.main()
    except SystemExit as ended:
        return ended.code


def test_the_command_prints_and_writes_the_scores(eager, monkeypatch, capsys, prepared, tmp_path):
    output = tmp_path / "scores.json"
    flags = ["--baseline", "--freeze_backbone", "--test_split=test[:3]", f"--output={output}"]
    assert call(monkeypatch, prepared, *flags) == 0
    printed, complaints = capsys.readouterr()
    report = json.loads(output.read_text())
    assert report["protocol"] == detection.DETECTION_PROTOCOL
    assert (report["num_train"], report["num_test"], report["settings"]["steps"]) == (12, 3, 1)
    lines = printed.splitlines()
    heading = next(line for line in lines if "trained 11-point" in line)
    assert re.split("  +", heading.strip()) == [
        "trained 11-point", "trained area", "untrained 11-point", "untrained area"
    ]  # fmt: skip
    mean = next(line for line in lines if line.startswith("mean")).split()
    expected = [
        report[k][f] for k in ("trained", "untrained") for f in ("ap50_11point", "ap50_area")
    ]
    assert mean[1:] == [f"{value:.4f}" for value in expected]
    assert next(line for line in lines if line.startswith("unicorn")).split()[1:] == ["-"] * 4
    assert lines[-1] == (
        f"on sacl_shapes: 12 training and 3 test images; {detection.DETECTION_PROTOCOL}"
    )
    assert complaints == ""


@pytest.mark.parametrize(
    "flags, texts",
    [
        (["--encoder=nowhere.keras"], ["`encoder` must be", "encoder=nowhere.keras"]),
        (["--encoder=broken.keras"], ["`encoder` must be", "broken.keras", "cannot be loaded"]),
        (["--encoder=code.keras"], ["`encoder` must be", "code.keras", "cannot be loaded"]),
        (["--dataset=nonsense"], ["`dataset` must be", "voc/2007", "dataset=nonsense"]),
        (["--dataset=voc/2007"], ["`dataset` must be", "does not exist", "`data_dir`"]),
        (["--dataset=voc/1999"], ["`dataset` must be", "dataset=voc/1999"]),
        (["--train_split=trian"], ["`train_split` must be", "train_split=trian", "validation"]),
        (["--test_split=train"], ["`test_split` must not be trained on", "share train"]),
        (["--test_split=test[:0]"], ["`test_split` must", "test_split=test[:0]"]),
        (["--image_size=100"], ["`image_size` must be a multiple of 32", "image_size=100"]),
        (["--head_width=0"], ["`head_width` must be", "head_width=0"]),
        (["--batch_size=64"], ["`batch_size` must be from 1 to", "12", "batch_size=64"]),
        (["--batch_size=0"], ["`batch_size` must be", "batch_size=0"]),
        (["--steps=0"], ["`steps` must be", "steps=0"]),
        (["--steps=many"], ["--steps", "many"]),
        (["--learning_rate=0"], ["`learning_rate` must be", "learning_rate=0"]),
        (["--learning_rate=nan"], ["`learning_rate` must be", "learning_rate=nan"]),
        (["--seed=-1"], ["`seed` must be", "seed=-1"]),
        (["--output=nowhere/scores.json"], ["`output` must be", "output=nowhere/scores.json"]),
        (["--stepps=3"], ["--stepps"]),
    ],
)
def test_bad_input_is_one_line(monkeypatch, capsys, prepared, flags, texts):
    if not (prepared / "code.keras").exists():
        (prepared / "broken.keras").write_bytes(b"PK nonsense")
        code = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Lambda(lambda x: x + 1)])
        code.save(prepared / "code.keras")
    monkeypatch.chdir(prepared)
    assert call(monkeypatch, prepared, *flags) == 2
    complaint = capsys.readouterr().err
    assert complaint.startswith("detection: ") and complaint.count("\n") == 1
    for text in texts:
        assert text in complaint


def test_cifar10_has_no_boxes(monkeypatch, capsys, prepared, tfds_dir):
    assert call(monkeypatch, prepared, "--dataset=cifar10", f"--data_dir={tfds_dir}") == 2
    assert "boxes and class labels" in capsys.readouterr().err
