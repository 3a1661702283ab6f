"""The comparison of recipes: differences, deviations and curves by hand."""

import pytest

from benchmarks import quality


def make_row(name, knn, linear=None):
    runs = [{"seed": seed, "knn_top1": value} for seed, value in enumerate(knn)]
    for run, value in zip(runs, linear or [], strict=False):
        run["linear_top1"] = value
    return {"name": name, "seeds": len(runs), "runs": runs}


def test_differences_are_of_the_same_seed():
    row, reference = make_row("q/xd", [0.44, 0.42, 0.43, 0.9]), make_row("q/bt", [0.40, 0.39, 0.41])
    found = quality.compare(row, reference)
    assert found["seeds"] == [0, 1, 2] and "linear_top1" not in found
    assert found["knn_top1"]["differences"] == pytest.approx([0.04, 0.03, 0.02])
    assert found["knn_top1"]["mean"] == pytest.approx(0.03)
    assert found["knn_top1"]["beyond"]  # deviations: 0.01 of each and of the differences


@pytest.mark.parametrize(
    "knn",
    [
        [0.43, 0.43, 0.41],  # 0.0233 above, with deviations of 0.0115, 0.01 and 0.0208
        [0.48, 0.39, 0.42],  # 0.03 above, with a deviation of 0.046 of its own
        [0.44, 0.37, 0.48],  # 0.03 above, with a deviation of 0.046 of the differences
    ],
)
def test_beyond_is_more_than_every_deviation(knn):
    found = quality.compare(make_row("a", knn), make_row("b", [0.40, 0.39, 0.41]))
    assert found["knn_top1"]["beyond"] == (knn[0] == 0.43)


def test_one_seed_has_no_deviation():
    found = quality.compare(make_row("a", [0.5]), make_row("b", [0.4]))
    assert found["knn_top1"]["beyond"] is None


def test_the_table_by_hand():
    row = make_row("q/xd", [0.44, 0.42], [0.5, 0.4])
    pair = quality.compare(row, make_row("q/bt", [0.40, 0.39], [0.4, 0.5]))
    assert quality.pairs_table([pair], "bt").splitlines()[2] == (
        "| q/xd | +0.035\\* | +0.040, +0.030 | +0.000 | +0.100, -0.100 |"
    )


def test_curves_are_means_of_epochs_that_all_runs_saw(tmp_path):
    curves = [(2, 60, 0.2), (4, 120, 0.4)], [(2, 120, 0.4), (4, 300, 0.6), (5, 400, 0.7)]
    epochs, minutes, accuracies = quality.mean_curve([{"curve": curve} for curve in curves])
    assert epochs == [2, 4]
    assert minutes == pytest.approx([1.5, 3.5])
    assert accuracies == pytest.approx([0.3, 0.5])

    curve = tmp_path / "curve.png"
    quality.plot_curves({"a": (epochs, minutes, accuracies), "b": ([], [], [])}, curve)
    assert curve.read_bytes().startswith(b"\x89PNG")


def test_bad_arguments_are_named(monkeypatch, capsys, tmp_path):
    for arguments, text in (
        (["--grid", "none.flags"], "no such file: none.flags"),
        (["--grid", "flags/quality/base.flags"], "--grid: names no recipe"),
        (["--grid", "flags/quickstart.flags", "--seeds=0"], "--seeds=0: must be"),
        (["--grid", "flags/quickstart.flags", "--reference=xd"], "--reference=xd: must be one of"),
    ):
        monkeypatch.setattr("sys.argv", ["quality", *arguments, f"--runs={tmp_path}"])
        with pytest.raises(SystemExit) as stopped:
            quality.main()
        assert stopped.value.code == 2 and text in capsys.readouterr().err
