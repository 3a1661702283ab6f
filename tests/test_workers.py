"""Two worker processes on one machine, by train.py."""

import json
import os
import pathlib
import socket
import subprocess
import sys
import time

import numpy as np
import pytest

from keras_sacl.callbacks import read_metrics
from tests.folders import write_digits
from tests.soak import ending

ROOT = pathlib.Path(__file__).parents[1]
FLAGS = (
    "--stages=pretrain --method=sacl_xd --augmentation=digits --batch_size=64 "
    "--encoder=resnet20_cifar --width=0.5 --image_size=16 --projector=32-32 --knn_every=1 "
    "--mixed_precision=float64 --verbose=line --notensorboard --warmup_epochs=1"
).split()


def start_one(*flags, **environment):
    return subprocess.Popen(
        [sys.executable, str(ROOT / "train.py"), *FLAGS, *flags],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, **environment},
    )  # fmt: skip


def start_two(*flags):
    ports = []
    for _ in range(2):
        with socket.socket() as free:
            free.bind(("localhost", 0))
            ports.append(free.getsockname()[1])
    cluster = {"worker": [f"localhost:{port}" for port in ports]}
    configs = [{"cluster": cluster, "task": {"type": "worker", "index": i}} for i in range(2)]
    return [
        start_one("--strategy=multi_worker", *flags, TF_CONFIG=json.dumps(config))
        for config in configs
    ]


def finish(*processes):
    said = [process.communicate(timeout=300) for process in processes]
    for process, (out, error) in zip(processes, said, strict=True):
        assert process.returncode == 0, out + error
    return [out for out, _ in said]


def arrays(run_dir):
    """The last checkpoint's arrays, but for those of metrics, which are sums over workers."""
    name, found, _ = ending(run_dir)
    with np.load(run_dir / "checkpoints" / name) as file:
        names = json.loads(str(file["meta"]))["names"]
    kept = [i for i, name in enumerate(names) if name not in ("total", "count")]
    return name, [found[f"{i:05d}"].astype(np.float64) for i in kept]


@pytest.mark.slow
def test_two_workers_agree_with_one_process_and_survive_a_kill(tmp_path):
    # Of files each view is made by itself. Views of small images in memory are compiled for the
    # number of them, and another number rounds otherwise (5e-7).
    write_digits(tmp_path / "photos", 400)
    photos = f"--dataset={tmp_path / 'photos'}"
    short = photos, "--train_split=train[:192]", "--epochs=2"
    first, second = finish(*start_two(*short, f"--run_dir={tmp_path / 'two'}"))
    assert "everything is in" in first and not second.strip()
    finish(start_one(*short, f"--run_dir={tmp_path / 'one'}"))
    (last, one), (last_of_two, two) = arrays(tmp_path / "one"), arrays(tmp_path / "two")
    assert last == last_of_two == "step-000000006.npz"
    for a, b in zip(one, two, strict=True):
        np.testing.assert_allclose(b, a, rtol=0, atol=1e-9 * max(np.abs(a).max(), 1e-30))

    run_dir = tmp_path / "killed"
    settings = photos, "--epochs=4", "--slim_start_epoch=1", f"--run_dir={run_dir}"
    workers = start_two(*settings)
    deadline = time.monotonic() + 200
    while not list(run_dir.glob("checkpoints/*.npz")) and time.monotonic() < deadline:
        time.sleep(0.05)
    workers[1].kill()
    error = workers[0].communicate(timeout=100)[1]
    assert workers[0].returncode == 5, error
    assert "train.py: " in error and "; --resume continues from" in error
    workers[1].communicate()
    out = finish(*start_two(*settings, "--resume"))[0]
    assert "resuming after step" in out and "resuming after step 0 " not in out
    lines = read_metrics(run_dir / "metrics.jsonl")
    assert [line["epoch"] for line in lines] == [1, 2, 3, 4]
