"""A Keras model as files for phones, each checked through its own runtime."""

import dataclasses
import difflib
import os
import shutil
from pathlib import Path

from keras_sacl.export.checking import Reference, check_file
from keras_sacl.export.metadata import add_metadata
from keras_sacl.export.onnx import convert_onnx
from keras_sacl.export.preprocessing import with_preprocessing
from keras_sacl.export.serving import write_saved_model
from keras_sacl.export.tflite import convert_tflite


@dataclasses.dataclass(frozen=True)
class _Format:
    ending: str
    precision: str = "float32"
    pixels: bool = False  # whether it takes pixels whatever is asked for


_FORMATS = {
    "keras": _Format(".keras"),
    "tflite": _Format(".tflite"),
    "tflite_fp16": _Format("_fp16.tflite", "float16"),
    "tflite_dynamic": _Format("_dynamic.tflite", "dynamic"),
    "tflite_int8": _Format("_int8.tflite", "int8"),
    "tflite_uint8": _Format("_uint8.tflite", "int8", pixels=True),
    "onnx": _Format(".onnx"),
    "saved_model": _Format("_saved_model"),
}
EXPORT_FORMATS = tuple(_FORMATS)


def export_encoder(
    encoder, directory, *, formats=EXPORT_FORMATS, mean, std, preprocessing=False,
    calibration, bank, queries, outputs="features", onnx_opset=17, onnx_batch="any",
    onnx_layout="nhwc", card=None, labels=None, say=print,
):  # fmt: skip
    """Writes an encoder, or a classifier, in several formats, and checks each file.

    Args:
        encoder: A `keras.Model`, (B, S, S, 3) normalised pixels to (B, F) features or logits.
        directory: Where the files go; it is made when needed.
        formats: Some of `EXPORT_FORMATS`. "tflite_uint8" is an int8 file for pipelines that speak
            bytes only: uint8 pixels in, whatever `preprocessing` says, and uint8 out.
        mean, std: Of the normalisation, three numbers each, for pixels in [0, 1].
        preprocessing: Whether the files take uint8 pixels and normalise inside.
        calibration: (N, S, S, 3) uint8 training images that set the ranges of int8.
        bank, queries: (images uint8, labels) each; see `Reference`.
        outputs: "features" or "logits": what the model gives, the name of the files' output, and
            with "logits" of the files, which are then classifier.tflite and so on.
        onnx_opset, onnx_batch, onnx_layout: See `convert_onnx`.
        card: Entries of the model card beside those on input and output (see `add_metadata`): a
            dict of what JSON can hold, such as a name and scores.
        labels: Names of the classes in the order of the logits, or None.
        say: Called with one line for each file.

    Returns:
        A dict from file name to the row of `check_file`. A file that cannot be made or fails its
        check has `passed` False and says why in `reason`; the others are made all the same.

    Raises:
        ValueError: On an unknown format.
    """
    for name in formats:
        if name not in _FORMATS:
            close = difflib.get_close_matches(str(name), EXPORT_FORMATS, n=1)
            hint = f"; did you mean {close[0]}?" if close else ""
            raise ValueError(
                f"`export_formats` must be of {', '.join(EXPORT_FORMATS)}{hint}. Received: {name!r}"
            )
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    reference = Reference(
        encoder, mean=mean, std=std, bank=bank, queries=queries, outputs=outputs
    )  # fmt: skip
    models = _Models(encoder, mean, std, calibration)
    onnx = {"opset": onnx_opset, "batch": onnx_batch, "layout": onnx_layout}
    stem = {"features": "encoder", "logits": "classifier"}[outputs]
    rows = {}
    for name in formats:
        kind = _FORMATS[name]
        file = stem + kind.ending
        say(f"exporting {file}")
        path, temporary = directory / file, directory / f"tmp-{file}"
        pixels = preprocessing or kind.pixels
        try:
            _remove(path)  # of an earlier export: it must not pass for this one
            # Under another name first, so that no half file is left.
            _write(name, kind, temporary, models, pixels, outputs, onnx)
            if name != "keras":
                about = _input_and_output(name, encoder, pixels, outputs, mean, std, onnx)
                add_metadata(temporary, {**(card or {}), "format": name, **about}, labels)
            os.replace(temporary, path)
            rows[file] = check_file(path, reference, precision=kind.precision, pixels=pixels)
        except Exception as error:  # a converter may raise anything
            _remove(temporary)
            text = " ".join(str(error).split())[:300]
            rows[file] = {"passed": False, "reason": f"{type(error).__name__}: {text}"}
    return rows


class _Models:
    """The model with and without its preprocessing, and calibration inputs for both."""

    def __init__(self, encoder, mean, std, calibration):
        self._encoder, self._normalisation = encoder, (mean, std)
        self._calibration = calibration.astype("float32")

    def model(self, pixels, dtype="uint8"):
        if not pixels:
            return self._encoder
        return with_preprocessing(self._encoder, *self._normalisation, dtype)

    def inputs(self, pixels):
        if pixels:
            return self._calibration
        mean, std = self._normalisation
        return ((self._calibration / 255 - mean) / std).astype("float32")


def _write(name, kind, path, models, pixels, outputs, onnx):
    if name == "keras":
        # Keras goes by the ending, which the temporary name keeps.
        models.model(pixels).save(path)
    elif name == "saved_model":
        write_saved_model(models.model(pixels), path, outputs=outputs)
    elif name == "onnx":
        path.write_bytes(convert_onnx(models.model(pixels), outputs=outputs, **onnx))
    else:
        integers = kind.precision == "int8"
        # A cast from uint8 would stay outside the integers: the graph takes 0 to 255 as floats,
        # which become uint8 exactly when the converter quantises the input.
        model = models.model(pixels, "float32" if integers else "uint8")
        path.write_bytes(
            convert_tflite(
                model, kind.precision, models.inputs(pixels), outputs=outputs,
                integer_input="uint8" if pixels else "int8",
                integer_output="uint8" if name == "tflite_uint8" else "int8",
            )
        )  # fmt: skip


def _input_and_output(name, encoder, pixels, outputs, mean, std, onnx):
    """The entries of a model card that say how to call the file."""
    values = (
        "0 to 255, as the camera gives them, red first"
        if pixels
        else ("(pixel / 255 - mean) / std, red first")
    )
    nchw = name == "onnx" and onnx["layout"] == "nchw"
    return {
        "input": {
            "name": "pixels" if pixels else "images",
            "size": encoder.input_shape[1],
            "layout": "nchw" if nchw else "nhwc",
            "values": values,
            "mean": list(mean),
            "std": list(std),
            "normalised_inside": pixels,
        },
        "output": {"name": outputs, "count": encoder.output_shape[-1]},
    }


def _remove(path):
    """Removes a file, or the directory of a SavedModel, where there is one."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
