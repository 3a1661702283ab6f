"""docs/messages.md, row by row."""

import pathlib
import re

import absl.flags
import keras
import pytest
from PIL import Image

import train
from keras_sacl.config import RunConfig

ROOT = pathlib.Path(__file__).parents[1]
SMALL = (
    "--dataset=digits --augmentation=digits --encoder=resnet20_cifar --width=0.5 --image_size=8 "
    "--projector=32-32 --batch_size=64"
).split()


def rows(heading):
    """(flags, message, code) of each row of the table under a heading."""
    text = (ROOT / "docs" / "messages.md").read_text(encoding="utf-8")
    section = text.split(f"## {heading}\n")[1].split("\n## ")[0]
    found = re.findall(r"^\| `(.+?)` \| `(.+)` \| (\d+) \|$", section, re.MULTILINE)
    return [(flags, message, int(code)) for flags, message, code in found]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """What the table calls TMP."""
    tmp = tmp_path_factory.mktemp("messages")
    names = "broken mixed filled old older other other_encoder cut garbled dense across ended queue"
    for name in names.split():
        (tmp / name).mkdir()
    (tmp / "broken" / "a.jpg").write_bytes(b"no image")
    for side in (12, 14):
        Image.new("RGB", (side, 12), (side, 0, 0)).save(tmp / "mixed" / f"{side}.png")
    for name, classes, last in (
        ("teacher", 10, "linear"),
        ("softmax", 10, "softmax"),
        ("seven", 7, "linear"),
    ):
        layers = [keras.layers.Flatten(), keras.layers.Dense(classes, activation=last)]
        keras.Sequential([keras.Input((8, 8, 3)), *layers]).save(tmp / f"{name}.keras")
    (tmp / "other_encoder" / "encoder.keras").write_bytes((tmp / "seven.keras").read_bytes())
    (tmp / "filled" / "thesis.txt").write_text("mine")
    (tmp / "file").write_text("")
    (tmp / "utf16.flags").write_text("--method=xd", encoding="utf-16")
    (tmp / "old" / "flags.txt").write_text("--export_preprocessing\n")
    flags = "\n".join(config("--learning_rate=0.5").flag_lines())
    (tmp / "other" / "flags.txt").write_text(flags)
    (tmp / "other" / "metrics.jsonl").write_text('{"epoch": 4}\n{"epoch": 5}\n')
    (tmp / "queue" / "flags.txt").write_text("\n".join(config("--method=moco_v2").flag_lines()))
    same = "\n".join(config().flag_lines())
    for name, setting, more in (
        ("dense", "slim_start_epoch", ["--sacl_contrast=across"]),
        ("across", "sacl_contrast", []),
        ("ended", "slim_alone_epochs", []),
        ("older", "sacl_contrast slim_start_epoch slim_alone_epochs", []),
    ):
        lines = config(*more).flag_lines()
        without = [line for line in lines if not any(name in line for name in setting.split())]
        (tmp / name / "flags.txt").write_text("\n".join(without))
    for name in ("cut", "garbled"):
        (tmp / name / "flags.txt").write_text(same)
        for ending in ("keras", "tflite", "onnx"):
            (tmp / name / f"encoder.{ending}").write_bytes(b"PK\x03\x04 cut short")
    (tmp / "garbled" / "results.json").write_text('{"pretrain": ')
    return tmp


def config(*more):
    holder = absl.flags.FlagValues()
    train.define_flags(holder)
    found = train.read_config(["train.py", *SMALL, *more], holder)
    assert isinstance(found, RunConfig)
    return found


def contents(folder):
    return {p: p.read_bytes() if p.is_file() else None for p in folder.rglob("*")}


def test_there_are_enough():
    assert len(rows("Flags")) + len(rows("Data and directories")) >= 50


@pytest.mark.parametrize(
    "flags, message, code", rows("Flags") + rows("Data and directories"), ids=lambda x: str(x)[:60]
)
def test_is_refused_in_one_line(flags, message, code, folder, capsys):
    before = contents(folder)
    tmp = str(folder)
    given = [flag.replace("TMP", tmp) for flag in flags.split()]
    if not any(flag.startswith("--run_dir") for flag in given):
        given.insert(0, f"--run_dir={tmp}/new")
    holder = absl.flags.FlagValues()
    train.define_flags(holder)
    assert train.main(["train.py", *SMALL, *given], holder) == code
    error = capsys.readouterr().err.strip()
    assert len(error.splitlines()) == 1 and "Traceback" not in error, error
    pattern = ".*".join(map(re.escape, message.replace("TMP", tmp).split("…")))
    assert re.fullmatch(f"train.py: {pattern}", error), error
    assert contents(folder) == before
