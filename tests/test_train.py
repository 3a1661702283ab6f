"""train.py from the outside: bad input, a whole run, a kill and its resumption."""

import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from PIL import Image

import train
from keras_sacl.config import ConfigError, RunConfig

ROOT = pathlib.Path(__file__).parents[1]
SMALL = (
    "--dataset=digits --augmentation=digits --encoder=resnet20_cifar --width=0.5 --image_size=8 "
    "--projector=32-32 --batch_size=64 --optimizer=adamw --knn_every=1"
).split()


def run(*flags, expect=0, cwd=ROOT):
    done = subprocess.run(
        [sys.executable, str(ROOT / "train.py"), *map(str, flags)],
        capture_output=True, text=True, cwd=cwd, timeout=300,
    )  # fmt: skip
    assert done.returncode == expect, done.stdout + done.stderr
    return done


BAD_SETTINGS = [
    ("encoder", "mobilenet_v9", "--encoder=mobilenet_v9: must be .*did you mean mobilenet_v"),
    ("width", 0.0, "--width=0.0: must be above 0"),
    ("width", float("nan"), "--width=nan: must be above 0"),
    ("host_width", 0.25, "--host_width=0.25: must be at least --width=1.0"),
    ("batch_size", 1, "--batch_size=1: must be at least 2"),
    ("epochs", 0, "--epochs=0: must be at least 1"),
    ("image_size", 4, "--image_size=4: must be at least 8"),
    ("method", "sacl-xd", "--method=sacl-xd: must be one of .*did you mean sacl_xd"),
    ("optimizer", "adam", "--optimizer=adam: must be one of .*did you mean adamw"),
    ("augmentation", "cifar", "--augmentation=cifar: must be one of .*did you mean cifar10"),
    ("alpha", 1.5, "--alpha=1.5: must be at least 0 and at most 1"),
    ("lambd", -1.0, "--lambd=-1.0: must be at least 0"),
    ("learning_rate", 0.0, "--learning_rate=0.0: must be above 0"),
    ("learning_rate", float("inf"), "--learning_rate=inf: must be above 0"),
    ("warmup_epochs", 200.0, "--warmup_epochs=200.0: must be at least 0 and at most 100"),
    ("projector", "2048,2048", "--projector=2048,2048: must be layer widths such as"),
    ("stages", ("pretrain", "eval"), "--stages=eval: must be one of .*did you mean evaluate"),
    ("stages", (), "--stages=: must name at least one of"),
    ("export_formats", ("tflight",), "--export_formats=tflight: must be one of .*tflite"),
    ("xd_pairs", "same", "--xd_pairs=same: must be one of"),
    ("xd_form", "log", "--xd_form=log: must be one of"),
    ("slim_execution", "x", "--slim_execution=x: must be one of slice, mask"),
    ("augment_on", "gpu", "--augment_on=gpu: must be one of auto, host, device"),
    ("data_service", "localhost:1", "--data_service=localhost:1: must be an address such as"),
    ("mixed_precision", "fp16", "--mixed_precision=fp16: must be one of"),
    ("seed", -1, "--seed=-1: must be at least 0"),
    ("keep_checkpoints", 0, "--keep_checkpoints=0: must be at least 1"),
    ("strategy", "mirror", "--strategy=mirror: must be one of .*did you mean mirrored"),
    ("replicas", 0, "--replicas=0: must be at least 1"),
    ("replicas", 3, "--batch_size=256: must be a multiple of the 3 replicas"),
    ("steps_per_execution", 0, "--steps_per_execution=0: must be at least 1"),
]


@pytest.mark.parametrize("name, value, text", BAD_SETTINGS)
def test_impossible_settings_are_refused(name, value, text):
    with pytest.raises(ConfigError, match=text):
        RunConfig(**{name: value}).validated()


def test_resume_and_overwrite_exclude_each_other():
    with pytest.raises(ConfigError, match="--overwrite=True: cannot be combined with --resume"):
        RunConfig(resume=True, overwrite=True).validated()


def call(capsys, *flags):
    """main() in this process: (exit code, what it said on stderr)."""
    import absl.flags

    holder = absl.flags.FlagValues()
    train.define_flags(holder)
    code = train.main(["train.py", *map(str, flags)], holder)
    error = capsys.readouterr().err
    assert "Traceback" not in error and len(error.strip().splitlines()) == 1, error
    return code, error


