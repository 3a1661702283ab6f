"""Files of encoders behind one interface: a batch of images in, float32 features out.

Each runner has `input_shape` ((batch or None, S, S, 3)), `input_type` (such as "float32"),
`output_shape`, `takes_pixels` (uint8 ones, and not normalised ones) and `any_size`.
"""

from pathlib import Path

import numpy as np

from keras_sacl.evaluation.features import inference
from keras_sacl.export.serving import SIGNATURE
from keras_sacl.quiet import quiet


class _Runner:
    @property
    def any_size(self):
        """Whether it takes photos of any size, and crops them itself."""
        return self.takes_pixels and None in self.input_shape[1:3]


class TFLiteRunner(_Runner):
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
        self._input = _only("input", self._interpreter.get_input_details())
        self._output = _only("output", self._interpreter.get_output_details())
        open_shape = self._input.get("shape_signature", self._input["shape"]).tolist()
        self.input_shape = tuple(None if n < 0 else n for n in open_shape)
        self.input_type = np.dtype(self._input["dtype"]).name
        self.output_shape = tuple(self._output["shape"].tolist())
        self.takes_pixels = self._input["dtype"] == np.uint8
        self._allocated = tuple(self._input["shape"].tolist())
        self.reach = 255 * self._input["quantization"][0]  # of integer inputs, in real numbers

    def __call__(self, images):
        """(N, S, S, 3), as the Keras model takes them, to (N, F) float32."""
        return np.concatenate([self._run(image[None]) for image in np.asarray(images)])

    def _run(self, image):
        image = quantise(image, self._input)
        if self.any_size and image.shape != self._allocated:
            self._interpreter.resize_tensor_input(self._input["index"], image.shape)
            self._interpreter.allocate_tensors()
            self._allocated = image.shape
        self._interpreter.set_tensor(self._input["index"], image)
        self._interpreter.invoke()
        features = self._interpreter.get_tensor(self._output["index"])
        scale, zero = self._output["quantization"]
        if scale:
            return ((features.astype("float32") - zero) * scale).astype("float32")
        return features.astype("float32")


class OnnxRunner(_Runner):
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
        given = _only("input", self._session.get_inputs())
        output = _only("output", self._session.get_outputs())
        self._input = given.name
        self.input_shape = _closed(given.shape)
        # Channels first: three of them where the Keras models have their height.
        self._planes = (
            len(self.input_shape) == 4 and self.input_shape[1] == 3 != (self.input_shape[3])
        )
        if self._planes:
            batch, channels, *sides = self.input_shape
            self.input_shape = (batch, *sides, channels)
        self.input_type = given.type.removeprefix("tensor(").removesuffix(")")
        self.input_type = {"float": "float32"}.get(self.input_type, self.input_type)
        self.output_shape = _closed(output.shape)
        self.takes_pixels = self.input_type == "uint8"

    def __call__(self, images):
        """(N, S, S, 3), as the Keras model takes them, to (N, F) float32."""
        images = np.asarray(images)
        if self._planes:
            images = np.ascontiguousarray(images.transpose(0, 3, 1, 2))
        images = images.astype(self.input_type, copy=False)
        batch = self.input_shape[0] or len(images)
        found = []
        for start in range(0, len(images), batch):
            part = images[start : start + batch]
            padded = np.pad(part, [[0, batch - len(part)], [0, 0], [0, 0], [0, 0]])
            found.append(self._session.run(None, {self._input: padded})[0][: len(part)])
        return np.concatenate(found).astype("float32")


class KerasRunner(_Runner):
    """Runs a .keras file in inference mode.

    Args:
        path: The file. It is loaded in Keras' safe mode: no code comes with it.
    """

    def __init__(self, path):
        import keras

        self.model = keras.saving.load_model(path, compile=False, safe_mode=True)
        given = _only("input", self.model.inputs)
        self.input_shape = tuple(given.shape)
        self.input_type = given.dtype
        self.output_shape = tuple(_only("output", self.model.outputs).shape)
        self.takes_pixels = given.dtype == "uint8"
        self._encode = inference(self.model)

    def __call__(self, images):
        """(N, S, S, 3), as the model takes them, to (N, F) float32."""
        return np.asarray(self._encode(images), "float32")


class SavedModelRunner(_Runner):
    """Runs the one signature of a SavedModel, of this library's own making.

    Not for files from anywhere: a SavedModel may hold operations that read and write files.

    Args:
        path: Its directory.
    """

    def __init__(self, path):
        import tensorflow as tf

        with quiet():
            self._model = tf.saved_model.load(str(path))  # its variables live as long as this
        self._serve = self._model.signatures[SIGNATURE]
        ((self._input, given),) = self._serve.structured_input_signature[1].items()
        ((_, output),) = self._serve.structured_outputs.items()
        self.input_shape, self.output_shape = tuple(given.shape), tuple(output.shape)
        self.input_type = given.dtype.name
        self.takes_pixels = self.input_type == "uint8"

    def __call__(self, images):
        """(N, S, S, 3), as the Keras model takes them, to (N, F) float32."""
        (features,) = self._serve(**{self._input: images}).values()
        return np.asarray(features, "float32")


_RUNNERS = {".tflite": TFLiteRunner, ".onnx": OnnxRunner, ".keras": KerasRunner}
FILE_ENDINGS = tuple(_RUNNERS)


def open_runner(path, num_threads=1):
    """The runner for a file, by its ending: one of `FILE_ENDINGS`; or for a SavedModel.

    Args:
        path: The file, or the SavedModel's directory.
        num_threads: Threads that its runtime uses; Keras and SavedModels have TensorFlow's own.
    """
    if Path(path).is_dir():
        return SavedModelRunner(path)
    runner = _RUNNERS[Path(path).suffix]
    return runner(path) if runner is KerasRunner else runner(path, num_threads)


def open_encoder(path, photos=False):
    """The runner for a file from anywhere.

    Args:
        path: A .keras, .tflite or .onnx file of an encoder: one input of images (batch, S, S, 3),
            one output.
        photos: Whether it may take photos of any size.

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
    if len(runner.output_shape) != 2:
        raise ValueError(f"must give features (batch, F), and gives {runner.output_shape}")
    if runner.any_size:
        if not photos:
            raise ValueError("must take images of a fixed size, and takes photos of any")
    elif isinstance(runner, TFLiteRunner):
        if None in shape[1:] or shape[0] not in (None, 1):
            raise ValueError(f"must take one image of a fixed size at a time, and takes {shape}")
        if runner.input_type == "int8" and runner.reach > 100:
            raise ValueError("takes int8 pixels, where uint8 ones or normalised images are known")
    return runner


def _only(kind, found):
    if len(found) != 1:
        raise ValueError(f"must have one {kind}, and has {len(found)}")
    return found[0]


def _closed(shape):
    """A shape of ONNX with None for what is open."""
    return tuple(n if isinstance(n, int) else None for n in shape)


def quantise(values, details):
    """Values as an integer input tensor wants them; unchanged where it takes their type."""
    dtype = np.dtype(details["dtype"])
    scale, zero = details["quantization"]
    if not scale or values.dtype == dtype:
        return values.astype(dtype)
    info = np.iinfo(dtype)
    return np.clip(np.round(values / scale + zero), info.min, info.max).astype(dtype)
