"""The formats of exported files."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Format:
    """Ending, numbers and input of a file."""

    ending: str
    precision: str = "float32"
    pixels: bool = False  # whether it takes pixels whatever is asked for


FORMATS = {
    "keras": Format(".keras"),
    "tflite": Format(".tflite"),
    "tflite_fp16": Format("_fp16.tflite", "float16"),
    "tflite_dynamic": Format("_dynamic.tflite", "dynamic"),
    "tflite_int8": Format("_int8.tflite", "int8"),
    "tflite_uint8": Format("_uint8.tflite", "int8", pixels=True),
    "onnx": Format(".onnx"),
    "saved_model": Format("_saved_model"),
}
EXPORT_FORMATS = tuple(FORMATS)
