"""PyTorch's files and networks without PyTorch: a writer of both formats, and the forward pass."""

import collections
import io
import pickle
import sys
import types
import zipfile
from unittest import mock

import numpy as np

STORAGES = {
    "float64": "DoubleStorage",
    "float32": "FloatStorage",
    "float16": "HalfStorage",
    "bfloat16": "BFloat16Storage",
    "int64": "LongStorage",
    "int32": "IntStorage",
    "int16": "ShortStorage",
    "int8": "CharStorage",
    "uint8": "ByteStorage",
    "bool": "BoolStorage",
}


def _stub(name, module):
    return type(name, (), {"__module__": module, "__qualname__": name})


TORCH = types.ModuleType("torch")
UTILS = types.ModuleType("torch._utils")
for storage_name in STORAGES.values():
    setattr(TORCH, storage_name, _stub(storage_name, "torch"))


def _rebuild_tensor_v2(*args):
    raise AssertionError("only its name is written")


_rebuild_tensor_v2.__module__ = "torch._utils"
UTILS._rebuild_tensor_v2 = _rebuild_tensor_v2


class Storage:
    """The numbers of an array (N,), under a key."""

    def __init__(self, values):
        self.values, self.key = np.ascontiguousarray(values).reshape(-1), None


class View:
    """A tensor: a strided part of a storage, in elements."""

    def __init__(self, storage, offset, shape, strides):
        self.args = (storage, offset, tuple(shape), tuple(strides), False)

    def __reduce__(self):
        return _rebuild_tensor_v2, (*self.args, collections.OrderedDict())


