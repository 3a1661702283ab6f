"""Several replicas against one: the same weights, whatever the batch is shared out to."""

import functools
import os
import pathlib
import subprocess
import sys
import tempfile

import numpy as np
import pytest

from tests.replica_runs import IN_FLOAT32, METHODS, QUICK

ROOT = pathlib.Path(__file__).parents[1]


@functools.cache
def trained(replicas, encoder, names):
    """What `tests.replica_runs` found."""
    with tempfile.TemporaryDirectory() as folder:
        out = os.path.join(folder, "found.npz")
        done = subprocess.run(
            [sys.executable, "-m", "tests.replica_runs", str(replicas), out, encoder, *names],
            cwd=ROOT, capture_output=True, text=True, timeout=900,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr[-3000:]
        with np.load(out) as file:
            return {name: file[name] for name in file.files}


def worst(replicas, encoder, precision, method, names):
    """The largest difference of a variable, relative to the largest entry of it, and its name."""
    prefix = f"{precision}/{method}/"
    one, several = trained(1, encoder, names), trained(replicas, encoder, names)
    assert one.keys() == several.keys()
    found = [(0.0, "")]
    for name, value in one.items():
        if name.startswith(prefix) and value.dtype.kind in "fi":
            largest = np.abs(value).max()
            assert np.isfinite(several[name]).all(), name
            apart = np.abs(several[name].astype(np.float64) - value).max()
            found.append((apart / max(largest, 1e-30), name))
    assert len(found) > 20
    return max(found)


@pytest.mark.long
@pytest.mark.parametrize(
    "replicas, names",
    [
        (2, QUICK),
        pytest.param(2, tuple(METHODS), marks=pytest.mark.slow),
        pytest.param(4, tuple(METHODS), marks=pytest.mark.slow),
    ],
)
def test_replicas_equal_one(replicas, names):
    """Weights, statistics, queues, optimizer and logs, after 20 and 5 steps of 32 images."""
    for method in names:
        if method == "moco_v2 shuffle" and replicas > 2:
            continue  # the one replica has the groups of two
        assert worst(replicas, "small", "float64", method, names)[0] < 1e-9
    for method in set(IN_FLOAT32) & set(names):
        assert worst(replicas, "small", "float32", method, names)[0] < 1e-5


@pytest.mark.slow
def test_replicas_equal_one_on_a_deep_network():
    """In float64; in float32 its ReLU6 units flip at their kinks, one replica or two."""
    names = tuple(METHODS)
    for method in names:
        assert worst(2, "mobilenet_v1", "float64", method, names)[0] < 1e-9
