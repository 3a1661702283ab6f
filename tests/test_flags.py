"""The flagfiles: every one is read, and builds what it says."""

import dataclasses
import functools
from pathlib import Path

import absl.flags
import keras
import numpy as np
import pytest

import train
from keras_sacl.stages import build, distilling, dry_run

ROOT = Path(__file__).parents[1]
FLAGFILES = sorted(path.relative_to(ROOT) for path in (ROOT / "flags").rglob("*.flags"))
RECIPES = [path for path in FLAGFILES if not path.name.startswith("base")]
# What makes no difference to a dry run.
_IDLE = (
    "run_dir", "stages", "seed", "train_split", "test_split", "dataset", "epochs", "learning_rate",
    "weight_decay", "lars_trust", "batch_size", "warmup_epochs", "drop_epochs", "drop_factor",
    "schedule", "slim_start_epoch", "slim_alone_epochs", "stop_epoch", "init_from", "queue_size",
    "distill_queue_size", "distill_clusters", "eval_protocols", "knn_every", "temperature",
    "distill_temperature",
)  # fmt: skip


def config_of(path, *more):
    holder = absl.flags.FlagValues()
    train.define_flags(holder)
    return train.read_config(["train.py", f"--flagfile={ROOT / path}", *more], holder)


@functools.cache
def kept(build):
    @functools.lru_cache(maxsize=4)
    def built(policy, args, settings):
        return build(*args, **dict(settings))

    return lambda *args, **settings: built(
        keras.config.dtype_policy().name, args, tuple(settings.items())
    )


@functools.cache
def ran(config):
    return dry_run(config, say=lambda line: None)


@pytest.fixture(autouse=True)
def at_the_root(monkeypatch):
    monkeypatch.chdir(ROOT)  # flagfiles name others from there


def test_there_are_recipes_of_every_paper():
    assert {path.parts[1] for path in RECIPES} >= {"sacl", "disco", "ssl_small", "compress"}


@pytest.mark.parametrize("path", RECIPES, ids=str)
def test_is_read(path):
    config = config_of(path)
    assert path.name.removesuffix(".flags") in config.run_dir, "two recipes in one run directory"
    first = (ROOT / path).read_text(encoding="utf-8").splitlines()[0]
    assert first.startswith("# "), "no word on what it is"
    assert f"--flagfile={path.as_posix()}" in (ROOT / path).read_text(encoding="utf-8")


@pytest.mark.slow
@pytest.mark.parametrize("path", RECIPES, ids=str)
def test_runs_dry(path, monkeypatch):
    # Most of the time goes into building networks; the same one serves many rows.
    for module, name in ((distilling, "build_encoder"), (build, "build_encoder")):
        monkeypatch.setattr(module, name, kept(getattr(module, name)))
    config = config_of(path, "--strategy=one_device")
    defaults = {f.name: f.default for f in dataclasses.fields(config)}
    idle = {name: defaults[name] for name in _IDLE}
    # Recipes that differ in nothing that is built share their run.
    key = dataclasses.replace(config, **idle, teacher=config.teacher and "FILE")
    logs = ran(dataclasses.replace(key.validated(), projector=config.projector))
    assert np.isfinite(list(logs.values())).all()
