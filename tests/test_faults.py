"""What may befall a run in its middle: kills, full disks, vanished and broken files."""

import collections
import io
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from keras_sacl import callbacks
from keras_sacl.config import RunConfig
from keras_sacl.data import load_source
from keras_sacl.data.decoding import decode, pixel_count
from keras_sacl.stages import RunDir, pretrain
from keras_sacl.stages.faults import fault_line
from tests import soak
from tests.folders import write_digits

ROOT = pathlib.Path(__file__).parents[1]
SMALL = (
    "--encoder=resnet20_cifar --width=0.25 --image_size=16 --projector=16-16 --batch_size=16 "
    "--method=barlow_twins --augmentation=digits --knn_every=0 --verbose=quiet --warmup_epochs=0"
).split()


def start(*flags):
    return subprocess.Popen(
        [sys.executable, str(ROOT / "train.py"), *SMALL, *map(str, flags)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def finish(process, code):
    """What a process wrote on stdout and stderr."""
    out, error = process.communicate(timeout=200)
    assert process.returncode == code, out + error
    assert code == 0 or len(error.strip().splitlines()) == 1, error
    return out, error


def await_checkpoint(run_dir, at_least):
    """Waits for a checkpoint of a step."""
    deadline = time.monotonic() + 200
    while time.monotonic() < deadline:
        if any(int(p.stem[5:]) >= at_least for p in run_dir.glob("checkpoints/step-*.npz")):
            return
        time.sleep(0.02)
    raise AssertionError(f"no checkpoint of step {at_least} in {run_dir}")


@pytest.mark.slow  # a small `python -m tests.soak`
def test_a_run_killed_twice_ends_as_if_it_had_not_been(tmp_path):
    soak.finish(soak.start(tmp_path / "whole"))
    run_dir = tmp_path / "killed"
    # 22 steps an epoch, a checkpoint every 7: both times in the middle of an epoch.
    for number, step, flags, code in (
        (signal.SIGTERM, 28, (), 143),
        (signal.SIGKILL, 77, ("--resume",), -9),
    ):
        process = soak.start(run_dir, *flags)
        await_checkpoint(run_dir, step)
        process.send_signal(number)
        error = process.communicate(timeout=30)[1]
        assert process.returncode == code
        if number == signal.SIGTERM:
            assert "stopped by SIGTERM; --resume continues from the last checkpoint" in error
            assert len(error.strip().splitlines()) == 1
    soak.finish(soak.start(run_dir, "--resume"))
    assert not soak.difference(soak.ending(tmp_path / "whole"), soak.ending(run_dir))


def broken_files():
    """Ten kinds of files that are no images, and what is said of them."""
    rgb = Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype="uint8"))

    def encoded(kind):
        file = io.BytesIO()
        rgb.save(file, kind)
        return file.getvalue()

    jpeg, png, webp = encoded("JPEG"), encoded("PNG"), encoded("WEBP")
    huge = png[:16] + (30_000).to_bytes(4, "big") * 2 + png[24:]
    jpg, no_image = "broken or truncated JPEG", "no JPEG, PNG, BMP, GIF or WebP image"
    return {
        "zero.jpg": (b"", "empty file"),
        "cut.jpg": (jpeg[: len(jpeg) // 2], jpg),
        "header.jpg": (jpeg[:20], jpg),
        "spoilt.jpg": (jpeg[:300] + bytes(b ^ 255 for b in jpeg[300:400]) + jpeg[400:], jpg),
        "cut.png": (png[: len(png) // 2], "broken or truncated PNG"),
        "cut.webp": (webp[:50], "broken or truncated WebP"),
        "error.jpg": (b"<html>404 Not Found</html>", no_image),
        "zeros.jpg": (bytes(5000), no_image),
        "phone.heic": (jpeg, "HEIC is not read; convert it to JPEG or PNG"),
        "huge.png": (huge, "more than 100,000,000 pixels"),
    }


@pytest.mark.long
def test_broken_files_are_named_and_change_nothing(tmp_path):
    """Five in a hundred, of ten kinds: the run is that of the folder without them."""
    write_digits(tmp_path / "clean", 200)
    shutil.copytree(tmp_path / "clean", tmp_path / "dirty")
    for name, (content, _) in broken_files().items():
        (tmp_path / "dirty" / "train" / "class0" / name).write_bytes(content)
    found = {}
    for name in ("clean", "dirty"):
        run_dir = tmp_path / f"run_{name}"
        flags = [f"--dataset={tmp_path / name}", "--epochs=2", "--stages=pretrain,evaluate"]
        said = finish(start(*flags, f"--run_dir={run_dir}"), 0)[0]
        found[name] = json.loads((run_dir / "results.json").read_text())
    dirty = found["dirty"]["pretrain"]
    assert "skipped 10 files" in said and "3 broken or truncated JPEG" in said
    assert len(dirty["skipped_images"]) == 10 and dirty["images"] == 150
    expected = collections.Counter(reason for _, reason in broken_files().values())
    assert dirty["skipped_by_reason"] == expected
    del found["clean"]["evaluate"]["dataset"], found["dirty"]["evaluate"]["dataset"]
    assert found["clean"]["evaluate"] == found["dirty"]["evaluate"]


@pytest.mark.parametrize("kind", ["PNG", "GIF", "BMP", "WEBP", "JPEG", "lossless", "alpha"])
def test_the_size_is_read_from_the_header(kind):
    file = io.BytesIO()
    image = Image.new("RGBA" if kind == "alpha" else "RGB", (300, 70), (9, 99, 199))
    if kind in ("lossless", "alpha"):
        image.save(file, "WEBP", lossless=kind == "lossless")
    else:
        image.save(file, kind)
    assert pixel_count(file.getvalue()) == 300 * 70
    assert pixel_count(file.getvalue()[:4]) == 0


def test_foreign_files_are_named_but_are_not_part_of_the_split(tmp_path):
    write_digits(tmp_path, 40)
    before = load_source(f"folder:{tmp_path}/train", "test", image_size=16)
    (tmp_path / "train" / "logo.svg").write_text("<svg/>")
    (tmp_path / "train" / "class0" / "0.heic").write_bytes(b"x")
    after = load_source(f"folder:{tmp_path}/train", "test", image_size=16)
    assert after.images == before.images and after.class_names == ["class0", "class1"]
    assert [reason.split()[0] for _, reason in after.skipped] == ["HEIC", "SVG"]


@pytest.mark.parametrize(
    "error, line",
    [
        (tf.errors.ResourceExhaustedError(None, None, "/r/x; No space left on device"), "/r/x; No"),
        (tf.errors.ResourceExhaustedError(None, None, "OOM when allocating"), "out of memory (OOM"),
        (MemoryError(), "out of memory (allocation failed); a smaller --batch_size"),
        (OSError(13, "Permission denied", "/r"), "/r: Permission denied"),
        (
            tf.errors.NotFoundError(None, None, "Graph execution error:\n\n/a.jpg; gone"),
            "/a.jpg; g",
        ),
    ],
)
def test_faults_from_outside_get_a_line(error, line):
    assert fault_line(error).startswith(line)


def test_faults_of_the_program_keep_their_traceback():
    assert fault_line(ValueError("x")) is None
    assert fault_line(tf.errors.InvalidArgumentError(None, None, "shapes differ")) is None


@pytest.mark.parametrize("kind", ["CMYK", "L", "P", "LA", "RGBA", "1", "I;16"])
def test_unusual_images_are_converted(tmp_path, kind):
    values = np.arange(256, dtype="uint16").reshape(16, 16)
    if kind == "I;16":
        image = Image.fromarray(values * 256)
    else:
        image = Image.fromarray(values.astype("uint8")).convert("RGB").convert(kind)
    path = tmp_path / f"x.{'jpg' if kind == 'CMYK' else 'png'}"
    image.save(path)
    source = load_source(f"folder:{tmp_path}", "all", image_size=16)
    pixels = decode(pathlib.Path(source.images[0]).read_bytes()).numpy()
    assert not source.skipped and pixels.shape == (16, 16, 3)
    # Pillow clips 16 bits to 8; what is wanted is the upper half.
    opened = values[..., None] if kind == "I;16" else Image.open(path).convert("RGB")
    np.testing.assert_allclose(pixels, np.asarray(opened) + np.zeros((16, 16, 3)), atol=3)


@pytest.mark.long
def test_vanished_images_end_the_run_in_one_line(tmp_path):
    write_digits(tmp_path / "photos", 100)
    flags = f"--dataset={tmp_path / 'photos'}", f"--run_dir={tmp_path / 'run'}", "--epochs=500"
    process = start(*flags, "--stages=pretrain")
    await_checkpoint(tmp_path / "run", 1)
    os.rename(tmp_path / "photos", tmp_path / "elsewhere")
    error = finish(process, 5)[1]
    assert "No such file or directory; --resume continues from the last checkpoint" in error


@pytest.mark.long
def test_an_interrupted_run_passes_over_a_checkpoint_cut_short(tmp_path):
    flags = "--dataset=digits", "--epochs=4", "--stages=pretrain", f"--run_dir={tmp_path / 'run'}"
    process = start(*flags)
    await_checkpoint(tmp_path / "run", 2 * 90)
    process.send_signal(signal.SIGINT)
    error = finish(process, 130)[1]
    assert "stopped by SIGINT; --resume continues from the last checkpoint" in error
    older, newest = sorted((tmp_path / "run" / "checkpoints").glob("*.npz"))
    newest.write_bytes(newest.read_bytes()[:1000])
    out = finish(start(*flags, "--resume"), 0)[0]
    assert f"checkpoint {newest} cannot be read" in out
    assert f"resuming after step {int(older.stem[5:])} of 360" in out


def test_a_diverged_run_says_so(tmp_path):
    flags = "--dataset=digits", "--epochs=4", "--stages=pretrain", f"--run_dir={tmp_path / 'run'}"
    error = finish(start(*flags, "--optimizer=sgd", "--learning_rate=1e30"), 4)[1]
    assert re.search(r"training stopped: the (loss is|weights are) .*; a lower learning", error)
    assert not list(tmp_path.glob("run/checkpoints/*"))


@pytest.fixture
def small_disk(tmp_path):
    """A file system of two megabytes."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(folder)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("needs the right to mount a file system")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.slow
def test_a_full_disk_leaves_the_checkpoint_before_whole(small_disk):
    flags = "--dataset=digits", "--epochs=8", "--keep_checkpoints=9", "--stages=pretrain"
    flags = [*flags, "--notensorboard", f"--run_dir={small_disk}/run"]
    error = finish(start(*flags), 5)[1]
    assert "cannot be written (No space left on device)" in error and "is whole" in error
    run_dir = small_disk / "run"
    kept = sorted(run_dir.glob("checkpoints/*"))
    assert kept and all(p.suffix == ".npz" for p in kept)
    for path in kept:
        with np.load(path) as file:
            assert all(file[name].size for name in file.files)
    subprocess.run(["mount", "-o", "remount,size=50m", str(small_disk)], check=True)
    out = finish(start(*flags, "--resume"), 0)[0]
    assert f"resuming after step {int(kept[-1].stem[5:])} of" in out
    lines = callbacks.read_metrics(run_dir / "metrics.jsonl")
    assert [line["epoch"] for line in lines] == list(range(1, 9))


@pytest.mark.long
def test_divergence_is_rolled_back_with_half_the_rate(tmp_path, monkeypatch):
    class OnceBad(callbacks.CollapseGuard):
        def on_epoch_end(self, epoch, logs=None):
            if epoch == 1 and float(self.model.optimizer.learning_rate) > 0.4e-3:
                raise callbacks.TrainingStopped("the loss is nan in epoch 2")

    monkeypatch.setattr(callbacks, "CollapseGuard", OnceBad)
    settings = dict(
        dataset="digits", augmentation="digits", encoder="resnet20_cifar", width=0.25,
        image_size=16, projector="16-16", batch_size=256, method="barlow_twins", epochs=3,
        knn_every=0, verbose="quiet", tensorboard=False, learning_rate=2e-3, warmup_epochs=0.0,
        run_dir=str(tmp_path),
    )  # fmt: skip
    config = RunConfig(**settings).validated()
    with pytest.raises(callbacks.TrainingStopped):
        pretrain(config, RunDir(tmp_path), say=print)
    config = RunConfig(**settings, on_divergence="rollback", resume=True).validated()
    said = []
    pretrain(config, RunDir(tmp_path), say=said.append)
    rollbacks = [line for line in said if "of the learning rate" in line]
    assert rollbacks[0] == (
        "the loss is nan in epoch 2; back to step 5 with 0.5 of the learning rate"
    )
    rates = [line["learning_rate"] for line in callbacks.read_metrics(tmp_path / "metrics.jsonl")]
    assert len(rates) == 3 and rates[1] < 0.4e-3
    # A run that is resumed goes on with the rate that it had come down to.
    checkpoint = callbacks.RunCheckpoint(tmp_path / "checkpoints")
    with np.load(checkpoint.paths()[-1]) as file:
        assert json.loads(str(file["meta"]))["rate_factor"] == 0.5 ** len(rollbacks)
