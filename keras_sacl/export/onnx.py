"""ONNX files."""

import tensorflow as tf

from keras_sacl.quiet import quiet


def convert_onnx(model, opset=17):
    """Converts an inference graph; the batch dimension is open and named "batch".

    Args:
        model: A `keras.Model` of one input and one output; the file's are called "images" and
            "features", the layout is NHWC.
        opset: ONNX operator set; 15 to 17 (from 18 on pooling becomes a ReduceMean between
            transpositions).

    Returns:
        The file's content as bytes, checked by `onnx.checker`.
    """
    with quiet():
        import onnx
        import tf2onnx

    spec = tf.TensorSpec((None, *model.input_shape[1:]), model.inputs[0].dtype, name="images")

    @tf.function(input_signature=[spec])
    def serve(images):
        return {"features": tf.identity(model(images, training=False), name="features")}

    with quiet():
        proto, _ = tf2onnx.convert.from_function(serve, input_signature=[spec], opset=opset)
    for value in (*proto.graph.input, *proto.graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = "batch"
    onnx.checker.check_model(proto, full_check=True)
    return proto.SerializeToString()
