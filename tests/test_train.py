"""train.py from the outside: a whole run, and what a second one over it may do."""

import json
import os
import pathlib
import subprocess
import sys

import pytest

import train
from keras_sacl.config import RunConfig

ROOT = pathlib.Path(__file__).parents[1]
SMALL = (
    "--dataset=digits --augmentation=digits --encoder=resnet20_cifar --width=0.5 --image_size=8 "
    "--projector=32-32 --batch_size=64 --optimizer=adamw --knn_every=1"
).split()


def run(*flags):
    done = subprocess.run(
        [sys.executable, str(ROOT / "train.py"), *map(str, flags)],
        capture_output=True, text=True, cwd=ROOT, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done


def call(capsys, *flags):
    """main() in this process: (exit code, what it said on stderr)."""
    import absl.flags

    holder = absl.flags.FlagValues()
    train.define_flags(holder)
    code = train.main(["train.py", *map(str, flags)], holder)
    error = capsys.readouterr().err
    assert "Traceback" not in error and len(error.strip().splitlines()) == 1, error
    return code, error


@pytest.mark.skipif(
    os.geteuid() == 0, reason="needs a user other than root, who may write everywhere"
)
def test_a_directory_without_write_permission_is_refused(capsys, tmp_path):
    tmp_path.chmod(0o500)
    code, error = call(capsys, *SMALL, f"--run_dir={tmp_path / 'run'}")
    assert code == 2 and "cannot be written" in error


def test_flags_file_reproduces_the_run():
    config = RunConfig(method="xd", width=0.5, export_input="pixels").validated()
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


def test_a_whole_run(capsys, tmp_path):
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
    code, error = call(capsys, *SMALL, "--epochs=2", f"--run_dir={run_dir}")
    assert code == 2 and "is not empty" in error
    run(f"--flagfile={run_dir / 'flags.txt'}", "--stages=export", "--export_formats=tflite_fp16")
    results = json.loads((run_dir / "results.json").read_text())
    assert len(results["export"]) == 4
    # Nor is a resumption with other settings.
    flagfile = f"--flagfile={run_dir / 'flags.txt'}"
    code, error = call(capsys, flagfile, "--resume", "--learning_rate=0.5")
    assert code == 2 and "--learning_rate=0.5: the run in" in error
    assert "has 0.002; start from --flagfile=" in error
    # Nor is a later stage with them: the untrained encoder would be of another kind.
    code, error = call(capsys, f"--run_dir={run_dir}", "--stages=evaluate")
    assert code == 2 and "start from --flagfile=" in error
