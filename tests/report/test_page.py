"""The report: what is in it, that it needs nothing outside itself, that a browser shows it."""

import dataclasses
import re
import shutil
import subprocess

import numpy as np
import pytest
from sklearn.datasets import load_digits

from keras_sacl import stages
from keras_sacl.config import RunConfig
from keras_sacl.data import ImageSource, get_preset
from keras_sacl.report import __main__ as command
from keras_sacl.report import charts
from keras_sacl.report.page import report_page
from keras_sacl.report.run_report import Looks, RunReport
from keras_sacl.report.views import view_rows
from keras_sacl.stages.report import collect

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("chrome")
# The page tells what it is like: pictures that did not load, how far it sticks out of the screen.
PROBE = """<script>addEventListener('load', () => {
  const images = [...document.images];
  parent.postMessage(JSON.stringify({
    images: images.length, broken: images.filter(i => !i.complete || !i.naturalWidth).length,
    charts: document.querySelectorAll('figure svg').length,
    wide: document.documentElement.scrollWidth - innerWidth, width: innerWidth}), '*');
})</script></head>"""
# In a frame, since Chromium's own window is never narrower than 500 pixels.
FRAME = """<!doctype html><title></title><link rel="icon" href="data:,"><script>
addEventListener('message', e => { document.title = e.data; })</script>
<iframe src="page.html" style="border: 0; width: WIDTHpx; height: 3000px"></iframe>"""


@pytest.fixture(scope="module")
def looks():
    x, y = load_digits(return_X_y=True)
    pixels = np.repeat((x[:150].reshape(-1, 8, 8, 1) * 15).astype("uint8"), 3, axis=-1)
    rows = view_rows(ImageSource(pixels[:2]), get_preset("digits"), image_size=16, pairs=2)
    matrix = np.corrcoef(x[:150, 18:22].T)
    names = [f"digit <{i}>" for i in range(10)]
    return Looks(pixels, x[:150], y[:150], names, rows, {"views": {"a": matrix, "b": -matrix}})


def make(name, looks=None):
    metrics = [
        {"epoch": e, "loss": 30 / e, "knn_top1": 0.5 + e / 20, "embedding_std": 0.9,
         "alignment": 0.1 * e, "uniformity": -0.2 * e, "i_x_t": 5.0, "i_t_y": 0.1 * e,
         "effective_rank": 2.0 * e, "instance_discrimination": 0.3, "off_diagonal_correlation": 0.2}
        for e in range(1, 6)
    ]  # fmt: skip
    results = {
        "pretrain": {"method": "xd", "images": 1442, "epochs": 5, "deployed_parameters": 69240,
                     "seconds": 90.0, "skipped_images": [{}], "skipped_by_reason": {"empty": 1}},
        "evaluate": {"dataset": "digits", "knn_top1": 0.75, "knn_top1_untrained": 0.25,
                     "knn_protocol": "knn20-v1", "recall_at_8": 0.5, "retrieval_protocol": "r-v1",
                     "i_t_y": 1.5, "information_protocol": "i-v1", "layer2_top1": 0.625,
                     "layers_protocol": "l-v1", "num_train": 10},
        "export": {"encoder.tflite": {"bytes": 2048, "max_abs_diff": 1e-7, "cosine": 1.0,
                                      "latency_ms": 0.5, "passed": True}},
        "finetune": [{"protocol": "finetune-v1", "dataset": "digits", "num_train": 100,
                      "top1": 0.9, "top1_from_scratch": 0.8, "teacher_top1": None}],
        "environment": {"python": "3.11", "devices": ["/CPU:0"]},
    }  # fmt: skip
    return RunReport(
        name, ["--method=xd", "--dataset=<&>"], metrics, results, looks, [("step", "3 GFLOPs")]
    )


def test_what_was_measured_is_in_it(looks):
    page = report_page([make("first", looks)])
    text = re.sub(r"<[^>]+>", "|", page)
    for part in (
        "0.7500", "0.2500", "knn20-v1", "r-v1", "i-v1", "l-v1", "0.6250", "2", "1.0e-07", "ok",
        "finetune-v1", "0.8000", "3 GFLOPs", "/CPU:0", "k-NN top-1",
        "images skipped: empty", "1,442",
    ):  # fmt: skip
        assert f"|{part}|" in text, part
    assert "--dataset=&lt;&amp;&gt;" in page
    # Six curves, two planes, t-SNE and the matrices; every figure says what is good.
    assert page.count("<svg") == 10
    assert page.count("<figure") == page.count("<figcaption>") == 13
    assert all(len(text) > 60 for text in re.findall(r"<figcaption>(.*?)</figcaption>", page)[:8])
    assert page.count("<img") == page.count("alt=") and "digit &lt;" in page


