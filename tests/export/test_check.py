"""python -m keras_sacl.export.check: verdicts, exit codes, and one line for what it refuses."""

import json

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_sacl.data import IMAGENET_MEAN, IMAGENET_STD
from keras_sacl.export import (
    add_metadata,
    convert_onnx,
    convert_tflite,
    footprint,
    with_preprocessing,
)
from keras_sacl.export.check import main
from keras_sacl.export.contents import onnx_precision, tflite_precision
from keras_sacl.finetuning import build_classifier


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Files of a small encoder and its classifier, good and bad."""
    tmp = tmp_path_factory.mktemp("check")
    keras.utils.set_random_seed(0)
    images = keras.Input((8, 8, 3))
    x = keras.layers.Conv2D(16, 3, activation="relu", name="conv")(images)
    encoder = keras.Model(images, keras.layers.GlobalAveragePooling2D(name="pool")(x))
    encoder.save(tmp / "encoder.keras")
    (tmp / "good.tflite").write_bytes(convert_tflite(encoder))
    (tmp / "good.onnx").write_bytes(convert_onnx(encoder))
    pixels = with_preprocessing(encoder, IMAGENET_MEAN, IMAGENET_STD, dtype="float32")
    (tmp / "pixels.tflite").write_bytes(convert_tflite(pixels))
    classifier = build_classifier(encoder, 10)
    rng = np.random.default_rng(0)
    classifier.layers[-1].kernel.assign(rng.normal(size=(16, 10)))
    classifier.save(tmp / "classifier.keras")
    (tmp / "classifier.tflite").write_bytes(convert_tflite(classifier))
    larger = keras.Input((16, 16, 3))
    pooled = keras.layers.GlobalAveragePooling2D()(larger)
    (tmp / "larger.tflite").write_bytes(convert_tflite(keras.Model(larger, pooled)))
    for ending in ("tflite", "onnx"):
        content = (tmp / f"good.{ending}").read_bytes()
        (tmp / f"cut.{ending}").write_bytes(content[: len(content) // 2])
        (tmp / f"noise.{ending}").write_bytes(rng.bytes(3000))
    (tmp / "offsets.tflite").write_bytes(b"\0\0\0\0TFL3" + rng.bytes(3000))
    (tmp / "noise.keras").write_bytes(rng.bytes(3000))
    return tmp


def check(folder, file, *more, against="encoder.keras"):
    settings = ("--images=digits", "--limit=80", f"--output={folder / 'figures.json'}")
    code = main([str(folder / file), f"--against={folder / against}", *settings, *more])
    return code, json.loads((folder / "figures.json").read_text())


@pytest.mark.parametrize("file", ["good.tflite", "good.onnx", "encoder.keras"])
def test_the_encoder_itself_passes(folder, file, capsys):
    code, row = check(folder, file)
    assert code == 0 and row["passed"] and row["precision"] == "float32"
    said = capsys.readouterr().out
    assert said.splitlines()[-1].startswith(f"ok: {folder / file} agrees with")
    assert "normalised" in row["takes"] and row["takes"] in said
    assert row["max_abs_diff"] <= 1e-5 and row["cosine_min"] > 0.99999
    assert row["knn_top1"] == row["knn_top1_keras"] > 0.5
    assert row["peak_memory_bytes"] is None or row["peak_memory_bytes"] > 0
    if file != "encoder.keras":
        latencies = row["latency_ms_by_threads"]
        assert latencies["1"] == row["latency_ms"] and all(ms > 0 for ms in latencies.values())


def test_layers_that_lose_most_are_named(folder, capsys):
    code, row = check(folder, "good.tflite", "--layers=2")
    assert code == 0
    # The convolution with its activation, and the average; 8 bits of a full range are 40 dB.
    assert sorted(row["worst_layers_db"]) == ["conv", "pool"]
    assert all(25 < db < 60 for db in row["worst_layers_db"].values())
    assert "lose most in int8" in capsys.readouterr().out


def test_another_preprocessing_is_named(folder, capsys):
    code, row = check(folder, "pixels.tflite")
    assert code == 3 and not row["passed"]
    assert "it agrees on pixels of 0 to 255: its preprocessing is another" in row["reason"]
    assert capsys.readouterr().out.splitlines()[-1].startswith("FAILED: ")


def test_logits_are_compared_by_top_1(folder):
    """Class names in another order than the logits' move the accuracy, and no figure else."""
    code, row = check(folder, "classifier.tflite", against="classifier.keras")
    assert code == 0 and row["top1"] == row["top1_keras"] and "knn_top1" not in row
    model = keras.saving.load_model(folder / "classifier.keras")
    from keras_sacl.data import load_source, plain_batches

    images, labels = zip(
        *plain_batches(load_source("digits", "test", limit=80), image_size=8, batch_size=80),
        strict=True,
    )
    guessed = np.asarray(model(images[0])).argmax(axis=1)
    assert row["top1"] == pytest.approx(np.mean(guessed == labels[0].numpy()))
    names = "1,2,3,4,5,6,7,8,9,0"
    _, other = check(folder, "classifier.tflite", f"--classes={names}", against="classifier.keras")
    assert other["top1"] == pytest.approx(np.mean((guessed + 1) % 10 == labels[0].numpy()))
    assert other["max_abs_diff"] == row["max_abs_diff"]
    content = (folder / "classifier.tflite").read_bytes()
    (folder / "named.tflite").write_bytes(content)
    add_metadata(folder / "named.tflite", {"name": "digits"}, names.split(","))
    _, named = check(folder, "named.tflite", against="classifier.keras")
    assert named["top1"] == other["top1"]


