"""Files that take photos of any size: cropped and resized inside, as the training's images are."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from sklearn.datasets import load_sample_images

from keras_sacl.data import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    PHOTO_SHARE,
    ImageSource,
    original_images,
    raw_batches,
)
from keras_sacl.encoders import build_encoder
from keras_sacl.export import export_encoder, open_encoder, read_metadata
from keras_sacl.export.check import main as check
from keras_sacl.export.contents import tflite_precision
from keras_sacl.export.preprocessing import PhotoCrop
from tests.truncated import truncated

SIDE = 32
SIZES = [(427, 640), (640, 427), (300, 301), (64, 200), (SIDE, SIDE), (20, 31), (97, 97)]


@pytest.fixture(scope="module")
def source():
    """Parts of two real photos, of many sizes."""
    rng = np.random.default_rng(0)
    encoded, labels = [], []
    for i in range(42):
        label = i % 2
        photo = load_sample_images().images[label]
        height, width = (min(a, b) for a, b in zip(SIZES[i % 7], photo.shape, strict=False))
        top = rng.integers(photo.shape[0] - height + 1)
        left = rng.integers(photo.shape[1] - width + 1)
        part = photo[top : top + height, left : left + width]
        encoded.append(tf.io.encode_png(part).numpy())
        labels.append(label)
    return ImageSource(encoded, np.array(labels), ["china", "flower"])


@pytest.fixture(scope="module")
def exported(source, tmp_path_factory):
    keras.utils.set_random_seed(0)
    encoder = truncated(
        build_encoder("mobilenet_v1", width=0.25, image_size=SIDE), "conv_pw_4_relu"
    )
    folder = tmp_path_factory.mktemp("photos")
    encoder.save(folder / "encoder.keras")
    pixels, labels = next(iter(raw_batches(source, image_size=SIDE, batch_size=len(source))))
    pair = (pixels.numpy(), labels.numpy())
    photos = original_images(source)
    rows = export_encoder(
        encoder, folder / "export", formats=("keras", "tflite", "tflite_int8", "onnx"),
        mean=IMAGENET_MEAN, std=IMAGENET_STD, inputs="photos", calibration=pair[0], bank=pair,
        queries=pair, photos=[photos] * 3, say=lambda line: None,
    )  # fmt: skip
    return folder, rows


def test_the_crop_is_that_of_the_training_images(source):
    expected = next(iter(raw_batches(source, image_size=SIDE, batch_size=len(source))))[0]
    expected = expected.numpy().astype("float32")
    crop = PhotoCrop(SIDE, PHOTO_SHARE)
    found = np.stack([crop(photo[None])[0] for photo in original_images(source)])
    # Where the sum lies at a half, its last bit decides between two neighbours.
    assert np.abs(found - expected).max() <= 1
    assert np.mean(found != expected) < 1e-3


def test_files_agree_with_keras_on_photos_of_many_sizes(exported):
    _, rows = exported
    assert {name: row["reason"] for name, row in rows.items()} == dict.fromkeys(rows)
    assert rows["encoder.tflite"]["max_abs_diff"] < 2e-3
    assert rows["encoder_int8.tflite"]["cosine"] > 0.99
    for row in rows.values():
        assert row["knn_top1"] == pytest.approx(row["knn_top1_keras"], abs=0.05)


def test_the_network_behind_the_crop_is_of_integers(exported):
    folder, rows = exported
    path = folder / "export" / "encoder_int8.tflite"
    assert tflite_precision(path.read_bytes()) == "int8"
    assert "BATCH_MATMUL" in rows[path.name]["ops"]


@pytest.mark.parametrize("name", ["encoder.tflite", "encoder_int8.tflite", "encoder.onnx"])
def test_contract_and_refusal(exported, name):
    path = exported[0] / "export" / name
    given = read_metadata(path)[0]["input"]
    assert given["name"] == "photos" and given["any_size"]
    assert given["crop_share"] == PHOTO_SHARE and given["size"] == SIDE
    assert open_encoder(path, photos=True).any_size
    with pytest.raises(ValueError, match="takes photos of any"):
        open_encoder(path)


def test_the_command_checks_them_on_photos(exported, source, tmp_path, capsys):
    for i, (encoded, label) in enumerate(zip(source.images, source.labels, strict=True)):
        folder = tmp_path / str(label)
        folder.mkdir(exist_ok=True)
        (folder / f"{i:02d}.png").write_bytes(encoded)
    folder, _ = exported
    for name in ("encoder.tflite", "encoder.onnx"):
        arguments = [str(folder / "export" / name), f"--against={folder / 'encoder.keras'}",
                     f"--images={tmp_path}", "--split=train"]  # fmt: skip
        assert check(arguments) == 0
        assert "photos of any size" in capsys.readouterr().out