def test_it_needs_nothing_outside_itself(looks):
    page = report_page([make("first", looks), make("second")])
    assert set(re.findall(r'src="([^:"]*):', page)) == {"data"}
    links = re.findall(r'(?:href|src|action)="([^"]{0,40})', page)
    assert all(link.startswith(("#", "data:")) for link in links)
    assert "<script" not in page and "@import" not in page
    ids = re.findall(r'\bid="([^"]+)"', page)
    assert ids and len(ids) == len(set(ids))
    used = set(re.findall(r'href="#([^"]+)"', page)) | set(re.findall(r"url\(#([^)]+)\)", page))
    assert used <= set(ids)


def test_runs_side_by_side(looks):
    page = report_page([make("first", looks), make("second")])
    for name in ("first", "second"):
        assert f"<th scope=row>{name}</th>" in page
        assert f"<th scope=col>{name}: trained</th>" in page
        assert f">{name}</text>" in page  # in the legends


def test_a_run_that_has_not_ended_has_a_page():
    run = dataclasses.replace(make("new"), metrics=[], results={}, costs=[], notes=["not <yet>"])
    page = report_page([run])
    assert "not &lt;yet&gt;" in page and "<svg" not in page and "Scores" not in page


def test_where_other_networks_train_is_marked():
    run, words = make("slimmed"), "Dotted: other networks train from there on"
    sacl_xd = "--method=sacl_xd", "--epochs=6"
    for lines, ends in (
        ([*sacl_xd, "--slim_start_epoch=1"], (1,)),
        ([*sacl_xd, "--slim_start_epoch=1", "--slim_alone_epochs=2"], (1, 4)),
        ([*sacl_xd, "--slim_alone_epochs=2"], (4,)),
        ([*sacl_xd, "--slim_start_epoch=0"], ()),
        (["--method=xd", "--slim_start_epoch=1"], ()),
        (["--method=sacl"], ()),
        ([*sacl_xd, "--slim_start_epoch=1", "--host_width=1.0"], ()),  # XD
        ([*sacl_xd, "--slim_start_epoch=1", "--no_such_setting=1"], ()),
    ):
        run = dataclasses.replace(run, flag_lines=lines)
        page = report_page([make("other"), run])
        assert run.phase_ends == ends
        assert (words in page) == ("stroke-dasharray" in page) == bool(ends)


def test_charts_draw_what_they_are_given():
    chart = charts.line_chart([("a", (1, 2), (3.0, 4.0)), ("b", (1, 2), (0.0, 1.0))], x="e", y="l")
    assert "currentColor" in chart and ">a</text>" in chart
    assert chart == charts.line_chart(
        [("a", (1, 2), (3.0, 4.0)), ("b", (1, 2), (0.0, 1.0))], x="e", y="l"
    )
    points = np.random.default_rng(0).normal(size=(30, 2))
    many = charts.scatter(points, np.arange(30), str)
    assert charts.scatter(points, None, str).startswith("<svg") and many.startswith("<svg")
    charts.line_chart([("zero", (1,), (0.0,))], x="e", y="l", log=True)  # no logarithm of 0


