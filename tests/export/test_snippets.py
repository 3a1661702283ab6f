"""Lines for an app, written from a file: every name and number in them is the file's."""

import re
from pathlib import Path

import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter

from keras_sacl.export import add_metadata, convert_onnx
from keras_sacl.export.snippets import LANGUAGES, Tensor, main, snippet
from tests.tiny_classifier import tiny_files

DOCS = Path(__file__).parents[2] / "docs" / "phones.md"
EVERY = [
    ("images", "classifier.tflite"), ("images", "classifier_int8.tflite"),
    ("images", "classifier.onnx"), ("pixels", "classifier_uint8.tflite"),
    ("pixels", "classifier.onnx"), ("photos", "classifier.tflite"), ("photos", "classifier.onnx"),
]  # fmt: skip


@pytest.fixture(scope="session")
def files():
    return tiny_files()[1]


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("key", EVERY)
def test_what_every_snippet_has(key, language, files):
    text = snippet(files[key], language)
    assert text.startswith(f"// {key[1]}")
    assert f'"{key[0]}"' in text and '"logits"' in text
    assert ("serving_default" in text) is key[1].endswith(".tflite")
    assert ("0.485" in text) is (key[0] == "images")
    assert ("height" in text) is (key[0] == "photos")
    assert "10 classes" in text and "None" not in text
    for pair in ("()", "[]", "{}"):
        assert text.count(pair[0]) == text.count(pair[1])
    assert max(map(len, text.splitlines())) <= 100


@pytest.mark.parametrize("language", LANGUAGES)
def test_scale_and_zero_point_are_the_file_s(language, files):
    path = files["images", "classifier_int8.tflite"]
    text = snippet(path, language)
    interpreter = Interpreter(model_path=str(path))
    for tensor in (*interpreter.get_input_details(), *interpreter.get_output_details()):
        scale, zero_point = tensor["quantization"]
        (shown, zero) = re.search(
            rf"{np.dtype(tensor['dtype']).name} \[{', '.join(map(str, tensor['shape']))}\], "
            r"scale ([\d.e-]+), zero point (-?\d+)",
            text,
        ).groups()
        assert np.float32(shown) == np.float32(scale) and int(zero) == zero_point
        assert len(re.findall(re.escape(shown), text)) == 2  # where it is said and where it is used
    assert "-128" in text and "127" in text


def test_kotlin_s_arithmetic(files):
    """The lines that quantise and dequantise, read as Python."""
    text = snippet(files["images", "classifier_int8.tflite"], "kotlin")
    scale, plus = re.search(r"x / ([\d.e-]+)f\)\.roundToInt\(\) ([+-] \d+)", text).groups()
    back, minus = re.search(r"([\d.e-]+)f \* \(logits\[0\]\[it\] ([+-] \d+)\)", text).groups()
    interpreter = Interpreter(model_path=str(files["images", "classifier_int8.tflite"]))
    (given,), (found,) = interpreter.get_input_details(), interpreter.get_output_details()
    assert float(scale) == pytest.approx(given["quantization"][0], rel=1e-6)
    assert eval(f"0 {plus}") == given["quantization"][1]
    assert float(back) == pytest.approx(found["quantization"][0], rel=1e-6)
    assert eval(f"0 {minus}") == -found["quantization"][1]


@pytest.mark.parametrize("dtype, limits", [("int8", (-128, 127)), ("uint8", (0, 255))])
@pytest.mark.parametrize(
    "zero_point, plus, minus", [(0, "", ""), (3, " + 3", " - 3"), (-14, " - 14", " + 14")]
)
def test_integers_of_a_tensor(dtype, limits, zero_point, plus, minus):
    tensor = Tensor("images", dtype, (1, 2), 0.5, zero_point)
    assert tensor.limits == limits
    assert (tensor.plus_zero_point(), tensor.plus_zero_point(-1)) == (plus, minus)