def tensor(values):
    """An array as a tensor with a storage of its own."""
    values = np.asarray(values)
    strides = [stride // values.itemsize for stride in np.empty(values.shape, values.dtype).strides]
    return View(Storage(values), 0, values.shape, strides)


class _Pickler(pickle.Pickler):
    def __init__(self, file, protocol, stream):
        super().__init__(file, protocol)
        self.stream, self.storages = stream, []

    def persistent_id(self, value):
        if not isinstance(value, Storage):
            return None
        if value not in self.storages:
            value.key = str(len(self.storages))
            self.storages.append(value)
        kind = getattr(TORCH, STORAGES[str(value.values.dtype)])
        reference = ("storage", kind, value.key, "cpu", value.values.size)
        return (*reference, None) if self.stream else reference


def checkpoint_bytes(root, stream, protocol=2):
    """A checkpoint as `torch.save` writes it: the old stream, or the zip file of 1.6 and later."""
    file = io.BytesIO()
    pickler = _Pickler(file, protocol, stream)
    if stream:
        machine = {"protocol_version": 1001, "little_endian": True, "type_sizes": {"int": 4}}
        for item in (0x1950A86A20F9469CFC6C, 1001, machine):
            pickle.dump(item, file, protocol)
    with mock.patch.dict(sys.modules, {"torch": TORCH, "torch._utils": UTILS}):
        pickler.dump(root)
    if stream:
        pickle.dump([storage.key for storage in pickler.storages], file, protocol)
        for storage in pickler.storages:
            file.write(storage.values.size.to_bytes(8, "little") + storage.values.tobytes())
        return file.getvalue()
    members = {"data.pkl": file.getvalue(), "byteorder": b"little", "version": b"3\n"}
    members |= {f"data/{storage.key}": storage.values.tobytes() for storage in pickler.storages}
    return zip_bytes(members)


def zip_bytes(members, compression=zipfile.ZIP_STORED):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as archive:
        for name, data in members.items():
            archive.writestr(f"archive/{name}", data)
    return file.getvalue()


def write_checkpoint(path, arrays, stream=False, **beside):
    """A file with a state dict of arrays; with `beside`, one that a trainer saved."""
    state = collections.OrderedDict((name, tensor(values)) for name, values in arrays.items())
    path.write_bytes(checkpoint_bytes({"state_dict": state, **beside} if beside else state, stream))
    return path


def resnet_state(repeats, planes=8, bottleneck=False, stem=7, seed=0):
    """The state dict of a torchvision ResNet without `fc`, its numbers drawn at random."""
    rng = np.random.default_rng(seed)
    state = {}

    def convolution(name, norm, inputs, outputs, k):
        scale = np.sqrt(2 / (inputs * k * k))
        state[f"{name}.weight"] = rng.normal(0, scale, (outputs, inputs, k, k)).astype("float32")
        for part, low, high in (
            ("weight", 0.5, 1.2),
            ("bias", -0.2, 0.2),
            ("running_mean", -0.2, 0.2),
            ("running_var", 0.5, 1.5),
        ):
            state[f"{norm}.{part}"] = rng.uniform(low, high, outputs).astype("float32")
        state[f"{norm}.num_batches_tracked"] = np.array(7)

    convolution("conv1", "bn1", 3, planes, stem)
    inputs = planes
    for stage, count in enumerate(repeats, start=1):
        width = planes << (stage - 1)
        outputs = 4 * width if bottleneck else width
        for i in range(count):
            name = f"layer{stage}.{i}"
            if bottleneck:
                convolution(f"{name}.conv1", f"{name}.bn1", inputs, width, 1)
                convolution(f"{name}.conv2", f"{name}.bn2", width, width, 3)
                convolution(f"{name}.conv3", f"{name}.bn3", width, outputs, 1)
            else:
                convolution(f"{name}.conv1", f"{name}.bn1", inputs, width, 3)
                convolution(f"{name}.conv2", f"{name}.bn2", width, width, 3)
            if i == 0 and (stage > 1 or bottleneck):
                convolution(f"{name}.downsample.0", f"{name}.downsample.1", inputs, outputs, 1)
            inputs = outputs
    return state


def resnet_features(state, images, stem_padding=None):
    """torchvision's forward pass in NumPy, float64: (N, H, W, 3) to (N, F)."""

    def convolution(x, name, norm, stride=1, padding=None):
        kernel = state[f"{name}.weight"].astype("float64")
        k = kernel.shape[-1]
        p = k // 2 if padding is None else padding
        x = np.pad(x, ((0, 0), (0, 0), (p, p), (p, p)))
        windows = np.lib.stride_tricks.sliding_window_view(x, (k, k), (2, 3))
        windows = windows[:, :, ::stride, ::stride]
        x = np.einsum("nchwij,ocij->nohw", windows, kernel, optimize=True)
        weight, bias, mean, variance = (
            state[f"{norm}.{part}"].astype("float64")[:, None, None]
            for part in ("weight", "bias", "running_mean", "running_var")
        )
        return (x - mean) / np.sqrt(variance + 1e-5) * weight + bias

    small = state["conv1.weight"].shape[-1] == 3
    x = np.asarray(images, "float64").transpose(0, 3, 1, 2)
    x = np.maximum(convolution(x, "conv1", "bn1", 1 if small else 2, stem_padding), 0)
    if not small:
        x = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)), constant_values=-np.inf)
        windows = np.lib.stride_tricks.sliding_window_view(x, (3, 3), (2, 3))
        x = windows[:, :, ::2, ::2].max(axis=(4, 5))
    for stage in range(1, 5):
        i = 0
        while (name := f"layer{stage}.{i}") + ".conv1.weight" in state:
            stride = 2 if stage > 1 and i == 0 else 1
            bottleneck = f"{name}.conv3.weight" in state
            y = np.maximum(
                convolution(x, f"{name}.conv1", f"{name}.bn1", 1 if bottleneck else stride), 0
            )
            y = convolution(y, f"{name}.conv2", f"{name}.bn2", stride if bottleneck else 1)
            if bottleneck:
                y = convolution(np.maximum(y, 0), f"{name}.conv3", f"{name}.bn3")
            if f"{name}.downsample.0.weight" in state:
                x = convolution(x, f"{name}.downsample.0", f"{name}.downsample.1", stride)
            x = np.maximum(x + y, 0)
            i += 1
    return x.mean(axis=(2, 3))