def test_bad_input_gets_one_line_and_exit_code_2(capsys, tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    (folder / "broken.jpg").write_bytes(b"no image")
    filled = tmp_path / "filled"
    filled.mkdir()
    (filled / "thesis.txt").write_text("mine")
    mixed = tmp_path / "mixed"
    mixed.mkdir()
    for side in (12, 14):
        Image.new("RGB", (side, 12), (side, 0, 0)).save(mixed / f"{side}.png")
    file = tmp_path / "file"
    file.write_text("")
    fresh = f"--run_dir={tmp_path / 'fresh'}"
    cases = {
        ("--encodr=resnet18",): "encodr",
        ("--width=wide",): "width",
        ("resnet18",): "Unknown argument 'resnet18'",
        ("--flagfile=missing.flags",): "missing.flags",
        ("--encoder=resnet19", fresh): "--encoder=resnet19: must be one of",
        ("--width=0", fresh): "--width=0",
        ("--batch_size=1", fresh): "--batch_size=1",
        ("--width=0.5", "--host_width=0.25", fresh): "--host_width=0.25: must be at least",
        (*SMALL, "--batch_size=5000", fresh): "--batch_size=5000: must be at most the 1442",
        (*SMALL, "--augmentation=cifar10", fresh): "--augmentation=cifar10: changes saturation",
        ("--dataset=no_such_set", fresh): "no_such_set",
        ("--dataset=cifar10", f"--data_dir={tmp_path}", fresh): "cifar10",
        (f"--dataset={folder}", fresh): str(folder),
        (f"--dataset=folder:{tmp_path}/none", fresh): "none",
        (f"--dataset={mixed}", "--train_split=all", "--cache_images", "--batch_size=2", fresh): (
            "--cache_images=True"
        ),
        (*SMALL, f"--run_dir={filled}"): "is not empty; add --resume or --overwrite",
        (*SMALL, f"--run_dir={filled}", "--overwrite"): "holds no run",
        (*SMALL, f"--run_dir={file}"): "is a file",
        (*SMALL, "--run_dir=/proc/none"): "cannot be written",
        (*SMALL, fresh, "--stages=export"): "has no encoder.keras",
    }
    for flags, text in cases.items():
        code, error = call(capsys, *flags)
        assert code == 2 and text in error, (flags, error)
    assert not (tmp_path / "fresh").exists()
    assert [p.name for p in filled.iterdir()] == ["thesis.txt"]


@pytest.mark.skipif(
    os.geteuid() == 0, reason="needs a user other than root, who may write everywhere"
)
def test_a_directory_without_write_permission_is_refused(capsys, tmp_path):
    tmp_path.chmod(0o500)
    code, error = call(capsys, *SMALL, f"--run_dir={tmp_path / 'run'}")
    assert code == 2 and "cannot be written" in error


def test_flags_file_reproduces_the_run():
    config = RunConfig(method="xd", width=0.5, export_preprocessing=True).validated()
    import absl.flags

    holder = absl.flags.FlagValues()
    train.define_flags(holder)
    assert train.read_config(["train.py", *config.flag_lines()], holder) == config


def test_every_flagfile_is_valid():
    import absl.flags

    files = sorted((ROOT / "flags").rglob("*.flags"))
    assert files
    for path in files:
        holder = absl.flags.FlagValues()
        train.define_flags(holder)
        train.read_config(["train.py", f"--flagfile={path}"], holder)


def test_a_whole_run(tmp_path):
    run_dir = tmp_path / "run"
    done = run(*SMALL, "--epochs=2", f"--run_dir={run_dir}", "--export_formats=keras,tflite,onnx")
    results = json.loads((run_dir / "results.json").read_text())
    assert {"knn_top1", "knn_top1_untrained", "linear_top1", "linear_top1_untrained"} <= set(
        results["evaluate"]
    )
    assert set(results["export"]) == {"encoder.keras", "encoder.tflite", "encoder.onnx"}
    for row in results["export"].values():
        assert {"bytes", "max_abs_diff", "cosine", "knn_top1", "latency_ms"} <= set(row)
        assert row["passed"]
    for name in ("flags.txt", "metrics.jsonl", "encoder.keras", "checkpoints", "tensorboard"):
        assert (run_dir / name).exists(), name
    assert "untrained" in done.stdout and "encoder.tflite" in done.stdout
    lines = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in lines] == [1, 2]
    # A second run over it is refused; a stage by itself is not.
    refused = run(*SMALL, "--epochs=2", f"--run_dir={run_dir}", expect=2)
    assert "is not empty" in refused.stderr and len(refused.stderr.splitlines()) == 1
    run(f"--flagfile={run_dir / 'flags.txt'}", "--stages=export", "--export_formats=tflite_fp16")
    results = json.loads((run_dir / "results.json").read_text())
    assert len(results["export"]) == 4
    # Nor is a resumption with other settings.
    changed = run(
        f"--flagfile={run_dir / 'flags.txt'}", "--resume", "--learning_rate=0.5", expect=2
    )
    assert "--learning_rate=0.5: the run in" in changed.stderr
    assert "has 0.002; start from --flagfile=" in changed.stderr
    # Nor is a later stage with them: the untrained encoder would be of another kind.
    refused = run(f"--run_dir={run_dir}", "--stages=evaluate", expect=2)
    assert "start from --flagfile=" in refused.stderr


def test_a_killed_run_ends_as_if_it_had_not_been_killed(tmp_path):
    flags = [*SMALL, "--epochs=4", "--stages=pretrain", "--method=sacl_xd"]
    run(*flags, f"--run_dir={tmp_path / 'whole'}")
    killed = tmp_path / "killed"
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "train.py"), *flags, f"--run_dir={killed}"],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    deadline = time.monotonic() + 200
    while not list(killed.glob("checkpoints/step-*.npz")) and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert list(killed.glob("checkpoints/step-*.npz"))
    done = run(*flags, f"--run_dir={killed}", "--resume")
    assert "resuming after epoch" in done.stdout

    def epochs(path):
        lines = [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
        return [(line["epoch"], line["step"], line["loss"], line["knn_top1"]) for line in lines]

    assert epochs(killed) == epochs(tmp_path / "whole")


def test_a_corrupt_image_is_skipped_and_counted(tmp_path):
    photos = tmp_path / "photos"
    rng = np.random.default_rng(0)
    for label in ("cat", "dog"):
        (photos / label).mkdir(parents=True)
        for i in range(30):
            pixels = rng.integers(0, 255, (12, 12, 3), dtype="uint8")
            Image.fromarray(pixels).save(photos / label / f"{i}.png")
    (photos / "cat" / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 cut short")
    done = run(
        *SMALL, f"--dataset={photos}", "--augmentation=cifar10", "--batch_size=8", "--epochs=1",
        "--stages=pretrain", "--cache_images", f"--run_dir={tmp_path / 'run'}",
    )  # fmt: skip
    assert "skipped 1 files" in done.stdout and "broken.jpg" in done.stdout
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert len(results["pretrain"]["skipped_images"]) == 1
