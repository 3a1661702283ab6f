"""A Keras model as files for phones, each checked through its own runtime."""

import difflib
from pathlib import Path

from keras_sacl.data import PHOTO_SHARE
from keras_sacl.export.checking import Reference
from keras_sacl.export.formats import EXPORT_FORMATS, FORMATS
from keras_sacl.export.job import Job
from keras_sacl.export.preprocessing import INPUTS


def export_encoder(
    encoder, directory, *, formats=EXPORT_FORMATS, mean, std, inputs="normalised",
    calibration, bank, queries, photos=None, share=PHOTO_SHARE, outputs="features",
    onnx_opset=17, onnx_batch="any", onnx_layout="nhwc", card=None, labels=None, say=print,
):  # fmt: skip
    """Writes an encoder, or a classifier, in several formats, and checks each file.

    Args:
        encoder: A `keras.Model`, (B, S, S, 3) normalised pixels to (B, F) features or logits.
        directory: Where the files go; it is made when needed.
        formats: Some of `EXPORT_FORMATS`. "tflite_uint8" is an int8 file for pipelines that speak
            bytes only: uint8 pixels in, whatever `inputs` says, and uint8 out.
        mean, std: Of the normalisation, three numbers each, for pixels in [0, 1].
        inputs: What the files take, one of `INPUTS`: "normalised" pixels, uint8 "pixels" or
            uint8 "photos" of any size, which the file crops and resizes.
        calibration: (N, S, S, 3) uint8 training images that set the ranges of int8.
        bank, queries: (images uint8, labels) each; see `Reference`.
        photos: (of calibration, of the bank, of the queries): those images in their own sizes,
            uint8 (H, W, 3): lists, or data sets, read for each file. For "photos".
        share: Side of the square that is cropped, as a share of the shorter side of a photo: as
            the images of `queries` were.
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
        ValueError: On an unknown format or kind of inputs, or a share out of its range.
    """
    if inputs not in INPUTS:
        raise ValueError(f"`inputs` must be one of {', '.join(INPUTS)}. Received: {inputs!r}")
    if inputs == "photos" and photos is None:
        raise ValueError("`photos` must be given with inputs='photos'. Received: photos=None")
    if not 0 < share <= 1:
        raise ValueError(f"`share` must be above 0 and at most 1. Received: share={share}")
    for name in formats:
        if name not in FORMATS:
            close = difflib.get_close_matches(str(name), EXPORT_FORMATS, n=1)
            hint = f"; did you mean {close[0]}?" if close else ""
            raise ValueError(
                f"`export_formats` must be of {', '.join(EXPORT_FORMATS)}{hint}. Received: {name!r}"
            )
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    of_calibration, *of_reference = photos or (None, None, None)
    reference = Reference(
        encoder, mean=mean, std=std, bank=bank, queries=queries, outputs=outputs,
        photos=of_reference,
    )  # fmt: skip
    job = Job(
        encoder, reference, inputs, outputs, (mean, std), share,
        calibration.astype("float32"), of_calibration,
        {"opset": onnx_opset, "batch": onnx_batch, "layout": onnx_layout}, card or {}, labels, say,
    )  # fmt: skip
    stem = {"features": "encoder", "logits": "classifier"}[outputs]
    rows = {}
    for name in formats:
        file = stem + FORMATS[name].ending
        say(f"exporting {file}")
        try:
            rows[file] = job.export(name, directory / file)
        except Exception as error:  # a converter may raise anything
            text = " ".join(str(error).split())[:300]
            rows[file] = {"passed": False, "reason": f"{type(error).__name__}: {text}"}
    return rows
