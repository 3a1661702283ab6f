"""A small classifier with real numbers in every place, and its files."""

import functools
import tempfile
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from sklearn.datasets import load_sample_image

from keras_sacl.data import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    ImageSource,
    original_images,
    raw_batches,
)
from keras_sacl.encoders import build_encoder
from keras_sacl.export import export_encoder
from keras_sacl.finetuning import build_classifier
from tests.networks import truncated, with_statistics

SIZE, NAMES = 32, [f"Klasse {n} – ö" for n in range(10)]


def tiny_classifier():
    """The first blocks of MobileNet-V1, ten classes; the statistics are those of no training."""
    keras.utils.set_random_seed(0)
    encoder = build_encoder("mobilenet_v1", width=0.25, image_size=SIZE)
    model = build_classifier(truncated(encoder, "conv_pw_5_relu"), classes=len(NAMES))
    head = model.layers[-1].kernel
    head.assign(np.random.default_rng(1).normal(0, 0.25, head.shape))
    return with_statistics(model)


def cuts_of_photos(count=12):
    """An `ImageSource` of parts of two real photos, of many sizes."""
    photos = [load_sample_image(name) for name in ("china.jpg", "flower.jpg")]
    rng = np.random.default_rng(0)
    encoded = []
    for i in range(count):
        height, width = rng.integers(100, 427, 2)
        top, left = rng.integers(0, 427 - height), rng.integers(0, 640 - width)
        cut = photos[i % 2][top : top + height, left : left + width]
        encoded.append(tf.io.encode_png(cut).numpy())
    return ImageSource(encoded, np.arange(count) % len(NAMES), NAMES)


def export_tiny(model, directory, formats, **settings):
    """Writes files of the classifier; returns the rows of `export_encoder`."""
    source = cuts_of_photos()
    ((pixels, labels),) = raw_batches(source, image_size=SIZE, batch_size=len(source))
    return export_encoder(
        model, directory, formats=formats, mean=IMAGENET_MEAN, std=IMAGENET_STD,
        calibration=pixels.numpy(), bank=None, queries=(pixels.numpy(), labels.numpy()),
        photos=[original_images(source)] * 3, outputs="logits", card={"name": "tiny"},
        labels=NAMES, say=lambda line: None, **settings,
    )  # fmt: skip


@functools.cache  # once for all tests of a process
def tiny_files():
    """(the classifier, its exported files by (name of the input, name of the file), their home)."""
    home = tempfile.TemporaryDirectory()  # gone with the process
    classifier, folder, found = tiny_classifier(), Path(home.name), {}
    for name, inputs, formats, settings in (
        ("images", "normalised", ("keras", "tflite", "tflite_int8", "onnx", "saved_model"), {}),
        ("pixels", "pixels", ("keras", "tflite_uint8", "onnx"), {"onnx_layout": "nchw"}),
        ("photos", "photos", ("tflite", "onnx"), {}),
    ):
        rows = export_tiny(classifier, folder / name, formats, inputs=inputs, **settings)
        # Whether 8 bits are enough for a network of random weights is no matter here.
        assert all(row["passed"] for file, row in rows.items() if "int8" not in file), rows
        found |= {(name, file): folder / name / file for file in rows}
    return classifier, found, home
