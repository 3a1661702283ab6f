"""The reader of PyTorch's files: both formats, and files that lie."""

import argparse
import collections
import io
import os
import pickle
import struct
import tracemalloc
import zipfile

import ml_dtypes
import numpy as np
import pytest

from keras_sacl.distillation.teachers.torch_checkpoint import read_torch_checkpoint
from tests.distillation.teachers.torch_files import (
    STORAGES,
    Storage,
    View,
    checkpoint_bytes,
    tensor,
    zip_bytes,
)

FORMATS = pytest.mark.parametrize("stream", [False, True], ids=["zip", "stream"])


@pytest.fixture
def read(tmp_path):
    def read(data):
        path = tmp_path / "checkpoint.pth"
        path.write_bytes(data)
        return read_torch_checkpoint(path)

    return read


def refusal(read, data):
    with pytest.raises(ValueError) as caught:
        read(data)
    text = str(caught.value)
    assert text.startswith("cannot be read as a PyTorch checkpoint (") and "\n" not in text
    return text


@FORMATS
@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_every_type(read, stream, protocol):
    rng = np.random.default_rng(0)
    arrays = {
        name: rng.integers(0, 2 if name == "bool" else 100, (2, 3, 4)).astype(
            ml_dtypes.bfloat16 if name == "bfloat16" else name
        )
        for name in STORAGES
    }
    arrays |= {"scalar": np.array(3.5), "empty": np.zeros((0, 3))}
    state = collections.OrderedDict((name, tensor(values)) for name, values in arrays.items())
    found = read(checkpoint_bytes(state, stream, protocol))
    assert list(found) == list(arrays)
    for name, values in arrays.items():
        expected = values.astype("float32") if name == "bfloat16" else values
        assert found[name].dtype == expected.dtype and found[name].shape == expected.shape
        np.testing.assert_array_equal(found[name], expected)


@FORMATS
def test_views_of_a_shared_storage(read, stream):
    base = np.arange(60, dtype="float32").reshape(6, 10)
    storage = Storage(base)
    views = {
        "whole": (base, 0, (10, 1)),
        "corner": (base[1:5, 2:7], 12, (10, 1)),
        "transposed": (base.T, 0, (1, 10)),
        "strided": (base[1::2, ::3], 10, (20, 3)),
    }
    root = {
        name: View(storage, offset, x.shape, strides)
        for name, (x, offset, strides) in views.items()
    }
    found = read(checkpoint_bytes(root, stream))
    for name, (expected, _, _) in views.items():
        np.testing.assert_array_equal(found[name], expected)
        assert found[name].flags.writeable


@FORMATS
def test_what_a_trainer_saves(read, stream):
    def state(value):
        return collections.OrderedDict(weight=tensor(np.full(3, value, "float32")))

    beside = {
        "epoch": 200,
        "args": argparse.Namespace(lr=0.03, schedule=[120, 160]),
        "best": np.float64(3.5),
        "optimizer": {"state": collections.defaultdict(dict, {0: {"step": np.int64(1)}})},
        "seen": {1, 2},
    }
    for names in (("state_dict",), ("model",), ("student", "teacher"), ("model", "state_dict")):
        nests = {name: state(i) for i, name in enumerate(names)}
        found = read(checkpoint_bytes({**beside, **nests}, stream))
        np.testing.assert_array_equal(found["weight"], np.full(3, len(names) - 1))
    nested = {"model": {"state_dict": state(5), "epoch": 1}}
    assert read(checkpoint_bytes(nested, stream))["weight"][0] == 5


class Call:
    def __init__(self, function, *args):
        self.pair = function, args

    def __reduce__(self):
        return self.pair


@FORMATS
@pytest.mark.parametrize(
    "function", [os.system, os.remove, eval, exec, getattr, __import__, print, io.open]
)
def test_code_is_refused_and_not_run(read, stream, function, tmp_path, capsys):
    witness = tmp_path / "witness"
    witness.write_text("here")
    argument = f"rm {witness}" if function is os.system else str(witness)
    root = {"weight": tensor(np.ones(3)), "epoch": Call(function, argument)}
    text = refusal(read, checkpoint_bytes(root, stream))
    module = function.__module__.replace("builtins", "__builtin__")  # as protocol 2 calls it
    assert f"it names {module}.{function.__name__}, which was not run" in text
    assert witness.exists() and capsys.readouterr().out == ""


def global_pickle(module, name):
    return b"\x80\x02c" + f"{module}\n{name}\n".encode() + b")R."


@pytest.mark.parametrize(
    "module, name",
    [
        ("collections", "OrderedDict.fromkeys"),
        ("torch._utils", "_rebuild_tensor_v2.__globals__"),
        ("os", "path.exists"),
        ("torchvision.models.resnet", "ResNet"),
    ],
)
def test_only_what_is_listed(read, module, name):
    text = refusal(read, zip_bytes({"data.pkl": global_pickle(module, name)}))
    assert f"{module}.{name}" in text or "no tensors" in text


