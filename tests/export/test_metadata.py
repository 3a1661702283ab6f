"""Model cards and class names inside the files, which run as they did."""

import zipfile

import keras
import numpy as np
import pytest

from keras_sacl.data import IMAGENET_MEAN, IMAGENET_STD
from keras_sacl.export import (
    EXPORT_FORMATS,
    add_metadata,
    convert_tflite,
    export_encoder,
    open_encoder,
    read_metadata,
)
from keras_sacl.export.contents import tflite_precision
from keras_sacl.finetuning import build_classifier

NAMES = [f"ziffer {n} – ö" for n in range(10)]
CARD = {"name": "a small one", "scores": {"knn_top1": {"value": 0.5, "protocol": "knn-v1"}}}


@pytest.fixture(scope="module")
def classifier():
    keras.utils.set_random_seed(0)
    images = keras.Input((8, 8, 3))
    x = keras.layers.Conv2D(16, 3, activation="relu")(images)
    model = build_classifier(
        keras.Model(images, keras.layers.GlobalAveragePooling2D()(x)), classes=10
    )
    model.layers[-1].kernel.assign(np.random.default_rng(0).normal(size=(16, 10)))
    return model


def test_every_file_says_what_it_is(classifier, digit_images, tmp_path):
    images, labels = digit_images
    pixels = (255 * images[:100, ::4, ::4]).round().astype("uint8")
    rows = export_encoder(
        classifier, tmp_path, mean=IMAGENET_MEAN, std=IMAGENET_STD, calibration=pixels,
        bank=None, queries=(pixels, labels[:100]), outputs="logits", onnx_layout="nchw",
        card=CARD, labels=NAMES, say=lambda line: None,
    )  # fmt: skip
    assert [row["reason"] for row in rows.values()] == [None] * len(EXPORT_FORMATS)
    assert all(name.startswith("classifier") for name in rows)
    for name, row in rows.items():
        card, names = read_metadata(tmp_path / name)
        if name == "classifier.keras":
            assert card is None and names is None
            continue
        assert names == NAMES
        assert {key: card[key] for key in CARD} == CARD
        assert card["output"] == {"name": "logits", "count": 10}
        given = card["input"]
        assert (given["size"], given["mean"]) == (8, list(IMAGENET_MEAN))
        assert given["layout"] == ("nchw" if name.endswith(".onnx") else "nhwc")
        inside = name == "classifier_uint8.tflite"
        assert given["normalised_inside"] is inside
        assert given["name"] == ("pixels" if inside else "images")
        assert row["top1"] == pytest.approx(row["top1_keras"], abs=0.02)


def test_a_tflite_file_with_an_archive_is_still_the_file(classifier, tmp_path):
    content = convert_tflite(classifier)
    path = tmp_path / "a.tflite"
    path.write_bytes(content)
    assert read_metadata(path) == (None, None)
    x = np.random.default_rng(0).normal(size=(3, 8, 8, 3)).astype("float32")
    before = open_encoder(path)(x)
    add_metadata(path, CARD, NAMES)
    assert path.read_bytes().startswith(content)
    np.testing.assert_array_equal(open_encoder(path)(x), before)
    assert tflite_precision(path.read_bytes()) == "float32"
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        assert sorted(archive.namelist()) == ["labels.txt", "model_card.json"]
    again = tmp_path / "b.tflite"
    again.write_bytes(content)
    add_metadata(again, CARD, NAMES)
    assert again.read_bytes() == path.read_bytes()  # nothing of the clock


def test_what_cannot_hold_a_card_is_named(tmp_path):
    with pytest.raises(ValueError, match="`path` must be a .tflite or .onnx file"):
        add_metadata(tmp_path / "a.keras", CARD)
    with pytest.raises(ValueError, match="`labels` must be of one line each. Received: 'a.nb'"):
        add_metadata(tmp_path / "a.tflite", CARD, ["a\nb"])
