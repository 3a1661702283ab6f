"""Exported files through their own runtimes: equal to Keras, and found out where they are not."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_sacl.data import IMAGENET_MEAN, IMAGENET_STD
from keras_sacl.encoders import build_encoder
from keras_sacl.export import (
    EXPORT_FORMATS,
    OnnxRunner,
    Reference,
    check_file,
    convert_onnx,
    convert_tflite,
    export_encoder,
    open_encoder,
    tflite_ops,
    with_preprocessing,
)
from keras_sacl.export.checking import compare
from tests.networks import truncated, with_statistics

NORMALISATION = {"mean": IMAGENET_MEAN, "std": IMAGENET_STD}


@pytest.fixture(scope="module")
def pixels(digit_images):
    images, labels = digit_images
    return (255 * images[:700]).round().astype("uint8"), labels[:700]


@pytest.fixture(scope="module")
def encoder():
    """MobileNet-V3: SE, hard-swish and residuals; non-trivial statistics and biases."""
    keras.utils.set_random_seed(0)
    whole = build_encoder("mobilenet_v3_small", width=0.25, image_size=32)
    return with_statistics(truncated(whole, "expanded_conv_4_add"))


def context(pixels):
    images, labels = pixels
    bank, queries = (images[:200], labels[:200]), (images[200:], labels[200:])
    return {"bank": bank, "queries": queries, **NORMALISATION}


@pytest.mark.parametrize("inputs", ["normalised", "pixels"])
def test_every_format_passes_its_check(encoder, pixels, tmp_path, inputs):
    # With pixels the graph is another, the converters are the same.
    formats = EXPORT_FORMATS if inputs == "normalised" else ("tflite", "tflite_int8", "onnx")
    rows = export_encoder(
        encoder,
        tmp_path,
        formats=formats,
        inputs=inputs,
        calibration=pixels[0][:100],
        say=lambda line: None,
        **context(pixels),
    )
    assert [row["reason"] for row in rows.values()] == [None] * len(formats)
    assert sorted(rows) == sorted(p.name for p in tmp_path.iterdir())
    if inputs == "pixels":
        return
    for name in ("encoder.keras", "encoder.tflite", "encoder.onnx", "encoder_saved_model"):
        assert rows[name]["max_abs_diff"] <= 1e-4
        assert rows[name]["knn_top1"] == pytest.approx(rows[name]["knn_top1_keras"], abs=0.005)
    for ending in ("int8", "uint8"):
        assert rows[f"encoder_{ending}.tflite"]["cosine"] > 0.98
    assert rows["encoder_dynamic.tflite"]["cosine"] > 0.999  # only its weights are rounded
    sizes = [rows[f"encoder{s}.tflite"]["bytes"] for s in ("_dynamic", "_fp16", "")]
    assert sizes == sorted(sizes)
    sizes = [rows[f"encoder{s}.tflite"]["bytes"] for s in ("_int8", "_fp16", "")]
    assert sizes == sorted(sizes)
    assert all(row["latency_ms"] > 0 for row in rows.values())


def test_preprocessing_is_the_normalisation(encoder, pixels):
    images = pixels[0][:8]
    normalised = (images / 255.0 - IMAGENET_MEAN) / IMAGENET_STD
    expected = np.asarray(encoder(normalised.astype("float32"), training=False))
    for dtype in ("uint8", "float32"):
        model = with_preprocessing(encoder, **NORMALISATION, dtype=dtype)
        np.testing.assert_allclose(
            model(images.astype(dtype)), expected, atol=1e-5 * np.abs(expected).max()
        )


def test_a_file_of_another_encoder_fails(encoder, pixels, tmp_path):
    other = keras.models.clone_model(encoder)
    other.set_weights(encoder.get_weights())
    kernel = other.get_layer("expanded_conv_project").kernel
    kernel.assign(1.02 * kernel.value)
    reference = Reference(encoder, **context(pixels))
    for name, convert in (("a.tflite", convert_tflite), ("a.onnx", convert_onnx)):
        (tmp_path / name).write_bytes(convert(other))
        row = check_file(tmp_path / name, reference)
        assert not row["passed"] and "differs from Keras by" in row["reason"]


def test_labels_that_k_nn_cannot_use_leave_it_out(encoder, pixels):
    images, labels = pixels
    for other in (np.full(len(labels), -1), np.eye(10, dtype="int64")[labels]):
        reference = Reference(encoder, **context((images, other)))
        assert reference.accuracy is None and not reference.labelled


def test_operations_outside_the_builtins_are_found(tmp_path):
    @tf.function(input_signature=[tf.TensorSpec((1, 4, 4), tf.float32)])
    def foreign(x):
        return tf.linalg.det(x)

    converter = tf.lite.TFLiteConverter.from_concrete_functions(
        [foreign.get_concrete_function()], foreign
    )
    converter.target_spec.supported_ops = [tf.lite.OpsSet.SELECT_TF_OPS]
    content = converter.convert()
    assert "FlexMatrixDeterminant" in tflite_ops(content)[1]
    path = tmp_path / "foreign.tflite"
    path.write_bytes(content)
    row = check_file(path, reference=None)
    assert not row["passed"]
    assert "operations outside the TFLite builtins" in row["reason"]
    assert "FlexMatrixDeterminant" in row["reason"]


def test_one_format_that_fails_does_not_stop_the_others(pixels, tmp_path):
    inputs = keras.Input((32, 32, 3))
    x = keras.layers.GlobalAveragePooling2D()(inputs)
    odd = keras.Model(inputs, keras.ops.erfinv(keras.ops.tanh(x) * 0.5))
    rows = export_encoder(
        odd,
        tmp_path,
        formats=("tflite", "keras"),
        calibration=pixels[0][:10],
        say=lambda line: None,
        **context(pixels),
    )
    assert not rows["encoder.tflite"]["passed"] and rows["encoder.tflite"]["reason"]
    assert rows["encoder.keras"]["passed"]
    assert not list(tmp_path.glob("tmp-*"))


def test_onnx_takes_any_batch(encoder, pixels, tmp_path):
    import onnx

    content = convert_onnx(encoder)
    proto = onnx.load_from_string(content)
    (images,), (features,) = proto.graph.input, proto.graph.output
    assert (images.name, features.name) == ("images", "features")
    assert images.type.tensor_type.shape.dim[0].dim_param == "batch"
    assert proto.opset_import[0].version == 17
    (tmp_path / "a.onnx").write_bytes(content)
    runner = OnnxRunner(tmp_path / "a.onnx")
    x = pixels[0][:5].astype("float32") / 255
    np.testing.assert_allclose(runner(x), np.concatenate([runner(i[None]) for i in x]), atol=1e-4)


@pytest.mark.parametrize("preprocessing", [False, True])
def test_onnx_for_a_runtime_with_demands(encoder, pixels, tmp_path, preprocessing):
    import onnx

    model = with_preprocessing(encoder, **NORMALISATION) if preprocessing else encoder
    content = convert_onnx(model, 15, batch="one", layout="nchw")
    proto = onnx.load_from_string(content)
    (given,) = proto.graph.input
    assert given.name == ("pixels" if preprocessing else "images")
    assert [d.dim_value for d in given.type.tensor_type.shape.dim] == [1, 3, 32, 32]
    assert proto.opset_import[0].version == 15
    (tmp_path / "a.onnx").write_bytes(content)
    row = check_file(tmp_path / "a.onnx", Reference(encoder, **context(pixels)))
    assert row["reason"] is None
    assert OnnxRunner(tmp_path / "a.onnx").input_shape == (1, 32, 32, 3)


def test_bytes_in_and_bytes_out(encoder, pixels, tmp_path):
    """tflite_uint8 takes pixels without being asked to, by one rule with tflite_int8's."""
    from ai_edge_litert.interpreter import Interpreter

    rows = export_encoder(
        encoder, tmp_path, formats=("tflite_uint8",), calibration=pixels[0][:100],
        say=lambda line: None, **context(pixels),
    )  # fmt: skip
    assert rows["encoder_uint8.tflite"]["passed"]
    interpreter = Interpreter(model_path=str(tmp_path / "encoder_uint8.tflite"))
    (given,), (found,) = interpreter.get_input_details(), interpreter.get_output_details()
    assert given["dtype"] == found["dtype"] == np.uint8
    assert given["quantization"] == (1.0, 0)