def test_standing_in_does_nothing(read):
    """torch.hub.load would fetch and run code; here it is an empty object."""
    reduce = b"\x80\x02ctorch.hub\nload\nX\x04\x00\x00\x00evil\x85R."
    assert "no tensors" in refusal(read, zip_bytes({"data.pkl": reduce}))


@FORMATS
def test_a_part_of_a_file_is_no_file(read, stream):
    state = {f"layer{i}.weight": tensor(np.ones((3, 5), "float32")) for i in range(4)}
    whole = checkpoint_bytes(state, stream)
    for length in (*range(0, len(whole) - 1, 7), len(whole) - 1):
        refusal(read, whole[:length])


@FORMATS
def test_broken_bytes_never_crash(read, stream):
    state = {f"layer{i}.weight": tensor(np.ones((3, 5), "float32")) for i in range(2)}
    whole = np.frombuffer(checkpoint_bytes(state, stream), "uint8")
    rng = np.random.default_rng(0)
    refused = 0
    for _ in range(400):
        broken = whole.copy()
        broken[rng.integers(0, broken.size, 3)] = rng.integers(0, 256, 3)
        try:
            read(broken.tobytes())
        except ValueError as error:
            refused += "\n" not in str(error)
    assert refused > 100


@FORMATS
@pytest.mark.parametrize(
    "offset, shape, strides",
    [
        (0, (7,), (1,)),
        (1, (6,), (1,)),
        (0, (2, 3), (4, 1)),
        (-1, (2,), (1,)),
        (0, (-2,), (1,)),
        (5, (3,), (-1,)),
        (0, (2, 3), (1,)),
        (0, (1 << 20, 1 << 20), (0, 0)),
        (0, (1 << 62, 1 << 62, 0), (1, 1, 1)),
        (0, (2.0,), (1,)),
        ("0", (2,), (1,)),
        (0, (1,) * 17, (1,) * 17),
    ],
)
def test_views_beyond_their_storage(read, stream, offset, shape, strides):
    view = View(Storage(np.arange(6, dtype="float32")), offset, shape, strides)
    refusal(read, checkpoint_bytes({"weight": view}, stream))


def test_false_sizes_take_no_memory(read):
    """A few bytes may claim any size; what is allocated is bounded by the file's."""
    number = struct.Struct("<Q").pack(1 << 36)
    storage = Storage(np.zeros(1000, "float32"))
    views = {str(i): View(storage, 0, (1000,), (1,)) for i in range(5_000)}
    bomb = {"data.pkl": pickle.dumps(b"\0" * 50_000_000)}
    files = [
        checkpoint_bytes(views, stream=True),
        checkpoint_bytes(views, stream=False),
        zip_bytes(bomb, zipfile.ZIP_DEFLATED),
        *(
            zip_bytes({"data.pkl": b"\x80\x05" + opcode + number + b"x."})
            for opcode in (b"\x8e", b"\x96", b"\x95")
        ),
        zip_bytes({"data.pkl": b"\x80\x02Nr\x00\x00\x00\x70."}),
        b"\x80\x02Nr\x00\x00\x00\x70.",
        b"\x80\x05\x8e" + number,
    ]
    for data in files:
        tracemalloc.start()
        refusal(read, data)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 20 * len(data) + 1_000_000


@pytest.mark.parametrize(
    "data, text",
    [
        (b"", "empty file"),
        (b"\x89PNG\r\n\x1a\n", ""),
        (pickle.dumps([1, 2]) * 3, "magic number"),
        (zip_bytes({"config.json": b"{}"}), "without one data.pkl"),
        (zip_bytes({"data.pkl": b"N.", "constants.pkl": b""}), "TorchScript"),
        (zip_bytes({"data.pkl": pickle.dumps({}), "byteorder": b"big"}), "big-endian"),
        (zip_bytes({"data.pkl": pickle.dumps({"epoch": 3})}), "no tensors"),
    ],
)
def test_other_files(read, data, text):
    assert text in refusal(read, data)


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(ValueError, match="FileNotFoundError"):
        read_torch_checkpoint(tmp_path / "none.pth")


@pytest.mark.slow  # the first import of torch can take half a minute
@FORMATS
def test_pytorchs_own_files(stream, tmp_path):
    torch = pytest.importorskip("torch")
    base = torch.arange(60.0).reshape(6, 10)
    layer = torch.nn.BatchNorm2d(3)
    state = collections.OrderedDict(
        layer.state_dict(),
        corner=base[1:5, 2:7],
        transposed=base.T,
        half=torch.randn(5).half(),
        brain=torch.randn(5).bfloat16(),
        parameter=torch.nn.Parameter(torch.randn(2, 2)),
    )
    optimizer = torch.optim.SGD(layer.parameters(), 0.1, momentum=0.9)
    root = {"state_dict": state, "optimizer": optimizer.state_dict(), "dtype": torch.float32}
    path = tmp_path / "checkpoint.pth.tar"
    torch.save(root, path, _use_new_zipfile_serialization=not stream)
    found = read_torch_checkpoint(path)
    assert list(found) == list(state)
    for name, values in state.items():
        values = values.detach().float() if name == "brain" else values.detach()
        np.testing.assert_array_equal(found[name], values.numpy())
        assert found[name].dtype == values.numpy().dtype
