"""Exported files behind one interface: a batch of images in, float32 features out."""

from pathlib import Path

import numpy as np

from keras_sacl.evaluation.features import inference
from keras_sacl.quiet import quiet


class TFLiteRunner:
    """Runs a TFLite file, image by image, as a phone does.

    Args:
        path: The file.
        num_threads: Threads that the interpreter uses.
    """

    def __init__(self, path, num_threads=1):
        from ai_edge_litert.interpreter import Interpreter

        with quiet():
            self._interpreter = Interpreter(model_path=str(path), num_threads=num_threads)
            self._interpreter.allocate_tensors()
        (self._input,) = self._interpreter.get_input_details()
        (self._output,) = self._interpreter.get_output_details()

    def __call__(self, images):
        """(N, S, S, 3), as the Keras model takes them, to (N, F) float32."""
        return np.concatenate([self._run(image[None]) for image in np.asarray(images)])

    def _run(self, image):
        image = quantise(image, self._input)
        self._interpreter.set_tensor(self._input["index"], image)
        self._interpreter.invoke()
        features = self._interpreter.get_tensor(self._output["index"])
        scale, zero = self._output["quantization"]
        if scale:
            return ((features.astype("float32") - zero) * scale).astype("float32")
        return features.astype("float32")


class OnnxRunner:
    """Runs an ONNX file.

    Args:
        path: The file.
        num_threads: Threads that the runtime uses.
    """

    def __init__(self, path, num_threads=1):
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = num_threads
        self._session = onnxruntime.InferenceSession(
            str(path), options, providers=["CPUExecutionProvider"]
        )
        self._input = self._session.get_inputs()[0].name

    def __call__(self, images):
        """(N, S, S, 3), as the Keras model takes them, to (N, F) float32."""
        (features,) = self._session.run(None, {self._input: np.asarray(images)})
        return features.astype("float32")


class KerasRunner:
    """Runs a .keras file in inference mode.

    Args:
        path: The file. It is loaded in Keras' safe mode: no code comes with it.
    """

    def __init__(self, path):
        import keras

        self._encode = inference(keras.saving.load_model(path, compile=False, safe_mode=True))

    def __call__(self, images):
        """(N, S, S, 3), as the model takes them, to (N, F) float32."""
        return np.asarray(self._encode(images), "float32")


def open_runner(path):
    """The runner for a file, by its ending."""
    runners = {".tflite": TFLiteRunner, ".onnx": OnnxRunner, ".keras": KerasRunner}
    return runners[Path(path).suffix](path)


def quantise(values, details):
    """Values as an integer input tensor wants them; unchanged where it takes their type."""
    dtype = np.dtype(details["dtype"])
    scale, zero = details["quantization"]
    if not scale or values.dtype == dtype:
        return values.astype(dtype)
    info = np.iinfo(dtype)
    return np.clip(np.round(values / scale + zero), info.min, info.max).astype(dtype)
