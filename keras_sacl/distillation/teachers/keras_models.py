"""Teachers out of .keras files: this project's runs, keras-cv's backbones, anybody's encoders."""

import contextlib
import importlib
import zipfile
from pathlib import Path

import keras

from keras_sacl.keras_files import load_keras
from keras_sacl.precision import as_float32


def encoder_from_keras(path):
    """The encoder in a .keras file.

    Args:
        path: The file, with a functional model of images: its output (B, F), or its last feature
            map (the smallest, if it gives several) and the global average of that.

    Returns:
        A `keras.Model`, (B, S, S, 3) to (B, F) float32.

    Raises:
        ValueError: In one line, the end of a sentence about the file, if it is broken or holds
            anything else.
    """
    _import_keras_cv(path)
    model = load_keras(path)
    inputs, outputs = getattr(model, "inputs", None), getattr(model, "outputs", None)
    if not inputs or not outputs:
        raise ValueError("holds no functional model")
    if len(inputs) > 1 or not _takes_images(inputs[0].shape):
        shapes = ", ".join(str(x.shape) for x in inputs)
        raise ValueError(f"takes {shapes} and not square images of 3 channels")
    features = _features(outputs)
    return keras.Model(inputs[0], as_float32(features), name=model.name)


def run_from_keras(path):
    """The networks of a run directory of this project.

    Args:
        path: The directory, with encoder.keras and maybe projector.keras.

    Returns:
        (encoder, projector): `keras.Model`s, the second of them (B, F) to (B, D), or None.

    Raises:
        ValueError: In one line, the end of a sentence about the directory.
    """
    files = {name: Path(path) / f"{name}.keras" for name in ("encoder", "projector")}
    if not files["encoder"].is_file():
        raise ValueError("is a directory without encoder.keras")
    encoder = encoder_from_keras(files["encoder"])
    if not files["projector"].is_file():
        return encoder, None
    projector = load_keras(files["projector"])
    if projector.input_shape != encoder.output_shape or len(projector.output_shape) != 2:
        raise ValueError(
            f"has a projector.keras from {projector.input_shape} to {projector.output_shape}, "
            f"where its encoder.keras gives {encoder.output_shape}, as a run with a host leaves "
            f"them; take {files['encoder']}"
        )
    return encoder, projector


def _import_keras_cv(path):
    """Makes keras-cv's classes known to Keras, if the file names them: its import takes seconds."""
    try:
        with zipfile.ZipFile(path) as file:
            named = b"keras_cv" in file.read("config.json")
    except (OSError, KeyError, zipfile.BadZipFile):
        return  # `load_keras` says what is wrong.
    if named:
        with contextlib.suppress(ImportError):
            importlib.import_module("keras_cv")


def _takes_images(shape):
    return len(shape) == 4 and shape[1] == shape[2] and shape[3] == 3


def _features(outputs):
    if len(outputs) == 1 and len(outputs[0].shape) == 2:
        return outputs[0]
    maps = [x for x in outputs if len(x.shape) == 4]
    if not maps:
        shapes = ", ".join(str(x.shape) for x in outputs)
        raise ValueError(f"gives {shapes} and neither features (B, F) nor maps (B, H, W, C)")
    last = min(reversed(maps), key=lambda x: x.shape[1] or 0)
    return keras.layers.GlobalAveragePooling2D(dtype="float32", name="features")(last)
