"""TFLite files: float32, float16 and full-integer int8, of TFLite's own operations only."""

import contextlib
import os
import tempfile
import warnings

import keras
import tensorflow as tf

_CUSTOM_PREFIXES = ("Flex", "CUSTOM")


def convert_tflite(model, precision="float32", calibration=None, integer_input="int8"):
    """Converts an inference graph of batch 1.

    Args:
        model: A `keras.Model` of one input and one output.
        precision: "float32"; "float16" (weights stored in half precision); "int8" (weights,
            activations, input and output are integers).
        calibration: For int8: (N, ...) real inputs of the model, which set the ranges.
        integer_input: For int8: "int8" or "uint8", the type of the input.

    Returns:
        The file's content as bytes.

    Raises:
        ValueError: On an unknown precision, or int8 without calibration inputs.
    """
    if precision not in ("float32", "float16", "int8"):
        raise ValueError(
            "`precision` must be float32, float16 or int8. " f"Received: precision={precision!r}"
        )
    if precision == "int8" and (calibration is None or not len(calibration)):
        raise ValueError("`calibration` must hold real inputs for int8. Received none.")
    # By way of an inference SavedModel: converting the Keras model or its function directly gives
    # graphs that read variables (NaN), or the training graph, without an error.
    with tempfile.TemporaryDirectory() as directory, _quiet():
        archive = keras.export.ExportArchive()
        archive.track(model)
        spec = tf.TensorSpec((1, *model.input_shape[1:]), model.inputs[0].dtype, name="images")
        archive.add_endpoint(
            "serve", lambda images: model(images, training=False), input_signature=[spec]
        )
        archive.write_out(directory, verbose=False)
        converter = tf.lite.TFLiteConverter.from_saved_model(directory, signature_keys=["serve"])
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS]
        if precision != "float32":
            converter.optimizations = [tf.lite.Optimize.DEFAULT]
        if precision == "float16":
            converter.target_spec.supported_types = [tf.float16]
        if precision == "int8":
            converter.representative_dataset = lambda: ([x[None]] for x in calibration)
            converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
            converter.inference_input_type = tf.dtypes.as_dtype(integer_input)
            converter.inference_output_type = tf.int8
        return converter.convert()


def tflite_ops(content):
    """The operations of a TFLite file, as (all names, those that are not TFLite's own).

    Args:
        content: The file's bytes.

    Returns:
        Two sorted lists of names.
    """
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    interpreter = Interpreter(
        model_content=content,
        experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
    )
    names = sorted({op["op_name"] for op in interpreter._get_ops_details()})
    return names, [name for name in names if name.startswith(_CUSTOM_PREFIXES)]


@contextlib.contextmanager
def _quiet():
    """Keeps the converter's native chatter off stderr; Python's errors still get through."""
    with warnings.catch_warnings(), open(os.devnull, "w") as nowhere:
        warnings.simplefilter("ignore")
        saved = os.dup(2)
        os.dup2(nowhere.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(saved, 2)
            os.close(saved)
