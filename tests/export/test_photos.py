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
from keras_sacl.export import (
    Reference,
    check_file,
    export_encoder,
    open_encoder,
    read_metadata,
)
from keras_sacl.export.check import main as check
from keras_sacl.export.contents import tflite_precision
from keras_sacl.export.preprocessing import PhotoCrop
from tests.networks import truncated

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


@pytest.mark.long
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


@pytest.fixture(scope="module")
def photo_folder(source, tmp_path_factory):
    """The source as a folder with a directory for each class."""
    home = tmp_path_factory.mktemp("folder")
    for i, (encoded, label) in enumerate(zip(source.images, source.labels, strict=True)):
        (home / str(label)).mkdir(exist_ok=True)
        (home / str(label) / f"{i:02d}.png").write_bytes(encoded)
    return home


def checked(folder, file, photo_folder):
    arguments = [str(file), f"--against={folder / 'encoder.keras'}"]
    return check([*arguments, f"--images={photo_folder}", "--split=train"])


def test_the_command_checks_them_on_photos(exported, photo_folder, capsys):
    folder, _ = exported
    for name in ("encoder.tflite", "encoder.onnx"):
        assert checked(folder, folder / "export" / name, photo_folder) == 0
        said = capsys.readouterr().out
        assert "photos of any size" in said and "a photo of 1920 x 1080" in said


def test_another_crop_and_floats_for_integers_are_found(exported, source, photo_folder, capsys):
    folder, _ = exported
    encoder = keras.saving.load_model(folder / "encoder.keras")
    pixels, labels = next(iter(raw_batches(source, image_size=SIDE, batch_size=len(source))))
    pair = (pixels.numpy(), labels.numpy())
    normalisation = {"mean": IMAGENET_MEAN, "std": IMAGENET_STD}
    photos = [original_images(source)] * 3
    export_encoder(
        encoder, folder / "whole", formats=("tflite",), inputs="photos", share=1.0, bank=pair,
        calibration=pair[0], queries=pair, photos=photos, say=lambda line: None, **normalisation,
    )  # fmt: skip
    file = folder / "whole" / "encoder.tflite"
    assert checked(folder, file, photo_folder) == 3
    reason = capsys.readouterr().out.splitlines()[-1]
    assert (
        "it crops to 1 of a photo's shorter side, and these images are cropped to 0.875" in reason
    )
    reference = Reference(encoder, bank=pair, queries=pair, photos=photos[:2], **normalisation)
    row = check_file(file, reference, precision="int8")
    assert row["reason"] == "has a network of float32, not of integers"


@pytest.mark.parametrize("share", [0.0, 1.5])
def test_impossible_shares_are_named(share):
    with pytest.raises(ValueError, match=f"`share` must be above 0 .*Received: share={share}"):
        PhotoCrop(SIDE, share)
