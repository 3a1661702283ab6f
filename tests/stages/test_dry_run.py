"""Dry runs: real sizes, made-up images, nothing written."""

import absl.flags
import numpy as np

import train
from keras_sacl.config import RunConfig
from keras_sacl.stages import dry_run

TINY = {
    "encoder": "resnet20_cifar", "width": 0.5, "image_size": 16, "dataset": "no_such_data",
    "augmentation": "moco_v2", "projector": "32-16",
}  # fmt: skip


def test_needs_neither_data_nor_the_teachers_file():
    said = []
    config = RunConfig(
        method="moco_v2", distill=("disco:1.0", "at:0.5"), teacher="none.pth.tar",
        teacher_encoder="resnet20_cifar", teacher_width=0.25, teacher_projector="24-16", **TINY,
    ).validated()  # fmt: skip
    logs = dry_run(config, say=said.append)
    assert {"info_nce", "disco", "at", "loss"} <= logs.keys()
    assert np.isfinite(list(logs.values())).all()
    expected = logs["info_nce"] + logs["disco"] + 0.5 * logs["at"]
    # sgd and lars scale the loss; adamw, the default, does not.
    np.testing.assert_allclose(logs["loss"], expected, rtol=1e-5)
    assert len(said) == 1 and "moco_v2" in said[0]


def test_small_views_and_cached_rows_are_made_up_too():
    config = RunConfig(
        method="swav", small_views=2, prototypes=8, distill=("reg:1",), teacher="none.keras",
        teacher_encoder="resnet20_cifar", cache_teacher=True, **TINY,
    ).validated()  # fmt: skip
    logs = dry_run(config, say=lambda line: None)
    assert np.isfinite(logs["swav"]) and np.isfinite(logs["reg"])


def test_the_command_writes_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    holder = absl.flags.FlagValues()
    train.define_flags(holder)
    flags = [f"--{name}={value}" for name, value in TINY.items()]
    assert train.main(["train.py", "--dry_run", "--method=xd", *flags], holder) == 0
    assert "dry run: xd" in capsys.readouterr().out
    assert not list(tmp_path.iterdir())
