"""One model on its way into files: conversion, metadata, check, and for int8 a remedy."""

import dataclasses
import functools
import os
import shutil
import tempfile
from pathlib import Path

import keras
import numpy as np

from keras_sacl.evaluation.features import inference
from keras_sacl.export.checking import Reference, check_file
from keras_sacl.export.formats import FORMATS
from keras_sacl.export.integers import equalise, layer_errors, worst_layers
from keras_sacl.export.metadata import add_metadata
from keras_sacl.export.onnx import convert_onnx
from keras_sacl.export.preprocessing import INPUTS, with_preprocessing
from keras_sacl.export.runtimes import TFLiteRunner
from keras_sacl.export.serving import write_saved_model
from keras_sacl.export.tflite import convert_tflite

# A remedy is tried where int8 loses more accuracy, and judged on so many calibration images.
_MOST_LOST, _TRIED = 0.01, 128


@dataclasses.dataclass(frozen=True)
class Job:
    """One model on its way into files.

    Attributes:
        encoder: (B, S, S, 3) normalised pixels to features or logits.
        reference: What Keras says, to compare with.
        takes: One of `INPUTS`; a format that takes pixels only does so whatever this is.
        outputs: Name of the output.
        normalisation: (mean, std), three numbers each, for pixels in [0, 1].
        share: Of the shorter side of a photo, what is cropped.
        calibration: (N, S, S, 3) float32 pixels from 0 to 255.
        photos: The same images in their own sizes, or None.
        onnx: Arguments of `convert_onnx`.
        card, labels: See `add_metadata`.
        say: Called with lines for the user.
    """

    encoder: keras.Model
    reference: Reference
    takes: str
    outputs: str
    normalisation: tuple
    share: float
    calibration: np.ndarray
    photos: object
    onnx: dict
    card: dict
    labels: list | None
    say: object

    def export(self, name, path):
        """Writes and checks one file; returns its row."""
        _remove(path)  # of an earlier export: it must not pass for this one
        self._put(name, path, self.encoder)
        row = self._check(name, path)
        if FORMATS[name].precision == "int8" and _loses(row):
            try:
                row = self._remedied(name, path, row)
            except Exception as error:  # the file is there, and its row says how good it is
                self.say(f"{path.name}: no remedy ({' '.join(str(error).split())[:200]})")
        return row

    def _remedied(self, name, path, row):
        """Tries to keep the accuracy in 8 bits.

        By training images, those that are tested having no part in the choice: the row of the file
        that comes nearer to Keras on them.
        """
        worst, equalised, noise = self._equalised
        listed = ", ".join(f"{layer} ({db:.0f} dB)" for layer, db in worst.items())
        self.say(f"{path.name} loses accuracy, most in {listed}; trying equalisation")
        better = noise["equalised"] < noise["plain"]
        if better:
            trial = path.with_name(f"trial-{path.name}")
            try:
                self._put(name, trial, equalised)
                row = self._check(name, trial)
                os.replace(trial, path)
            finally:
                _remove(trial)
        else:
            self.say(f"{path.name}: equalisation does not help; see docs/export.md for what may")
        remedy = "equalisation" if better else None
        return {**row, "remedy": remedy, "int8_noise": noise, "worst_layers_db": worst}

    @functools.cached_property
    def _equalised(self):
        """(worst layers, the equalised model, noise of both), for all int8 files of the job."""
        inputs = self._inputs("normalised")
        worst = worst_layers(layer_errors(self.encoder, inputs[:_TRIED]))
        equalised = equalise(self.encoder, inputs)
        expected = inference(self.encoder)(inputs[:_TRIED]).numpy().astype("float64")
        models = {"plain": self.encoder, "equalised": equalised}
        noise = {key: self._noise(model, expected) for key, model in models.items()}
        return worst, equalised, noise

    def _noise(self, model, expected):
        """Error of a model's int8 outputs on calibration images, relative to their deviation."""
        inputs = self._inputs("normalised")
        with tempfile.TemporaryDirectory() as directory:
            path = Path(directory) / "trial.tflite"
            path.write_bytes(convert_tflite(model, "int8", inputs))
            error = TFLiteRunner(path)(inputs[:_TRIED]) - expected
        return float(np.sqrt(np.mean(error**2)) / max(expected.std(), 1e-30))

    def _check(self, name, path):
        pixels = self._taken(name) != "normalised"
        precision = FORMATS[name].precision
        return check_file(path, self.reference, precision=precision, pixels=pixels)

    def _put(self, name, path, encoder):
        """Writes a file under another name first, so that no half file is left."""
        temporary = path.with_name(f"tmp-{path.name}")
        try:
            self._write(name, temporary, encoder)
            if name != "keras":
                card = {**self.card, "format": name, **self._input_and_output(name)}
                add_metadata(temporary, card, self.labels)
            _remove(path)
            os.replace(temporary, path)
        finally:
            _remove(temporary)

    def _write(self, name, path, encoder):
        precision, takes = FORMATS[name].precision, self._taken(name)
        integers = precision == "int8"
        # A cast from uint8 would stay outside the integers: the graph takes 0 to 255 as floats,
        # which become uint8 exactly when the converter quantises the input.
        model = self._model(encoder, takes, "float32" if integers else "uint8")
        if name == "keras":
            # Keras goes by the ending, which the temporary name keeps.
            model.save(path)
        elif name == "saved_model":
            write_saved_model(model, path, outputs=self.outputs)
        elif name == "onnx":
            path.write_bytes(convert_onnx(model, outputs=self.outputs, **self.onnx))
        else:
            path.write_bytes(
                convert_tflite(
                    model, precision, self._inputs(takes) if integers else None,
                    outputs=self.outputs,
                    integer_input="int8" if takes == "normalised" else "uint8",
                    integer_output="uint8" if name == "tflite_uint8" else "int8",
                )
            )  # fmt: skip

    def _taken(self, name):
        return "pixels" if FORMATS[name].pixels else self.takes

    def _model(self, encoder, takes, dtype):
        """The model behind a kind of input."""
        if takes == "normalised":
            return encoder
        if takes == "photos":
            return with_preprocessing(encoder, *self.normalisation, share=self.share)
        return with_preprocessing(encoder, *self.normalisation, dtype)

    def _inputs(self, takes):
        """Calibration inputs of a kind."""
        if takes == "photos":
            return self.photos
        if takes == "pixels":
            return self.calibration
        mean, std = self.normalisation
        return ((self.calibration / 255 - mean) / std).astype("float32")

    def _input_and_output(self, name):
        """The entries of a model card that say how to call the file."""
        takes = self._taken(name)
        normalised = takes == "normalised"
        mean, std = self.normalisation
        values = "(pixel / 255 - mean) / std" if normalised else "0 to 255, as a camera gives them"
        nchw = name == "onnx" and self.onnx["layout"] == "nchw"
        return {
            "input": {
                "name": INPUTS[takes],
                "size": self.encoder.input_shape[1],
                "any_size": takes == "photos",
                "crop_share": self.share,
                "layout": "nchw" if nchw else "nhwc",
                "values": f"{values}, red first",
                "mean": list(mean),
                "std": list(std),
                "normalised_inside": not normalised,
            },
            "output": {"name": self.outputs, "count": self.encoder.output_shape[-1]},
        }


def _loses(row):
    """Whether the accuracy of an int8 file is worth a remedy."""
    lost = max(row.get(f"{score}_keras", 0) - row.get(score, 0) for score in ("knn_top1", "top1"))
    return "cosine" in row and (row["reason"] is not None or lost > _MOST_LOST)


def _remove(path):
    """Removes a file, or the directory of a SavedModel, where there is one."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