def test_files_name_their_inputs_and_outputs(encoder):
    from ai_edge_litert.interpreter import Interpreter

    for model, name in (
        (encoder, "images"),
        (with_preprocessing(encoder, **NORMALISATION), "pixels"),
    ):
        signatures = Interpreter(model_content=convert_tflite(model)).get_signature_list()
        assert signatures == {"serving_default": {"inputs": [name], "outputs": ["features"]}}


def test_compare_by_hand():
    expected = np.array([[2.0, 0.0], [0.0, 1.0], [0.0, 0.0]], "float32")
    found = np.array([[2.0, 0.0], [1.0, 0.0], [0.0, 0.0]], "float32")
    result = compare(expected, found)
    assert result["max_abs_diff"] == pytest.approx(0.5)  # 1 of a largest feature of 2
    assert result["cosine"] == pytest.approx(2 / 3)  # equal, orthogonal, both zero
    assert result["cosine_min"] == 0


def test_bad_arguments_are_named(encoder, pixels, tmp_path):
    with pytest.raises(ValueError, match="`export_formats` must be of .*did you mean onnx"):
        export_encoder(encoder, tmp_path, formats=("onx",), calibration=[], **context(pixels))
    with pytest.raises(ValueError, match="`precision` must be .*Received: precision='int4'"):
        convert_tflite(encoder, "int4")
    for name, value in {"opset": 18, "batch": 1, "layout": "chw"}.items():
        with pytest.raises(ValueError, match=f"`{name}` must be .*Received: {name}={value!r}"):
            convert_onnx(encoder, **{name: value})
    with pytest.raises(ValueError, match="`outputs` must be .*Received: outputs='scores'"):
        Reference(encoder, outputs="scores", **context(pixels))
    for inputs, why in (("floats", "`inputs` must be one of"), ("photos", "`photos` must be")):
        with pytest.raises(ValueError, match=why):
            export_encoder(
                encoder, tmp_path, inputs=inputs, calibration=pixels[0], **context(pixels)
            )
    with pytest.raises(ValueError, match="`calibration` must hold"):
        convert_tflite(encoder, "int8")


@pytest.mark.parametrize(
    "shape, why",
    [((None, None), "one image of a fixed size"), ((16, 16), "must give features")],
)
def test_files_that_are_no_encoders_are_refused(shape, why, tmp_path):
    import tensorflow as tf

    @tf.function(input_signature=[tf.TensorSpec((1, *shape, 3))])
    def run(images):
        return tf.reduce_mean(images, [1, 2]) if None in shape else images * 2.0

    graph = run.get_concrete_function()
    path = tmp_path / "a.tflite"
    path.write_bytes(tf.lite.TFLiteConverter.from_concrete_functions([graph], run).convert())
    with pytest.raises(ValueError, match=why):
        open_encoder(path)
