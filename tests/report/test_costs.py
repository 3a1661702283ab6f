"""The tables of costs, and the command that prints them."""

import dataclasses
import re

import pytest

from keras_sacl.costs import METHODS, PUBLISHED, Network, training_cost
from keras_sacl.report import costs
from tests.costs.test_flops import MULTIPLY_ADDS

SMALL = (
    "--encoders=resnet20_cifar --claim_encoder=resnet20_cifar --teacher=resnet18 --width=0.5 "
    "--image_size=32 --images=50000"
).split()


@pytest.fixture(scope="module")
def data():
    name = "resnet20_cifar"
    return costs.collect(
        costs.Settings(
            encoders=(name,), claim_encoder=name, teacher="resnet18", width=0.5, image_size=32,
            images=50_000, batch_size=64, projector=(64, 32), cached_teacher=True,
        )
    )  # fmt: skip


def test_data_are_those_of_training_cost(data):
    networks = [network for network, _ in data["networks"]]
    assert [(n.name, n.width) for n in networks] == [
        ("resnet20_cifar", 0.5), ("resnet20_cifar", 0.75), ("resnet18", 1.0),
    ]  # fmt: skip
    slim, host, teacher = networks
    found = {cost.method: cost for cost in data["costs"]}
    assert list(found) == list(PUBLISHED)
    common = {"host": host, "teacher": teacher, "images": 50_000, "batch_size": 64}
    assert found["sacl_xd"] == training_cost("sacl_xd", slim, projector=(64, 32), **common)
    assert found["disco"] == training_cost("disco", slim, **common)
    assert found["compress"] == training_cost("compress", slim, cached_teacher=True, **common)
    for comparison, encoders_only in data["comparisons"]:
        assert comparison.own.encoder == "resnet20_cifar"
        assert (comparison.own.parts["loss"] == 0) == encoders_only


def test_the_tables_show_the_data(data):
    text = costs.markdown(data)
    rows = [line.strip("| ").split(" | ") for line in text.splitlines() if line[:1] == "|"]
    cost = next(c for c in data["costs"] if c.method == "seed")
    row = next(r for r in rows if r[1] == "seed")
    assert float(row[7]) == pytest.approx(cost.per_image / 1e9, rel=0.01)
    assert float(row[8]) == pytest.approx(cost.per_step / 1e12, rel=0.01)
    assert float(row[11]) == pytest.approx(cost.per_run / 1e18, rel=0.01)
    assert float(row[13]) == pytest.approx(cost.per_run_with_teacher / 1e18, rel=0.01)
    comparison = data["comparisons"][0][0]
    claim = next(r for r in rows if r[0] == "xd, 100 epochs")
    assert claim[3:7] == [f"{comparison.ratio(e):.1f}x" for e in costs.TEACHER_EPOCHS]
    for name in PUBLISHED:
        assert re.search(f"^- .*`{name}`.*: {METHODS[name].source[:20]}", text, re.MULTILINE)
    tables = text.split("\n## ")
    assert len(tables) == 3
    for table in tables:  # every row as long as its header
        lengths = {line.count("|") for line in table.splitlines() if line[:1] == "|"}
        assert len(lengths) == 1


def test_published_numbers():
    # Here with the classifier (at most 4.1 M), there without.
    assert costs.PUBLISHED_MMACS.keys() == MULTIPLY_ADDS.keys()
    for name, less in MULTIPLY_ADDS.items():
        assert 0 < costs.PUBLISHED_MMACS[name] - less < 4.2
    network = Network("resnet50", 1.0, 224, 2048, 8)
    assert costs.published_macs(network) == 4089e6
    for change in ({"width": 1.5}, {"image_size": 96}, {"name": "resnet20_cifar"}):
        assert costs.published_macs(dataclasses.replace(network, **change)) is None


def test_the_command_prints(capsys):
    assert costs.main([*SMALL, "--methods=xd,seed", "--epochs=7"]) == 0
    printed = capsys.readouterr()
    assert printed.out.startswith("## Encoders") and not printed.err
    rows = [line for line in printed.out.splitlines() if line.startswith("| resnet20_cifar | ")]
    # One encoder without a host, for no method here has one; two methods.
    assert len(rows) == 3 and rows[1].split(" | ")[10] == "7"


@pytest.mark.parametrize(
    "flag, text",
    [
        ("--encoders=resnet51", "`encoders` must be of .*resnet50.*encoders='resnet51'"),
        ("--encoders=", "`encoders` must name at least one"),
        ("--methods=byol", "`methods` must be of .*sacl_xd.*methods='byol'"),
        ("--teacher=vit", "`teacher` must be of .*teacher='vit'"),
        ("--claim_encoder=vit", "`claim_encoder` must be of "),
        ("--width=0", "`width` must be at least 0.01 and at most 16. Received: width=0.0"),
        ("--host_width=0.25", "`host_width` must be at least 0.5 .*host_width=0.25"),
        ("--host_width=nan", "`host_width` must be at least 0.5 .*host_width=nan"),
        ("--image_size=4", "`image_size` must be at least 8 .*image_size=4"),
        ("--epochs=0", "`epochs` must be at least 1. Received: epochs=0"),
        ("--images=0", "`images` must be at least 1"),
        ("--batch_size=1", "`batch_size` must be at least 2"),
        ("--teacher_epochs=-1", "`teacher_epochs` must be at least 0"),
        ("--projector=a", "`projector` must be layer widths .*projector='a'"),
    ],
)
def test_bad_input_is_one_line(flag, text, capsys):
    assert costs.main([*SMALL, flag]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and lines[0].startswith("costs: ")
    assert re.search(text, lines[0]), lines[0]


@pytest.mark.parametrize("flag", ["--images=many", "--picture_size=3", "--width"])
def test_flags_that_do_not_parse_are_one_line_too(flag, capsys):
    with pytest.raises(SystemExit) as error:
        costs.main([*SMALL, flag])
    assert error.value.code == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and flag.split("=")[0] in lines[0]
