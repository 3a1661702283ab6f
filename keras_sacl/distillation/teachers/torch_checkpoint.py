"""PyTorch's checkpoint files, read without PyTorch and without running what they hold.

Two formats, as PyTorch 2's `torch/serialization.py` reads them. Since version 1.6 a zip file:
data.pkl, a pickle in which each tensor names a storage, and data/KEY with the storage's bytes.
Before, and so in most of what was published by 2020, a stream: four pickles (magic number, protocol
version, machine, objects), a fifth of the storages' keys, and for each of these a 64-bit count of
elements and the elements.
"""

import collections
import functools
import io
import math
import mmap
import pickle
import zipfile
from typing import NamedTuple

import ml_dtypes
import numpy as np

_MAGIC_NUMBER = 0x1950A86A20F9469CFC6C
_PROTOCOL_VERSION = 1001
_DTYPES = {
    "DoubleStorage": np.float64,
    "FloatStorage": np.float32,
    "HalfStorage": np.float16,
    "BFloat16Storage": ml_dtypes.bfloat16,
    "LongStorage": np.int64,
    "IntStorage": np.int32,
    "ShortStorage": np.int16,
    "CharStorage": np.int8,
    "ByteStorage": np.uint8,
    "BoolStorage": np.bool_,
}
# What trainers save beside the weights. None of it is read: an empty object stands in for it.
_INERT_PACKAGES = ("argparse", "numpy", "omegaconf", "pathlib", "torch")
_INERT_PACKAGES += ("lightning", "lightning_fabric", "pytorch_lightning")
_INERT_NAMES = ("collections.defaultdict", "_codecs.encode")
_INERT_BUILTINS = ("bool", "dict", "float", "int", "list", "set", "str", "tuple")
# Where trainers put the weights: the first that is there, and of two networks the mean one.
_NESTS = ("state_dict", "model_state_dict", "model", "teacher", "student")


def read_torch_checkpoint(path):
    """The tensors of a .pth, .pth.tar or .pt file.

    Nothing in the file is executed: its pickle may name tensors, their storages, plain containers
    and what becomes an empty object.

    Args:
        path: The file: a state dict, or what a trainer saves, with one under a usual name
            ("state_dict", "model", "teacher", "student").

    Returns:
        A dict from the state dict's names, as they stand there, to arrays. bfloat16 becomes
        float32. What is no tensor is left out.

    Raises:
        ValueError: In one line, the end of a sentence about the file, if it is neither format, is
            broken, names anything else, or holds no tensors.
    """
    try:
        with open(path, "rb") as file:
            data = _Map(file.fileno(), 0, access=mmap.ACCESS_READ)
        return _read_zip(data) if data[:4] == b"PK\3\4" else _read_stream(data)
    # A pickle is a program: a broken one can fail at any opcode, and in any way.
    except Exception as error:
        kind = "" if type(error) is ValueError else f"{type(error).__name__}: "
        reason = " ".join(f"{kind}{error}".split())[:200]
        raise ValueError(f"cannot be read as a PyTorch checkpoint ({reason})") from error


class _Map(mmap.mmap):
    """A file whose `read` allocates no more than is left of it, whatever a header claims."""

    def seekable(self):
        return True


def _read_zip(data):
    with zipfile.ZipFile(data) as file:
        members = {info.filename: info for info in file.infolist()}
        folders = [name.removesuffix("data.pkl") for name in members if name.endswith("/data.pkl")]
        if len(folders) != 1:
            raise ValueError("it is a zip file without one data.pkl")
        (folder,) = folders
        if f"{folder}constants.pkl" in members:
            raise ValueError("it is a TorchScript program: save `state_dict()` in its place")

        @functools.cache  # Tensors may share a storage.
        def read(name):
            info = members[folder + name]
            # PyTorch does not compress; what does could unpack to any size.
            if info.compress_type != zipfile.ZIP_STORED or info.file_size > len(data):
                raise ValueError(f"{info.filename} is compressed, or larger than the file")
            return file.read(info)

        if f"{folder}byteorder" in members and read("byteorder") != b"little":
            raise ValueError("it was written on a big-endian machine")
        root = _Unpickler(io.BytesIO(read("data.pkl"))).load()
        return _arrays(root, lambda key: read(f"data/{key}"), len(data))


def _read_stream(data):
    magic, version, machine = (_Unpickler(data).load() for _ in range(3))
    if (magic, version) != (_MAGIC_NUMBER, _PROTOCOL_VERSION):
        raise ValueError("it does not begin with PyTorch's magic number")
    if not machine["little_endian"]:
        raise ValueError("it was written on a big-endian machine")
    unpickler = _Unpickler(data)
    root = unpickler.load()
    keys = _Unpickler(data).load()
    storages, at = {}, data.tell()
    for key in keys:
        start = at + 8
        number = int.from_bytes(data[at:start], "little")
        at = start + number * np.dtype(unpickler.dtypes[key]).itemsize
        storages[key] = memoryview(data)[start:at]
        if at > len(data):
            raise ValueError("it ends too early")
    return _arrays(root, storages.__getitem__, len(data))