@pytest.mark.parametrize("language, end", [("kotlin", "f"), ("swift", "")])
def test_mean_and_std_have_all_their_digits(language, end, tmp_path):
    import keras

    images = keras.Input((8, 8, 3))
    path = tmp_path / "encoder.onnx"
    model = keras.Model(images, keras.layers.GlobalAveragePooling2D()(images))
    path.write_bytes(convert_onnx(model))
    card = {"name": "images", "size": 8, "layout": "nhwc", "values": "-",
            "mean": [0.48145466, 0.4578275, 0], "std": [0.26862954, 0.26130258, 1]}  # fmt: skip
    add_metadata(path, {"input": card})
    text = snippet(path, language)
    for numbers in (("0.48145466", "0.4578275", "0.0"), ("0.26862954", "0.26130258", "1.0")):
        assert ", ".join(number + end for number in numbers) in text


def test_channels_first(files):
    kotlin = snippet(files["pixels", "classifier.onnx"], "kotlin")
    assert "longArrayOf(1, 3, 32, 32)" in kotlin and "OnnxJavaType.UINT8" in kotlin
    assert kotlin.index("for (c in 0..2)") < kotlin.index("for (pixel in argb)")
    swift = snippet(files["pixels", "classifier.onnx"], "swift")
    assert "[1, 3, 32, 32]" in swift and swift.index("for c in") < swift.index("for pixel in")


def test_an_encoder_gives_features(files, tmp_path):
    import keras

    images = keras.Input((8, 8, 3))
    encoder = keras.Model(images, keras.layers.GlobalAveragePooling2D()(images))
    path = tmp_path / "encoder.onnx"
    path.write_bytes(convert_onnx(encoder))
    card = {"name": "images", "size": 8, "layout": "nhwc", "values": "-", "mean": [0.5] * 3,
            "std": [0.5] * 3}  # fmt: skip
    with pytest.raises(ValueError, match="holds no model card"):
        snippet(path, "kotlin")
    add_metadata(path, {"input": card})
    for language in LANGUAGES:
        text = snippet(path, language)
        assert "The 3 features" in text and "softmax" not in text and "labels" not in text


def test_the_docs_show_what_is_written(files):
    """But for the last digits of a scale, which the machine that calibrates decides."""
    shown = re.findall(r"```(kotlin|swift)\n(// classifier.*?)```", DOCS.read_text("utf-8"), re.S)
    assert len(shown) == 3
    number = re.compile(r"\d+\.\d{5,}")
    for (language, text), name in zip(
        shown, ("classifier.tflite", "classifier_int8.tflite", "classifier.onnx"), strict=True
    ):
        expected = snippet(files["images", name], language)
        assert number.sub("#", text) == number.sub("#", expected)
        for a, b in zip(number.findall(text), number.findall(expected), strict=True):
            assert float(a) == pytest.approx(float(b), rel=1e-3)


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["TMP/none.onnx"], "TMP/none.onnx: is no file"),
        (["TMP/a.keras"], "TMP/a.keras: must end in .tflite or .onnx"),
        (["TMP/broken.tflite"], "TMP/broken.tflite: cannot be read ("),
        (["TMP/broken.onnx"], "TMP/broken.onnx: cannot be read ("),
        (["TMP/broken.onnx", "--language=java"], "argument --language: invalid choice: 'java'"),
    ],
)
def test_bad_input_is_one_line(arguments, message, tmp_path, capsys):
    for name in ("broken.tflite", "broken.onnx"):
        (tmp_path / name).write_bytes(b"no model")
    try:
        code = main([a.replace("TMP", str(tmp_path)) for a in arguments])
    except SystemExit as stopped:
        code = stopped.code
    error = capsys.readouterr().err.strip()
    assert code == 2 and len(error.splitlines()) == 1
    assert error.startswith("snippets: " + message.replace("TMP", str(tmp_path)))


def test_the_command(files, capsys):
    path = files["images", "classifier.onnx"]
    assert main([str(path), "--language=swift"]) == 0
    assert capsys.readouterr().out == snippet(path, "swift")
    with pytest.raises(ValueError, match="`language` must be one of kotlin, swift. Received"):
        snippet(path, "java")
