"""Kills a real training at random moments, resumes it, and compares its end with a whole run's.

    python -m tests.soak --kills 20 --seed 0

Each run is killed once, by SIGKILL or SIGTERM in turn, and resumed. Exit code 0 if every one ends
bit for bit as the run that was not killed: weights, optimizer, statistics, metrics.jsonl.
"""

import argparse
import json
import os
import pathlib
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time

import numpy as np

ROOT = pathlib.Path(__file__).parents[1]
FLAGS = (
    "--stages=pretrain --method=sacl_xd --dataset=digits --augmentation=digits "
    "--encoder=resnet20_cifar --width=0.5 --image_size=16 --slim_selection=magnitude "
    "--slim_refresh_steps=5 --projector=64-64 --batch_size=64 --optimizer=adamw --epochs=6 "
    "--slim_start_epoch=2 --slim_alone_epochs=1 --knn_every=2 --checkpoint_steps=7 "
    "--keep_checkpoints=2 --verbose=quiet"
).split()
_MOST_SECONDS_TO_STOP = 30


def start(run_dir, *more):
    """A training process in `run_dir`."""
    return subprocess.Popen(
        [sys.executable, str(ROOT / "train.py"), *FLAGS, f"--run_dir={run_dir}", *more],
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "3"},
    )  # fmt: skip


def finish(process):
    """Waits for a process that must succeed."""
    error = process.communicate()[1]
    if process.returncode:
        raise RuntimeError(f"training ended with {process.returncode}:\n{error}")


def kill(run_dir, number, seconds):
    """Starts a run and kills it; returns what it did, or None if it had ended before."""
    process = start(run_dir)
    try:
        process.wait(seconds)
        return None
    except subprocess.TimeoutExpired:
        process.send_signal(number)
    sent = time.monotonic()
    error = process.communicate(timeout=_MOST_SECONDS_TO_STOP)[1]
    took = time.monotonic() - sent
    saved = sorted(p.stem for p in pathlib.Path(run_dir).glob("checkpoints/step-*.npz"))
    said = error.strip().splitlines()[-1:] or ["nothing"]
    return process.returncode, took, saved[-1:] or ["no checkpoint"], said[0]


def ending(run_dir):
    """What a run leaves: the arrays of its last checkpoint, and its metrics without the times."""
    run_dir = pathlib.Path(run_dir)
    last = sorted(run_dir.glob("checkpoints/step-*.npz"))[-1]
    with np.load(last, allow_pickle=False) as file:
        arrays = {name: file[name] for name in file.files if name != "meta"}
    lines = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    for line in lines:
        del line["seconds"]
    return last.name, arrays, lines


def difference(one, other):
    """Where two endings differ, in words; empty if nowhere."""
    if one[0] != other[0]:
        return f"last checkpoint {other[0]} and not {one[0]}"
    if one[2] != other[2]:
        return f"metrics.jsonl: {other[2]} and not {one[2]}"
    for name, array in one[1].items():
        if not np.array_equal(array, other[1][name]):
            return f"array {name} of {one[0]}"
    return ""


def soak(kills, seed, folder, say=print):
    """Returns the number of runs that ended otherwise than the whole one."""
    rng = random.Random(seed)
    began = time.monotonic()
    finish(start(folder / "whole"))
    whole, seconds = ending(folder / "whole"), time.monotonic() - began
    say(f"whole run: {seconds:.0f} s, {len(whole[1])} arrays, {len(whole[2])} epochs")
    failed = 0
    for i in range(kills):
        run_dir, number = folder / f"run{i}", (signal.SIGKILL, signal.SIGTERM)[i % 2]
        killed = None
        while killed is None:  # a run that had ended before proves nothing
            shutil.rmtree(run_dir, ignore_errors=True)
            moment = rng.uniform(0, seconds)
            killed = kill(run_dir, number, moment)
        finish(start(run_dir, "--resume"))
        apart = difference(whole, ending(run_dir))
        failed += bool(apart)
        how = "exit {}, {:.1f} s later, {}, {}".format(*killed)
        say(f"{i + 1:3} {number.name} at {moment:4.1f} s: {how}: {apart or 'identical'}")
    say(f"{kills - failed} of {kills} runs end bit-identical to the whole one")
    return failed


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        sys.exit(min(soak(options.kills, options.seed, pathlib.Path(scratch)), 1))