def test_operations_that_no_phone_has_fail(folder):
    @tf.function(input_signature=[tf.TensorSpec((1, 8, 8, 3), tf.float32)])
    def foreign(x):
        return tf.linalg.det(x[..., :2, :2])

    converter = tf.lite.TFLiteConverter.from_concrete_functions(
        [foreign.get_concrete_function()], foreign
    )
    converter.target_spec.supported_ops = [tf.lite.OpsSet.SELECT_TF_OPS]
    (folder / "flex.tflite").write_bytes(converter.convert())
    code, row = check(folder, "flex.tflite")
    assert code == 3 and "FlexMatrixDeterminant" in row["reason"]


@pytest.mark.parametrize(
    "arguments, message",
    [
        ("TMP/none.tflite", "TMP/none.tflite: is no file"),
        ("TMP/figures", "TMP/figures: must end in one of .tflite, .onnx, .keras"),
        ("TMP/noise.tflite", "TMP/noise.tflite: is no TFLite file"),
        ("TMP/good.onnx.tflite", "TMP/good.onnx.tflite: is no TFLite file"),
        ("TMP/cut.tflite", "TMP/cut.tflite: is a TFLite file that is broken or cut short"),
        ("TMP/offsets.tflite", "TMP/offsets.tflite: "),
        ("TMP/noise.onnx", "TMP/noise.onnx: is no ONNX file"),
        ("TMP/cut.onnx", "TMP/cut.onnx: is no ONNX file"),
        ("TMP/noise.keras", "TMP/noise.keras: cannot be run ("),
        ("TMP/larger.tflite", "the file takes images of 16 px, and the model of --against of 8 px"),
        ("TMP/classifier.tflite", "TMP/classifier.tflite: gives 10 features an image, and the"),
        ("TMP/good.tflite --against=TMP/none.keras", "--against=TMP/none.keras: is no file"),
        ("TMP/good.tflite --against=TMP/good.onnx", "--against=TMP/good.onnx: must be a .keras"),
        ("TMP/good.tflite --against=TMP/noise.keras", "--against=TMP/noise.keras: cannot be loa"),
        ("TMP/good.tflite --images=TMP/none", "`dataset` must be digits, a folder"),
        ("TMP/good.tflite --split=tset", "`split` must be train, test or all"),
        ("TMP/good.tflite --limit=0", "--limit=0: must be at least 1"),
        ("TMP/good.tflite --output=TMP", "--output=TMP: must be a file in a directory"),
        (
            "TMP/classifier.tflite --against=TMP/classifier.keras --classes=a,b",
            "--classes=a,b: must name the 10 logits; names 2",
        ),
    ],
)
def test_bad_input_is_one_line(folder, arguments, message, capsys):
    (folder / "figures").touch()
    (folder / "good.onnx.tflite").write_bytes((folder / "good.onnx").read_bytes())
    file, *more = arguments.replace("TMP", str(folder)).split()
    defaults = [f"--against={folder / 'encoder.keras'}", "--images=digits", "--limit=40"]
    assert main([file, *defaults, *more]) == 2
    captured = capsys.readouterr()
    assert len(captured.err.splitlines()) == 1, captured.err
    assert captured.err.startswith("check: " + message.replace("TMP", str(folder)))


def test_options_that_do_not_exist_are_one_line(capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["a.tflite", "--agianst=b.keras"])
    assert stopped.value.code == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_peak_memory_holds_the_weights(tmp_path):
    """16 MiB of weights are 16 MiB more, whatever the runtime takes itself."""
    images = keras.Input((8, 8, 3))
    wide = keras.layers.Dense(2**22 // 192)(keras.layers.Flatten()(images))
    (tmp_path / "a.onnx").write_bytes(convert_onnx(keras.Model(images, wide)))
    found = footprint.peak_memory(tmp_path / "a.onnx", 8)
    if found is None:
        pytest.skip("needs /proc")
    assert 16 * 2**20 <= found < 100 * 2**20


def test_a_runtime_that_crashes_is_said_so(tmp_path, monkeypatch):
    script = tmp_path / "crash.py"
    script.write_text("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)")
    monkeypatch.setattr(footprint, "__file__", str(script))
    with pytest.raises(ValueError, match="cannot be run: its runtime died of signal 11"):
        footprint.peak_memory("a.tflite", 8)


def test_precision_is_read_from_the_file(folder):
    encoder = keras.saving.load_model(folder / "encoder.keras")
    images = np.zeros((2, 8, 8, 3), "float32")
    for precision in ("float32", "float16", "int8"):
        assert tflite_precision(convert_tflite(encoder, precision, images)) == precision
    assert onnx_precision((folder / "good.onnx").read_bytes()) == "float32"
