"""ONNX files."""

import tensorflow as tf

from keras_sacl.export.serving import input_name, serving
from keras_sacl.quiet import quiet

# From 18 on pooling becomes a ReduceMean between transpositions.
OPSETS = (15, 16, 17)
BATCHES, LAYOUTS = ("any", "one"), ("nhwc", "nchw")


def convert_onnx(model, opset=17, *, batch="any", layout="nhwc", outputs="features"):
    """Converts an inference graph.

    Args:
        model: A `keras.Model` of one input and one output; the file's are called "images" (or
            "pixels", see `with_preprocessing`) and as `outputs` says.
        opset: ONNX operator set, one of `OPSETS`.
        batch: "any" for an open dimension named "batch"; "one" for a fixed 1, which some
            runtimes of phones want.
        layout: Of the input: "nhwc", as in Keras, or "nchw", channels first.
        outputs: Name of the output: "features" or "logits".

    Returns:
        The file's content as bytes, checked by `onnx.checker`.

    Raises:
        ValueError: On any other opset, batch or layout.
    """
    for name, value, allowed in (
        ("opset", opset, OPSETS), ("batch", batch, BATCHES), ("layout", layout, LAYOUTS)
    ):  # fmt: skip
        if value not in allowed:
            raise ValueError(
                f"`{name}` must be one of {', '.join(map(str, allowed))}. "
                f"Received: {name}={value!r}"
            )
    with quiet():
        import onnx
        import tf2onnx

    function, signature = serving(model, outputs, batch=1 if batch == "one" else None)
    with quiet():
        proto, _ = tf2onnx.convert.from_function(
            tf.function(function, input_signature=signature),
            input_signature=signature,
            opset=opset,
            inputs_as_nchw=[input_name(model)] if layout == "nchw" else None,
        )
    for value in (*proto.graph.input, *proto.graph.output):
        first = value.type.tensor_type.shape.dim[0]
        if batch == "any":
            first.dim_param = "batch"
        else:
            first.dim_value = 1
    onnx.checker.check_model(proto, full_check=True)
    return proto.SerializeToString()