def _arrays(root, read, file_size):
    """The state dict in a checkpoint, as arrays; `read` maps a storage's key to its bytes."""
    tensors = _tensors(root)
    if not tensors:
        raise ValueError("it holds no tensors under names")
    wanted = sum(
        math.prod(tensor.shape) * np.dtype(tensor.dtype).itemsize for tensor in tensors.values()
    )
    if wanted > 4 * file_size:  # Views of one storage, over and over; a few are in order.
        raise ValueError(f"its tensors would take {wanted} bytes")
    return {name: tensor.array(read(tensor.key)) for name, tensor in tensors.items()}


def _tensors(root, depth=3):
    found = {}
    if isinstance(root, dict) and depth:
        nests = [root[name] for name in _NESTS if isinstance(root.get(name), dict)]
        found = _tensors(nests[0], depth - 1) if nests else {}
        found = found or {
            name: value
            for name, value in root.items()
            if isinstance(name, str) and isinstance(value, _Tensor)
        }
    return found


class _Storage(NamedTuple):
    key: object
    dtype: type


class _Tensor(NamedTuple):
    """A view of a storage; the offset and the strides count elements."""

    key: object
    dtype: type
    offset: int
    shape: tuple
    strides: tuple

    def array(self, storage):
        """The values as an array of their own, of the bytes of the storage."""
        values = np.frombuffer(storage, self.dtype)
        last = self.offset + sum((n - 1) * s for n, s in zip(self.shape, self.strides, strict=True))
        empty = 0 in self.shape
        if not empty and last >= values.size:
            raise ValueError(
                f"a tensor of shape {self.shape} and strides {self.strides} at {self.offset} is "
                f"more than its storage of {values.size} numbers"
            )
        strides = [s * values.itemsize for s in self.strides]
        view = np.lib.stride_tricks.as_strided(values[self.offset :], self.shape, strides)
        dtype = np.float32 if self.dtype is ml_dtypes.bfloat16 else self.dtype
        return np.array(view, dtype, order="C")


class _Inert:
    """An empty object that takes any state."""

    def __new__(cls, *args, **kwargs):
        return super().__new__(cls)

    def __init__(self, *args, **kwargs):
        pass

    def __setitem__(self, key, value):
        pass

    def __setstate__(self, state):
        pass

    def append(self, item):
        pass

    add = append
    extend = append


# Python's and not the C one, which (before 3.14) allocates whatever an index in the pickle claims.
class _Unpickler(pickle._Unpickler):
    dispatch = {**pickle._Unpickler.dispatch}
    del dispatch[pickle.BYTEARRAY8[0]]  # for the same reason

    def __init__(self, file):
        super().__init__(file, encoding="utf-8", errors="replace")
        self.dtypes = {}  # of each storage, by its key

    def find_class(self, module, name):
        full, package = f"{module}.{name}", module.split(".")[0]
        if full == "collections.OrderedDict":
            return collections.OrderedDict
        if full == "torch.Size":
            return tuple
        if full in ("torch._utils._rebuild_tensor", "torch._utils._rebuild_tensor_v2"):
            return self._tensor
        if full.startswith("torch._utils._rebuild_parameter"):
            return self._parameter
        if package == "torch" and name.endswith("Storage"):
            if name not in _DTYPES:
                raise ValueError(f"it holds a {full}")
            return _DTYPES[name]
        builtin = module in ("builtins", "__builtin__") and name in _INERT_BUILTINS
        if package in _INERT_PACKAGES or full in _INERT_NAMES or builtin:
            return _Inert
        raise ValueError(f"it names {full}, which was not run: save `state_dict()` alone")

    def persistent_load(self, reference):
        kind, dtype, key, _, _, *view = reference
        if kind != "storage" or view not in ([], [None]):
            raise ValueError(f"it refers to {reference}")
        self.dtypes.setdefault(key, dtype)
        return _Storage(key, dtype)

    def _tensor(self, storage, offset, shape, strides, *_):
        numbers = (offset, *shape, *strides)
        if len(shape) > 16 or not all(isinstance(n, int) and n >= 0 for n in numbers):
            raise ValueError(f"a tensor has the shape {shape} and the strides {strides}")
        return _Tensor(storage.key, storage.dtype, offset, tuple(shape), tuple(strides))

    def _parameter(self, tensor, *_):
        return tensor
