"""Files for phones, each checked through its own runtime against the Keras model."""

import keras_sacl.export.quiet_tensorflow  # noqa: F401  before what imports it loudly
from keras_sacl.export.checking import Reference, check_file
from keras_sacl.export.contents import tflite_ops
from keras_sacl.export.files import EXPORT_FORMATS, export_encoder
from keras_sacl.export.metadata import add_metadata, read_metadata
from keras_sacl.export.onnx import convert_onnx
from keras_sacl.export.preprocessing import with_preprocessing
from keras_sacl.export.runtimes import FILE_ENDINGS, OnnxRunner, TFLiteRunner, open_encoder
from keras_sacl.export.tflite import convert_tflite

__all__ = [
    "EXPORT_FORMATS",
    "FILE_ENDINGS",
    "OnnxRunner",
    "Reference",
    "TFLiteRunner",
    "add_metadata",
    "check_file",
    "convert_onnx",
    "convert_tflite",
    "export_encoder",
    "open_encoder",
    "read_metadata",
    "tflite_ops",
    "with_preprocessing",
]
