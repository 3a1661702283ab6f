"""Files for phones, each checked through its own runtime against the Keras encoder."""

import difflib
import os
from pathlib import Path

from keras_sacl.export.check import Reference, check_file
from keras_sacl.export.onnx import convert_onnx
from keras_sacl.export.preprocessing import with_preprocessing
from keras_sacl.export.runtimes import FILE_ENDINGS, OnnxRunner, TFLiteRunner, open_encoder
from keras_sacl.export.tflite import convert_tflite, tflite_ops

# Format to (file, TFLite precision or None).
_FILES = {
    "keras": ("encoder.keras", None),
    "tflite": ("encoder.tflite", "float32"),
    "tflite_fp16": ("encoder_fp16.tflite", "float16"),
    "tflite_int8": ("encoder_int8.tflite", "int8"),
    "onnx": ("encoder.onnx", None),
}
EXPORT_FORMATS = tuple(_FILES)

__all__ = [
    "EXPORT_FORMATS",
    "FILE_ENDINGS",
    "OnnxRunner",
    "Reference",
    "TFLiteRunner",
    "open_encoder",
    "check_file",
    "convert_onnx",
    "convert_tflite",
    "export_encoder",
    "tflite_ops",
    "with_preprocessing",
]


def export_encoder(
    encoder, directory, *, formats=EXPORT_FORMATS, mean, std, preprocessing=False,
    calibration, bank, queries, say=print,
):  # fmt: skip
    """Writes an encoder in several formats, and checks each file.

    Args:
        encoder: A `keras.Model`, (B, S, S, 3) normalised pixels to (B, F).
        directory: Where the files go; it is made when needed.
        formats: Some of `EXPORT_FORMATS`.
        mean, std: Of the normalisation, three numbers each, for pixels in [0, 1].
        preprocessing: Whether the files take uint8 pixels and normalise inside.
        calibration: (N, S, S, 3) uint8 training images that set the ranges of int8.
        bank, queries: (images uint8, labels) each; k-NN of the queries among the bank is
            compared through the file and in Keras. Labels of -1 leave that out.
        say: Called with one line for each file.

    Returns:
        A dict from file name to the row of `check_file`. A file that cannot be made or fails its
        check has `passed` False and says why in `reason`; the others are made all the same.

    Raises:
        ValueError: On an unknown format.
    """
    for name in formats:
        if name not in _FILES:
            close = difflib.get_close_matches(str(name), EXPORT_FORMATS, n=1)
            hint = f"; did you mean {close[0]}?" if close else ""
            raise ValueError(
                f"`export_formats` must be of {', '.join(EXPORT_FORMATS)}{hint}. Received: {name!r}"
            )
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    model = with_preprocessing(encoder, mean, std) if preprocessing else encoder
    reference = Reference(encoder, mean=mean, std=std, bank=bank, queries=queries)
    rows = {}
    for name in formats:
        file, precision = _FILES[name]
        say(f"exporting {file}")
        path = directory / file
        try:
            path.unlink(missing_ok=True)  # of an earlier export: it must not pass for this one
            settings = (mean, std, preprocessing, calibration)
            _write(path, _convert(name, precision, model, encoder, *settings))
            rows[file] = check_file(
                path, reference, precision=precision or "float32", pixels=preprocessing
            )
        except Exception as error:  # a converter may raise anything
            text = " ".join(str(error).split())[:300]
            rows[file] = {"passed": False, "reason": f"{type(error).__name__}: {text}"}
    return rows


def _convert(name, precision, model, encoder, mean, std, preprocessing, calibration):
    if name == "keras":
        return model
    if name == "onnx":
        return convert_onnx(model)
    if precision == "int8" and preprocessing:
        # A cast from uint8 would stay outside the integers: the graph takes 0 to 255 as floats,
        # which become uint8 exactly when the converter quantises the input.
        model = with_preprocessing(encoder, mean, std, dtype="float32")
        return convert_tflite(model, "int8", calibration.astype("float32"), integer_input="uint8")
    normalised = (calibration.astype("float32") / 255 - mean) / std
    return convert_tflite(model, precision, normalised.astype("float32"))


def _write(path, content):
    """Writes bytes or a Keras model under another name first, so that no half file is left."""
    temporary = path.with_name(f"tmp-{path.name}")
    if isinstance(content, bytes):
        temporary.write_bytes(content)
    else:
        content.save(temporary)
    os.replace(temporary, path)
