"""The examples of a method and of an objective of one's own, run as a user runs them."""

import subprocess
import sys
from pathlib import Path

import pytest

from keras_sacl.encoders import build_encoder

ROOT = Path(__file__).parents[2]


def run(*command):
    done = subprocess.run(
        [sys.executable, *map(str, command)], cwd=ROOT, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


@pytest.mark.slow
def test_a_method_of_ones_own():
    assert "invariance" in run("-m", "examples.own_method")


@pytest.mark.slow
def test_an_objective_of_ones_own(tmp_path):
    build_encoder("resnet20_cifar", width=0.5, image_size=16).save(tmp_path / "teacher.keras")
    assert "cka" in run("-m", "examples.own_objective", tmp_path / "teacher.keras")


@pytest.mark.parametrize("name", ["own_method.py", "own_objective.py"])
def test_each_is_short(name):
    assert len((ROOT / "examples" / name).read_text(encoding="utf-8").splitlines()) < 40
