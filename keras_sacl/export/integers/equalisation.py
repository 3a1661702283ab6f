"""Cross-layer equalisation: channels of one layer brought to a range that suits 8 bits.

"Data-Free Quantization Through Weight Equalization and Bias Correction" (2019), section 4.1, by
ranges of activations in place of those of weights: TFLite has a scale for each output channel of
a kernel, but one for a whole activation, so that it is there that a small channel drowns.
"""

import keras
import numpy as np
from keras import layers

from keras_sacl.evaluation.features import inference

_BATCH = 32
# No channel is blown up beyond this.
_MOST = 1e3


def equalise(model, calibration):
    """A copy of a network that computes the same, with channels of more equal ranges.

    Between a BatchNorm and the next convolution or dense layer, with nothing or a ReLU or ReLU6
    in between, and nobody else reading: channel c is multiplied by s_c in the BatchNorm and
    divided by it in the next kernel. ReLU commutes with that; ReLU6 does as long as no channel
    reaches 6 that did not before, which `calibration` tells. Before a depthwise convolution,
    whose kernels have scales of their own, all ranges become equal; before others, whose
    kernels have one scale for all input channels, activation and kernel share the burden:
    s_c = sqrt(w_c / r_c), each relative to its largest.

    Args:
        model: A functional `keras.Model`, (B, S, S, C) to (B, F).
        calibration: (N, S, S, C) real inputs.

    Returns:
        A `keras.Model` with weights of its own, equal to `model` on `calibration` but for
        rounding; without such a place, an equal copy.
    """
    copy = keras.models.clone_model(model)
    copy.set_weights(model.get_weights())
    given = {x._keras_history.operation for x in copy.outputs}
    places = [place for place in map(_place, copy.layers) if place and not given & set(place[:2])]
    if not places:
        return copy
    ranges = _ranges(copy, [end.output for _, end, _ in places], calibration)
    for (norm, end, reader), reach in zip(places, ranges, strict=True):
        scale = _scale(reach, reader, _bound(end))
        for variable in (norm.gamma, norm.beta):
            variable.assign(variable.value * scale)
        kernel = reader.kernel.numpy()
        # (..., inputs, outputs); of a depthwise convolution (..., inputs, multiplier).
        reader.kernel.assign(kernel / scale[:, None])
    return copy


def _place(norm):
    """(BatchNorm, layer whose output is rescaled, reader) where that is possible, or None."""
    if not isinstance(norm, layers.BatchNormalization) or not (norm.scale and norm.center):
        return None
    if norm.axis not in (-1, len(norm.output.shape) - 1):
        return None
    end, reader = norm, _only_reader(norm)
    if reader is not None and _is_positive_homogeneous(reader):
        end, reader = reader, _only_reader(reader)
    # Not subclasses: they may do something else with the kernel.
    if type(reader) not in (layers.Conv2D, layers.DepthwiseConv2D, layers.Dense):
        return None
    # One that is called twice reads something else too, or is read as something else.
    called_once = all(len(layer._inbound_nodes) == 1 for layer in (norm, end, reader))
    return (norm, end, reader) if called_once and getattr(reader, "groups", 1) == 1 else None


def _only_reader(layer):
    readers = {node.operation for node in layer._outbound_nodes}
    return readers.pop() if len(layer._outbound_nodes) == len(readers) == 1 else None


def _is_positive_homogeneous(layer):
    if isinstance(layer, layers.ReLU):
        return not layer.negative_slope and not layer.threshold
    if isinstance(layer, layers.Activation):
        return layer.activation in (keras.activations.relu, keras.activations.relu6)
    return False


def _bound(layer):
    """What an activation is clipped at: 6 of a ReLU6, or infinity."""
    if isinstance(layer, layers.ReLU) and layer.max_value is not None:
        return float(layer.max_value)
    return 6.0 if getattr(layer, "activation", None) is keras.activations.relu6 else np.inf


def _ranges(model, tensors, calibration):
    """Of each tensor the largest absolute value of each channel, (C,)."""
    read = inference(keras.Model(model.inputs[0], tensors))
    most = None
    for start in range(0, len(calibration), _BATCH):
        found = read(calibration[start : start + _BATCH].astype("float32"))
        found = found if isinstance(found, list | tuple) else [found]
        found = [np.abs(x).max(axis=tuple(range(x.ndim - 1))) for x in map(np.asarray, found)]
        most = found if most is None else list(map(np.maximum, most, found))
    return most


def _scale(reach, reader, bound):
    """(C,) factors of the channels, 1 for those that are never seen."""
    seen = reach > 0
    relative = np.clip(reach / max(reach.max(), 1e-30), 1 / _MOST, 1)
    if isinstance(reader, layers.DepthwiseConv2D):
        scale = 1 / relative
    else:
        kernel = np.abs(reader.kernel.numpy())
        weight = kernel.max(axis=tuple(i for i in range(kernel.ndim) if i != kernel.ndim - 2))
        weight = np.clip(weight / max(weight.max(), 1e-30), 1 / _MOST, 1)
        scale = np.sqrt(weight / relative)
    # What touches the bound stays as it is: a smaller one would be another function.
    scale = np.where(reach >= bound * (1 - 1e-6), 1, np.minimum(scale, bound / reach.clip(1e-30)))
    return np.where(seen, scale, 1).astype("float32")
