"""The sweep: what it runs, what it leaves, and its table by hand."""

import json
from pathlib import Path

import pytest

from benchmarks import sweep
from keras_sacl.costs import measure


def make_run(folder, knn, seconds, ended=True):
    folder.mkdir(parents=True)
    (folder / "flags.txt").write_text("--seed=0\n")
    lines = [json.dumps({"epoch": i, "seconds": s}) for i, s in enumerate(seconds)]
    (folder / "metrics.jsonl").write_text("\n".join(lines))
    result = (
        {"evaluate": {"nn_top1": knn, "nn_top1_untrained": 0.1, "nn_protocol": "x", "num_test": 9}}
        if ended
        else {}
    )
    (folder / "results.json").write_text(json.dumps(result))
    return folder


@pytest.fixture
def calls(monkeypatch):
    """The commands that would have been run."""
    found = []

    class Done:
        returncode = 0

    monkeypatch.setattr(sweep.subprocess, "run", lambda command, **_: found.append(command) or Done)
    return found


def test_a_run_that_has_ended_is_not_run_again(tmp_path, calls):
    make_run(tmp_path / "a", 0.5, [1])
    assert sweep.run("a.flags", tmp_path / "a", 0, []) and not calls


def test_a_run_that_was_cut_goes_on_and_a_new_one_begins(tmp_path, calls):
    make_run(tmp_path / "a", 0.5, [1], ended=False)
    sweep.run("a.flags", tmp_path / "a", 3, ["--data_dir=X"])
    sweep.run("a.flags", tmp_path / "b", 3, [])
    cut, new = calls
    assert "--resume" in cut and "--data_dir=X" in cut and "--seed=3" in cut
    assert "--resume" not in new and f"--run_dir={tmp_path / 'b'}" in new


def test_the_table_by_hand(tmp_path):
    runs = [make_run(tmp_path / f"{i}", knn, [9, 2, 3]) for i, knn in enumerate((0.4, 0.6))]
    rows = [
        {"name": "one", "seeds": 1, "runs": [sweep.results(runs[0])]},
        {"name": "two", "seeds": 2, "runs": [sweep.results(run) for run in runs]},
    ]
    assert sweep.table(rows).splitlines() == [
        "| flagfile | nn_top1 | nn_top1_untrained | seconds_per_epoch | seeds |",
        "|---|---|---|---|---|",
        "| one | 0.400 | 0.100 | 2.5 | 1 |",
        "| two | 0.500 ± 0.141 | 0.100 ± 0.000 | 2.5 ± 0.000 | 2 |",
    ]


def test_epochs_that_a_monitor_watched_are_not_timed(tmp_path):
    run_dir = make_run(tmp_path / "a", 0.5, [2, 9, 4, 9])
    lines = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    for line in lines[1::2]:
        line["knn_top1"] = 0.1
    (run_dir / "metrics.jsonl").write_text("\n".join(map(json.dumps, lines)))
    assert sweep.results(run_dir)["seconds_per_epoch"] == 4  # nor the first, with its graph


def test_epochs_of_other_networks_are_timed_apart(tmp_path):
    run_dir = make_run(tmp_path / "a", 0.5, [2, 9, 3, 9, 5, 5])
    lines = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    lines[1]["knn_top1"], lines[3]["knn_top1"] = 0.1, 0.2
    (run_dir / "metrics.jsonl").write_text("\n".join(map(json.dumps, lines)))
    text = "--method=sacl\n--epochs=6\n--slim_start_epoch=3\n"
    (run_dir / "flags.txt").write_text(text)
    found = sweep.results(run_dir)
    assert found["curve"] == [(1, 6.0, 0.1), (3, 14.0, 0.2)]  # 3 and 5 seconds an epoch
    assert found["seconds_per_epoch"] == 4
    (run_dir / "flags.txt").write_text(f"{text}--slim_alone_epochs=2\n")
    assert sweep.results(run_dir)["seconds_per_epoch"] == (3 * 3 + 9 + 2 * 5) / 6


def test_a_missing_flagfile_and_a_bad_seed_are_named(monkeypatch, capsys, tmp_path):
    for arguments, text in (
        (["none.flags", f"--runs={tmp_path}"], "no such file: none.flags"),
        (["flags/quickstart.flags", f"--runs={tmp_path}", "--seeds=a"], "--seeds=a: must be"),
    ):
        monkeypatch.setattr(sweep.sys, "argv", ["sweep", *arguments])
        with pytest.raises(SystemExit) as stopped:
            sweep.main()
        assert stopped.value.code == 2 and text in capsys.readouterr().err


def test_two_flagfiles_of_one_name_are_two_runs():
    paths = (Path("flags/a/x.flags"), Path("/home/me/flags/b/x.flags"), Path("mine.flags"))
    assert [sweep.name_of(path) for path in paths] == ["a/x", "b/x", "mine"]