@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")
@pytest.mark.parametrize("width", [pytest.param(1280, marks=pytest.mark.slow), 390])
def test_a_browser_shows_it(looks, width, tmp_path):
    page = report_page([make("first", looks), make("second", looks)])
    file, shot = tmp_path / "page.html", tmp_path / "shot.png"
    file.write_text(page.replace("</head>", PROBE, 1), encoding="utf-8")
    frame = tmp_path / "frame.html"
    frame.write_text(FRAME.replace("WIDTH", str(width)), encoding="utf-8")
    flags = (
        "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-sync "
        "--disable-background-networking --disable-component-update --enable-logging=stderr "
        f"--user-data-dir={tmp_path}/profile --window-size=1400,3000 --virtual-time-budget=5000"
    ).split()

    def browse(*more):
        return subprocess.run(
            [CHROMIUM, *flags, *more, frame.as_uri()], capture_output=True, text=True, timeout=120
        )

    dom = browse("--dump-dom")
    found = re.search(r"<title>(\{.*?\})</title>", dom.stdout)
    assert found, dom.stderr
    numbers = {k: int(v) for k, v in re.findall(r'"(\w+)":(-?\d+)', found.group(1))}
    assert numbers["images"] > 200 and numbers["broken"] == 0 and numbers["charts"] == 12
    assert numbers["width"] == width and numbers["wide"] <= 0  # nothing scrolls sideways
    pictured = browse(f"--screenshot={shot}")
    assert shot.stat().st_size > 10_000
    assert "CONSOLE" not in dom.stderr + pictured.stderr


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A tiny real run."""
    path = tmp_path_factory.mktemp("runs") / "tiny"
    config = RunConfig(
        method="sacl_xd", encoder="resnet20_cifar", width=0.5, image_size=8, dataset="digits",
        augmentation="digits", projector="16-16", lambd=0.005, batch_size=32, epochs=2,
        slim_alone_epochs=0, knn_every=1,
        views_every=1, train_split="train[:200]", test_split="test[:60]", tensorboard=False,
        verbose="quiet", run_dir=str(path), export_formats=("tflite",),
    ).validated()  # fmt: skip
    run_dir = stages.RunDir(path)
    run_dir.start(config)
    for name in config.stages:
        stages.RUNNERS[name](config, run_dir, say=lambda line: None)
    return config, run_dir


@pytest.mark.long
def test_the_stage_writes_the_report_of_a_run(trained):
    config, run_dir = trained
    page = run_dir.report.read_text(encoding="utf-8")
    assert "slim: z_A, z_B" in page and "host: z_A, z_B" in page
    assert "Information plane" in page
    assert "Nearest neighbours" in page and "encoder.tflite" in page and "GFLOPs" in page
    assert "tensorflow" in page and 'class="note">No ' not in page
    found = collect(config, run_dir)
    assert found.looks.features.shape[0] == 60
    for named in found.looks.correlations.values():
        for matrix in named.values():
            assert np.abs(matrix).max() <= 1 + 1e-6
    # What the loss pulls together has drawn together, in two epochs a little.
    for named in found.looks.correlations.values():
        for title, matrix in named.items():
            assert np.diag(matrix).mean() > 0.1, title

    ended_alone = dataclasses.replace(config, slim_alone_epochs=1)
    alone, both = (c.looks.correlations["views"] for c in (collect(ended_alone, run_dir), found))
    np.testing.assert_allclose(alone["z_A, z_B"], both["slim: z_A, z_B"], atol=1e-5)


def test_what_cannot_be_shown_is_said(trained, tmp_path):
    config, run_dir = trained
    found = collect(dataclasses.replace(config, dataset="folder:nowhere"), run_dir)
    assert found.looks is None and "nowhere" in found.notes[0]
    alone = stages.RunDir(tmp_path)
    alone.start(config)
    shutil.copy(run_dir.encoder, alone.encoder)
    found = collect(config, alone)
    assert found.looks is not None and "no checkpoint" in found.notes[0]


@pytest.mark.long
def test_the_command(trained, tmp_path, capsys):
    _, run_dir = trained
    copy = tmp_path / "tiny"
    copy.mkdir()
    for file in (run_dir.flags, run_dir.results_file, run_dir.metrics):  # one that has not ended
        shutil.copy(file, copy)
    output = tmp_path / "both.html"
    assert command.main([str(run_dir.path), str(copy), f"--output={output}"]) == 0
    page = output.read_text(encoding="utf-8")
    assert f"{tmp_path.name}/tiny: trained" in page  # as much of the paths as tells them apart
    assert capsys.readouterr().out.strip() == str(output)


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["TMP"], "RUN_DIR TMP: holds no run"),
        (["TMP/run", "--output=TMP/none/a.html"], "--output=TMP/none/a.html: TMP/none is no dir"),
        (["TMP/run"], "RUN_DIR TMP/run: flags.txt: --export_preprocessing=: is no setting"),
    ],
)
def test_bad_input_is_one_line(arguments, message, tmp_path, capsys):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "flags.txt").write_text("--export_preprocessing\n")
    arguments = [a.replace("TMP", str(tmp_path)) for a in arguments]
    assert command.main(arguments) == 2
    error = capsys.readouterr().err.strip()
    assert error.startswith("report: " + message.replace("TMP", str(tmp_path)))
    assert len(error.splitlines()) == 1 and not list(tmp_path.rglob("*.html"))
