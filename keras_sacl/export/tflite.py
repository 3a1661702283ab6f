"""TFLite files of five kinds, of TFLite's own operations only."""

import numpy as np
import tensorflow as tf

from keras_sacl.export.contents import tensor_names
from keras_sacl.export.preprocessing import CROP_LAYER
from keras_sacl.export.serving import SIGNATURE, input_name, saved_model
from keras_sacl.quiet import quiet

TFLITE_PRECISIONS = ("float32", "float16", "dynamic", "int8")


def convert_tflite(
    model, precision="float32", calibration=None, integer_input="int8", integer_output="int8",
    outputs="features",
):  # fmt: skip
    """Converts an inference graph of batch 1.

    The file has one signature, serving_default, whose input is called "images" (or "pixels", see
    `with_preprocessing`) and whose output is called by `outputs`.

    Args:
        model: A `keras.Model` of one input and one output.
        precision: "float32"; "float16" (weights stored in half precision); "dynamic" (weights of
            8 bits, the rest float32: no calibration needed); "int8" (weights, activations, input
            and output are integers; of a model of photos, the crop and the output are float32).
        calibration: For int8: real inputs of the model, which set the ranges: (N, S, S, C), or N
            photos (H, W, C).
        integer_input: For int8: "int8", or "uint8" for a model of pixels from 0 to 255, whose
            input then has scale 1 and zero point 0.
        integer_output: For int8: "int8" or "uint8".
        outputs: Name of the output: "features" or "logits".

    Returns:
        The file's content as bytes.

    Raises:
        ValueError: On an unknown precision, or int8 without calibration inputs.
    """
    if precision not in TFLITE_PRECISIONS:
        raise ValueError(
            f"`precision` must be one of {', '.join(TFLITE_PRECISIONS)}. "
            f"Received: precision={precision!r}"
        )
    if precision == "int8" and (calibration is None or not len(calibration)):
        raise ValueError("`calibration` must hold real inputs for int8. Received none.")
    photos = input_name(model) == "photos"
    if precision == "int8" and integer_input == "uint8" and not photos:
        # The quantised pixel must be the pixel itself, even if no image has black and white: with
        # any other scale the camera's bytes would mean something else.
        calibration = np.array(calibration, "float32")
        calibration[0, 0, 0], calibration[0, -1, -1] = 0, 255
    with saved_model(model, outputs=outputs, batch=1) as directory, quiet():
        if precision == "int8" and photos:
            return _integers_after_crop(directory, calibration)
        converter = open_converter(directory)
        if precision != "float32":
            converter.optimizations = [tf.lite.Optimize.DEFAULT]
        if precision == "float16":
            converter.target_spec.supported_types = [tf.float16]
        if precision == "int8":
            calibrate(converter, calibration)
            converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
            converter.inference_input_type = tf.dtypes.as_dtype(integer_input)
            converter.inference_output_type = tf.dtypes.as_dtype(integer_output)
        return converter.convert()


def open_converter(directory):
    """A converter of a SavedModel into TFLite's own operations."""
    converter = tf.lite.TFLiteConverter.from_saved_model(directory, signature_keys=[SIGNATURE])
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS]
    return converter


def calibrate(converter, calibration):
    """Has a converter quantise by real inputs, (N, S, S, C) or N photos (H, W, C)."""
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: ([np.asarray(x)[None]] for x in calibration)


def _integers_after_crop(directory, calibration):
    """An int8 network behind a crop in floats.

    The crop computes with positions of thousands of pixels, which 8 bits do not hold: the
    converter would quantise them without a word.
    """
    names = [
        name for name in tensor_names(open_converter(directory).convert()) if CROP_LAYER in name
    ]
    converter = open_converter(directory)
    converter.target_spec.supported_ops.append(tf.lite.OpsSet.TFLITE_BUILTINS_INT8)
    calibrate(converter, calibration)
    debugging = tf.lite.experimental
    debugger = debugging.QuantizationDebugger(
        converter=converter,
        debug_options=debugging.QuantizationDebugOptions(denylisted_nodes=names),
    )
    return debugger.get_nondebug_quantized_model()
