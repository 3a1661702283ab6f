"""Runs that end early or are taken up again."""

import dataclasses

import keras
import numpy as np
import pytest

from keras_sacl.callbacks import read_metrics
from keras_sacl.config import ConfigError, RunConfig
from tests.stages.small_runs import SMALL, run


@pytest.mark.long
def test_a_run_that_ends_early_goes_on_as_one_that_did_not(tmp_path):
    settings = {
        **SMALL,
        "method": "sacl_xd",
        "epochs": 3,
        "warmup_epochs": 0,
        "slim_alone_epochs": 1,
        "dataset": "digits",
        "train_split": "train[:64]",
        "knn_every": 0,
        "views_every": 0,
    }

    def part(name, *stages, **more):
        names = ("pretrain", *stages)
        config = RunConfig(**settings, **more, stages=names, run_dir=str(tmp_path / name))
        return run(config.validated())

    cut, said = part("cut", "report", stop_epoch=2)
    ended = "ended after epoch 2 of 3, as --stop_epoch says; --resume with a later one goes on"
    assert ended in said
    assert cut.results()["pretrain"]["epochs"] == 2
    assert cut.results()["pretrain"]["steps"] == 4
    # Of what there is by then: two networks that learn from one another.
    report = cut.report.read_text(encoding="utf-8")
    assert "host: z_A, z_B" in report and "mean of the run" not in report

    cut, said = part("cut", resume=True)
    assert "resuming after step 4 of 6" in said
    assert not any("--stop_epoch" in line for line in said)
    whole, _ = part("whole")
    assert [line["epoch"] for line in read_metrics(cut.metrics)] == [1, 2, 3]
    weights = [run_dir.load_encoder().get_weights() for run_dir in (cut, whole)]
    for a, b in zip(*weights, strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_run_goes_on_with_the_teacher_that_it_began_with(tmp_path):
    files = []
    for features in (4, 6):
        teacher = keras.Sequential(
            [keras.Input((8, 8, 3)), keras.layers.Flatten(), keras.layers.Dense(features)]
        )
        files.append(str(tmp_path / f"{features}.keras"))
        teacher.save(files[-1])
    settings = {**SMALL, "method": "distill", "distill": ("reg",), "stages": ("pretrain",)}
    config = RunConfig(
        **settings, train_split="train[:64]", teacher=files[0], run_dir=str(tmp_path / "run")
    ).validated()
    run(config)
    other = dataclasses.replace(config, teacher=files[1], resume=True)
    with pytest.raises(ConfigError, match="6.keras: is another one than that which the run began"):
        run(other)
