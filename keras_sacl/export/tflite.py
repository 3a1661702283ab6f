"""TFLite files: float32, float16 and full-integer int8, of TFLite's own operations only."""

import tempfile

import keras
import numpy as np
import tensorflow as tf

from keras_sacl.quiet import quiet


def convert_tflite(model, precision="float32", calibration=None, integer_input="int8"):
    """Converts an inference graph of batch 1.

    Args:
        model: A `keras.Model` of one input and one output.
        precision: "float32"; "float16" (weights stored in half precision); "int8" (weights,
            activations, input and output are integers).
        calibration: For int8: (N, S, S, C) real inputs of the model, which set the ranges.
        integer_input: For int8: "int8", or "uint8" for a model of pixels from 0 to 255, whose
            input then has scale 1 and zero point 0.

    Returns:
        The file's content as bytes.

    Raises:
        ValueError: On an unknown precision, or int8 without calibration inputs.
    """
    if precision not in ("float32", "float16", "int8"):
        raise ValueError(
            f"`precision` must be float32, float16 or int8. Received: precision={precision!r}"
        )
    if precision == "int8" and (calibration is None or not len(calibration)):
        raise ValueError("`calibration` must hold real inputs for int8. Received none.")
    if precision == "int8" and integer_input == "uint8":
        # The quantised pixel must be the pixel itself, even if no image has black and white: with
        # any other scale the camera's bytes would mean something else.
        calibration = np.array(calibration, "float32")
        calibration[0, 0, 0], calibration[0, -1, -1] = 0, 255
    # By way of an inference SavedModel: converting the Keras model or its function directly gives
    # graphs that read variables (NaN), or the training graph, without an error.
    with tempfile.TemporaryDirectory() as directory, quiet():
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

    Read from the file itself, so that a file that no interpreter here can run is named for what
    it holds.

    Args:
        content: The file's bytes.

    Returns:
        Two sorted lists of names.
    """
    from ai_edge_litert import schema_py_generated as schema

    builtins = {code: name for name, code in vars(schema.BuiltinOperator).items() if name.isupper()}
    model = schema.Model.GetRootAsModel(content, 0)
    names, foreign = set(), set()
    for i in range(model.OperatorCodesLength()):
        entry = model.OperatorCodes(i)
        # Codes below 127 may stand in the older, one-byte field only.
        code = max(entry.BuiltinCode(), entry.DeprecatedBuiltinCode())
        if code == schema.BuiltinOperator.CUSTOM:
            foreign.add(entry.CustomCode().decode())
        else:
            names.add(builtins[code])
    return sorted(names | foreign), sorted(foreign)


def float_tensors(content):
    """Names of the floating-point tensors of a TFLite file; a full-integer file has none."""
    from ai_edge_litert import schema_py_generated as schema

    types = schema.TensorType
    floats = (types.FLOAT16, types.BFLOAT16, types.FLOAT32, types.FLOAT64)
    model = schema.Model.GetRootAsModel(content, 0)
    graphs = [model.Subgraphs(i) for i in range(model.SubgraphsLength())]
    tensors = [graph.Tensors(i) for graph in graphs for i in range(graph.TensorsLength())]
    return [tensor.Name().decode() for tensor in tensors if tensor.Type() in floats]
