"""What each layer of a network loses when its numbers become 8 bits."""

import dataclasses
import re

import keras
import numpy as np
import tensorflow as tf

from keras_sacl.export.serving import saved_model
from keras_sacl.export.tflite import calibrate, open_converter
from keras_sacl.quiet import quiet

_VERIFY, _OUTPUT = "NumericVerify/", "StatefulPartitionedCall"
_SUFFIX = re.compile(r"_\d+$")


@dataclasses.dataclass(frozen=True)
class LayerError:
    """Of one operation of the int8 graph, fed with what it is fed there.

    Attributes:
        layer: Name of the Keras layer that it ends in: its activation, or the layer itself. Of
            an operation that is no layer, its name.
        snr_db: Signal to noise of its output in decibels; 6 dB are a bit. Of the share of a
            channel's variance that is error (at most 1), the mean over the channels: a small
            channel counts like any other, since the next kernel may build on it.
    """

    layer: str
    snr_db: float


def layer_errors(model, calibration):
    """Runs each operation in int8 and in float32 on equal inputs.

    Args:
        model: A functional `keras.Model` of one input and one output, (B, S, S, C).
        calibration: (N, S, S, C) real inputs: they set the ranges, and are what is compared on.

    Returns:
        A list of `LayerError` in the order of the graph; operations whose output never changes
        have none.
    """
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    with quiet():
        interpreter = Interpreter(
            model_content=_verifying(model, calibration),
            experimental_preserve_all_tensors=True,
            # XNNPACK refuses networks that are dead throughout.
            experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
        )
        interpreter.allocate_tensors()
    (given,) = interpreter.get_input_details()
    details = {d["index"]: d for d in interpreter.get_tensor_details()}
    name = _layer_name(model, [d["name"] for d in details.values()])
    found = {}
    for image in calibration:
        interpreter.set_tensor(given["index"], image[None].astype(given["dtype"]))
        interpreter.invoke()
        for index, detail in details.items():
            if detail["name"].startswith(_VERIFY):
                place = int(detail["name"].rpartition(":")[2])
                scale, zero = details[place]["quantization"]
                sums = found.setdefault(index, _Sums(name(detail["name"]), scale))
                # What the operation gives in integers, less what it gives in floats.
                error = interpreter.get_tensor(index)
                sums.add(interpreter.get_tensor(place), zero, error)
    return [error for error in (sums.result() for sums in found.values()) if error is not None]


def worst_layers(errors, count=5):
    """Decibels of the layers of least signal to noise, a dict by name, the worst first.

    Of a layer that is several operations, its worst.
    """
    found = {}
    for error in sorted(errors, key=lambda error: error.snr_db):
        found.setdefault(error.layer, round(error.snr_db, 1))
    return dict(list(found.items())[:count])


def _verifying(model, calibration):
    """The int8 file with an operation behind each that compares it with floats."""
    with saved_model(model, batch=1) as directory, quiet():
        converter = open_converter(directory)
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        calibrate(converter, calibration)
        # Its own `run` is of no use: the arenas of what it compares are reused in between.
        debugger = tf.lite.experimental.QuantizationDebugger(converter=converter)
        return debugger.get_debug_quantized_model()


def _layer_name(model, tensors):
    """A function from a tensor's name to that of the Keras layer whose output it is."""
    own = {operation.name for operation in _operations(model)}
    parts = {part for name in tensors for part in re.split("[;/:]", name)}
    # A second call of a model puts _1 behind the name of every layer.
    suffixed = any(part not in own and _SUFFIX.sub("", part) in own for part in parts)

    def name(tensor):
        # Of several layers that were merged the last comes first.
        for merged in tensor.removeprefix(_VERIFY).rpartition(":")[0].split(";"):
            for part in merged.split("/"):
                layer = _SUFFIX.sub("", part) if suffixed else part
                if layer in own:
                    return layer
        if tensor.startswith(_VERIFY + _OUTPUT):
            return model.layers[-1].name
        return tensor.removeprefix(_VERIFY).split(";")[0].split("/")[-1]

    return name


def _operations(model):
    """The layers and other operations of a functional model, and of the models within it."""
    for operation in model.operations:
        if hasattr(operation, "operations"):
            yield from _operations(operation)
        elif not isinstance(operation, keras.layers.InputLayer):
            yield operation


class _Sums:
    """Sums over images from which a `LayerError` is made; of each channel, the last axis."""

    def __init__(self, layer, scale):
        self._layer, self._scale, self._count = layer, scale, 0
        self._value = self._value_squared = self._error_squared = 0.0

    def add(self, integers, zero, error):
        channels = integers.shape[-1]
        error = error.reshape(-1, channels).astype("float64")
        value = (integers.reshape(-1, channels).astype("float64") - zero) * self._scale - error
        self._count += len(value)
        self._value += value.sum(axis=0)
        self._value_squared += np.square(value).sum(axis=0)
        self._error_squared += np.square(error).sum(axis=0)

    def result(self):
        variance = self._value_squared / self._count - np.square(self._value / self._count)
        noise = self._error_squared / self._count
        speaks = variance > 1e-12 * max(variance.max(), 1e-30)
        if not speaks.any():
            return None
        lost = np.minimum(noise[speaks] / variance[speaks], 1)
        snr_db = -10 * np.log10(max(lost.mean(), 1e-12))
        return LayerError(self._layer, float(snr_db))
