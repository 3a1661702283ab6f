"""The race itself: turns, medians, missing libraries, failures, ratios."""

import json
import time

import pytest

from benchmarks.race import Contender, Measurement, race
from benchmarks.report import Report


def sleeper(seconds):
    return lambda: time.sleep(seconds)


def its_own_clock(seconds):
    return lambda: seconds


def missing():
    raise ImportError("no such library")


def failing():
    raise ValueError("out of tune")


def test_contenders_take_turns_and_are_timed(capsys):
    found = race(
        [
            Contender("short", sleeper, {"seconds": 0.01}),
            Contender("long", sleeper, {"seconds": 0.05}),
            Contender("own", its_own_clock, {"seconds": 123.0}),
            Contender("missing", missing),
        ],
        repeats=3,
    )
    assert list(found) == ["short", "long", "own"]
    assert "missing: left out (no such library)" in capsys.readouterr().out
    assert 0.01 <= found["short"].median < found["long"].median
    assert found["own"].seconds == (123.0,) * 3
    assert all(m.peak_bytes is None or m.peak_bytes >= 0 for m in found.values())


def test_a_failure_is_told():
    with pytest.raises(RuntimeError, match="(?s)odd failed:.*out of tune"):
        race([Contender("odd", failing)])


def test_ratios_above_1_are_ours(tmp_path, capsys):
    report = Report("made up")
    measurements = {
        "ours": Measurement((2.0, 1.0, 9.0), 2**20),
        "theirs": Measurement((6.0, 4.0, 4.0), 3 * 2**20),
    }
    report.times("case", measurements, "ours", units=10, unit="images/s")
    report.memory("case", measurements, "ours")
    report.write(tmp_path / "rows.json")
    speed, memory = json.loads((tmp_path / "rows.json").read_text())
    assert speed == {
        "case": "case", "ours": 5.0, "peer": 2.5, "peer_name": "theirs", "unit": "images/s",
        "ratio": 2.0,
    }  # fmt: skip
    assert (memory["ours"], memory["peer"], memory["unit"], memory["ratio"]) == (1, 3, "MiB", 3)
    assert "theirs" in capsys.readouterr().out