def test_other_flags_go_to_every_run_and_seeds_take_turns(monkeypatch, calls, tmp_path):
    files = ["flags/quickstart.flags", "flags/cifar10_cpu.flags"]
    flags = [*files, f"--runs={tmp_path}", "--data_dir=X", "--seeds=0,1"]
    monkeypatch.setattr(sweep.sys, "argv", ["sweep", *flags])
    with pytest.raises(SystemExit):
        sweep.main()
    assert all("--data_dir=X" in command for command in calls)
    order = [(command[2].split("=")[1], command[4]) for command in calls]
    assert order == [(file, f"--seed={seed}") for seed in (0, 1) for file in files]


def test_a_row_holds_what_its_training_costs(tmp_path):
    run_dir = make_run(tmp_path / "a", 0.5, [1])
    text = "--encoder=mobilenet_v1\n--width=0.25\n--image_size=32\n--method=barlow_twins\n"
    text += "--batch_size=100\n--epochs=3\n--projector=64-64\n"
    (run_dir / "flags.txt").write_text(text)
    (run_dir / "results.json").write_text(json.dumps({"pretrain": {"images": 1050}}))
    encoder = measure("mobilenet_v1", 0.25, 32)
    heads = 2 * (encoder.features * 64 + 64 * 64)
    # Forward and backward are three forward passes; of two views; the loss is little beside them.
    least = 3 * 2 * (encoder.flops + heads) * 1000 * 3 / 1e12
    assert least <= sweep.costs(run_dir)["teraflops"] < 1.1 * least

    with_teacher = f"{text}--distill=seed\n--teacher={tmp_path / 'gone.keras'}\n"
    for other in (with_teacher, f"{text}--no_such_setting=1\n"):
        (run_dir / "flags.txt").write_text(other)
        assert sweep.costs(run_dir) == {}


def test_an_earlier_run_of_the_same_settings_is_not_run_again(monkeypatch, calls, tmp_path):
    """Not where its flagfile says other settings today, or another seed is wanted."""
    one, two = (tmp_path / f"{name}.flags" for name in ("one", "two"))
    one.write_text("--method=sacl\n--epochs=3\n")
    two.write_text("--method=sacl\n--epochs=4\n")
    lines = ["--method=sacl", "--epochs=3", "--seed=0", "--knn_every=2", "--batch_size=99"]
    lines += ["--slim_start_epoch=1"]
    run = {"seed": 0, "settings": lines, "knn_top1": 0.5}
    rows = [{"name": path.stem, "runs": [run]} for path in (one, two)]
    earlier, found = tmp_path / "earlier.json", tmp_path / "found.json"

    def again(flags, rows):
        calls.clear()
        earlier.write_text(json.dumps({"rows": rows}))
        where = [f"--earlier={earlier}", f"--json={found}", f"--runs={tmp_path / 'runs'}"]
        monkeypatch.setattr(sweep.sys, "argv", ["sweep", str(one), str(two), *where, *flags])
        with pytest.raises(SystemExit):
            sweep.main()
        return [command[2] for command in calls]

    flags = ["--batch_size=99", "--knn_every=2", f"--data_dir={tmp_path}"]
    assert again(flags, rows) == [f"--flagfile={two}"]  # 4 epochs are not 3
    assert json.loads(found.read_text())[0]["runs"] == [run]
    for more in ("--eval_protocols=nn", "--knn_every=3", "--width=-1"):
        assert again([*flags, more], rows) == [f"--flagfile={f}" for f in (one, two)]
    assert len(again([*flags, "--seeds=0,1"], rows)) == 3
    for settings in (["--no_such_setting=1"], lines[:-1]):  # without it a run slimmed at once
        run["settings"] = settings
        assert len(again(flags, rows)) == 2
    run |= {"settings": lines, "curve": [(2, 0.1)]}  # of a version that did not time it
    assert len(again(flags, rows)) == 2


def test_a_directory_of_other_settings_is_not_taken_for_the_recipe(
    monkeypatch, calls, tmp_path, capsys
):
    (tmp_path / "one.flags").write_text("--epochs=3\n")
    run_dir = make_run(tmp_path / "one" / "seed0", 0.5, [1, 1, 1])
    (run_dir / "flags.txt").write_text("--epochs=4\n--slim_start_epoch=1\n")
    arguments = ["sweep", str(tmp_path / "one.flags"), f"--runs={tmp_path}"]
    monkeypatch.setattr(sweep.sys, "argv", arguments)
    with pytest.raises(SystemExit) as stopped:
        sweep.main()
    assert stopped.value.code == 1 and not calls
    assert f"{run_dir}: ended with other settings" in capsys.readouterr().out


def test_a_file_that_holds_no_sweep_is_named(tmp_path):
    (tmp_path / "earlier.json").write_text("[1]")
    with pytest.raises(SystemExit, match=r"--earlier=.*: is no file that --json wrote"):
        sweep.read_earlier(tmp_path / "earlier.json")
