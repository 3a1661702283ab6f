"""Files of encoders behind one interface: a batch of images in, float32 features out.

Each runner has `input_shape` ((batch or None, S, S, 3)) and `takes_pixels` (uint8 ones, and not
normalised ones).
"""

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
        self.input_shape = tuple(self._input["shape"].tolist())
        self.takes_pixels = self._input["dtype"] == np.uint8

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
        (given,) = self._session.get_inputs()
        self._input = given.name
        self.input_shape = tuple(n if isinstance(n, int) else None for n in given.shape)
        self.takes_pixels = given.type == "tensor(uint8)"

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

        self.model = keras.saving.load_model(path, compile=False, safe_mode=True)
        (given,) = self.model.inputs
        self.input_shape = tuple(given.shape)
        self.takes_pixels = given.dtype == "uint8"
        self._encode = inference(self.model)

    def __call__(self, images):
        """(N, S, S, 3), as the model takes them, to (N, F) float32."""
        return np.asarray(self._encode(images), "float32")


_RUNNERS = {".tflite": TFLiteRunner, ".onnx": OnnxRunner, ".keras": KerasRunner}
FILE_ENDINGS = tuple(_RUNNERS)


def open_runner(path):
    """The runner for a file, by its ending: one of `FILE_ENDINGS`."""
    return _RUNNERS[Path(path).suffix](path)


def open_encoder(path):
    """The runner for a file from anywhere.

    Args:
        path: A .keras, .tflite or .onnx file of an encoder: one input of images (batch, S, S, 3),
            one output.

    Raises:
        ValueError: In one line, if there is no such file, or it holds no such encoder, or code
            (.keras files are loaded in Keras' safe mode).
    """
    path = Path(path)
    if path.suffix not in _RUNNERS:
        raise ValueError(f"must end in one of {', '.join(FILE_ENDINGS)}")
    if not path.is_file():
        raise ValueError("is no file")
    try:
        runner = open_runner(path)
    except Exception as error:  # each runtime has its own kinds for a broken file
        reason = " ".join(str(error).split())[:200]
        raise ValueError(f"cannot be loaded ({reason})") from error
    shape = runner.input_shape
    if len(shape) != 4 or shape[1] != shape[2] or shape[3] != 3:
        raise ValueError(f"must take square images (batch, S, S, 3), and takes {shape}")
    return runner


def quantise(values, details):
    """Values as an integer input tensor wants them; unchanged where it takes their type."""
    dtype = np.dtype(details["dtype"])
    scale, zero = details["quantization"]
    if not scale or values.dtype == dtype:
        return values.astype(dtype)
    info = np.iinfo(dtype)
    return np.clip(np.round(values / scale + zero), info.min, info.max).astype(dtype)
