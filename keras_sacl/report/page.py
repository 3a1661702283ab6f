"""report.html: one file, no network, readable on a phone, light and dark."""

import html

import numpy as np

from keras_sacl.report import charts, galleries, tables

_STYLE = """
:root { color-scheme: light dark; --ink: #1b1f24; --soft: #59636e; --paper: #fff; --line: #d1d9e0;
  --panel: #f6f8fa; --good: #1a7f37; --bad: #cf222e; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6edf3; --soft: #9198a1; --paper: #0d1117;
  --line: #3d444d; --panel: #151b23; --good: #3fb950; --bad: #f85149; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1rem; max-width: 76rem; color: var(--ink);
  background: var(--paper); font: 16px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.6rem; margin: .5rem 0; } h2 { font-size: 1.2rem; margin: 2rem 0 .5rem; }
h3 { font-size: 1rem; margin: 1.2rem 0 .4rem; }
.wide { overflow-x: auto; border: 1px solid var(--line); border-radius: 6px; }
table { border-collapse: collapse; width: 100%; font-size: .9rem; }
th, td { padding: .35rem .7rem; text-align: right; white-space: nowrap;
  font-variant-numeric: tabular-nums; }
th:first-child, td:first-child { text-align: left; }
thead { background: var(--panel); } tbody tr { border-top: 1px solid var(--line); }
tbody th { font-weight: 500; }
.figures { display: grid; gap: 1rem;
  grid-template-columns: repeat(auto-fit, minmax(min(100%, 22rem), 1fr)); }
figure { margin: 0; padding: .7rem; background: var(--panel); border-radius: 8px; min-width: 0; }
figure.whole { margin: 1rem 0; }
figure svg { width: 100%; height: auto; display: block; font-family: inherit; }
figcaption { color: var(--soft); font-size: .88rem; margin-top: .5rem; }
figcaption b { color: var(--ink); }
.row { display: flex; flex-wrap: wrap; gap: 5px; align-items: center; margin-bottom: 7px; }
.row .label { flex: 0 0 9.5rem; font-size: .85rem; }
.shot { width: 3.6rem; height: 3.6rem; border-radius: 4px; border: 3px solid transparent;
  object-fit: cover; image-rendering: pixelated; }
.same { border-color: var(--good); } .other { border: 3px dashed var(--bad); }
.row > .shot:first-child { margin-right: 8px; }
.views { gap: min(2.5vw, 1.2rem); } .pair { display: inline-flex; gap: 2px; }
.view { width: min(11.2vw, 7rem); image-rendering: pixelated; border-radius: 3px; }
pre { overflow-x: auto; background: var(--panel); padding: .8rem; border-radius: 6px;
  font-size: .82rem; }
.note { border-left: 3px solid var(--line); padding-left: .8rem; color: var(--soft); }
@media (max-width: 40rem) { .shot { width: 2.4rem; height: 2.4rem; }
  .row .label { flex-basis: 100%; } }
"""

# Curves over the epochs: metric, title of the axis, what is good.
_CURVES = (
    ("loss", "loss", "<b>Loss.</b> Down, and flat at the end; a jump up is a learning rate too "
     "high. Losses of different methods do not compare."),
    ("knn_top1", "k-NN top-1", "<b>k-NN accuracy of the deployed encoder</b> on a fixed part of "
     "the test images while it trains (a monitor, not a result). Up. A fall at the end means "
     "that the last checkpoint is not the best one."),
    ("embedding_std", "std of embeddings", "<b>Spread of the embeddings.</b> Near 1; towards 0 "
     "all images become one point (collapse)."),
    ("instance_discrimination", "own view found", "<b>Instance discrimination.</b> Share of "
     "training images whose second view is found among all second views by the features. Up: "
     "the features know the image in spite of the augmentation."),
    ("effective_rank", "effective rank", "<b>Effective rank of the features</b> (RankMe). Up: "
     "more dimensions are in use. Near 1: dimensional collapse."),
    ("off_diagonal_correlation", "mean |correlation|", "<b>Correlation between dimensions.</b> "
     "Down: dimensions do not say the same thing twice."),
)  # fmt: skip


def report_page(runs):
    """The page for some runs.

    Args:
        runs: List of `RunReport`, at least one, of different names.

    Returns:
        The text of an HTML file.
    """
    several = len(runs) > 1
    title = "Runs compared" if several else f"Run {runs[0].name}"
    parts = [f"<h1>{html.escape(title)}</h1>", tables.summary_table(runs)]
    parts += _section("Scores", tables.score_table(runs), _SCORES)
    parts += _section("Files evaluated", tables.file_table(runs))
    parts += _section("Fine-tuning", _finetuning(runs))
    changed = _CHANGES if any(run.phase_ends for run in runs) else ""
    parts += _section("Learning", _learning(runs), changed)
    for run in runs:
        parts += _looks(run, several)
    parts += _section("Exported files", tables.export_table(runs), _EXPORTS)
    for run in runs:
        name = f": {run.name}" if several else ""
        costs = tables.pairs_table(run.costs) if run.costs else ""
        parts += _section(f"Training cost{name}", costs, _COSTS)
        parts += _section(f"How it was made{name}", _made(run))
    body = "\n".join(parts)
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        # Without this a browser asks the server for /favicon.ico.
        '<link rel="icon" href="data:,">\n'
        f"<title>{html.escape(title)}</title>\n<style>{_STYLE}</style>\n</head>\n"
        f"<body>\n{body}\n</body>\n</html>\n"
    )


_CORRELATIONS = {
    "views": "<b>Embeddings of the two views.</b> Good is a bright diagonal on a blank ground: "
    "each dimension agrees, and says something of its own.",
    "encoders": "<b>Embeddings of one view by host and slim network.</b> The nearer to a clean "
    "diagonal, the less sparsity alone has pulled the two apart.",
}
_CHANGES = (
    "Dotted: other networks train from there on, and the loss is another. Where the host begins "
    "alone, the slim network is until then what happens to lie in it; where the slim network ends "
    "alone, the host rests."
)
_SCORES = (
    "On frozen features, at the last epoch; beside them the same encoder before training. Scores "
    "compare only under the same protocol."
)
_EXPORTS = (
    "Each file ran on test images through its own runtime. The largest difference from Keras is "
    "relative to the largest feature; a cosine near 1 and an equal k-NN accuracy say that the "
    "phone will see what Keras sees."
)
_COSTS = "From the sizes of the layers, not from a clock; a multiply-add counts as two operations."


def _section(title, content, caption=""):
    if not content:
        return []
    text = f'<p class="note">{caption}</p>' if caption else ""
    return [f"<section><h2>{html.escape(title)}</h2>{content}{text}</section>"]


def _figure(content, caption, whole=False):
    kind = ' class="whole"' if whole else ""
    return f"<figure{kind}>{content}<figcaption>{caption}</figcaption></figure>"


def _learning(runs):
    figures = []
    for name, axis, caption in _CURVES:
        seen = [run for run in runs if run.curve(name)[0]]
        if seen:
            marks = [run.phase_ends for run in seen]
            curves = [(run.name, *run.curve(name)) for run in seen]
            chart = charts.line_chart(curves, x="epoch", y=axis, log=name == "loss", marks=marks)
            figures.append(_figure(chart, caption))
    figures += _plane(
        runs, "alignment", "uniformity",
        "<b>Alignment against uniformity</b>, a point for each look, the last one large. To the "
        "lower left: two views of an image lie close together (left), different images far apart "
        "(down). Left alone, without down, is collapse.",
    )  # fmt: skip
    figures += _plane(
        runs, "i_x_t", "i_t_y",
        "<b>Information plane</b>, in bits. Up: the features say more about the class. "
        "Left at the same height: they keep less of the image that does not matter for it.",
        x="I(X; T)", y="I(T; Y)",
    )  # fmt: skip
    return f'<div class="figures">{"".join(figures)}</div>' if figures else ""


def _plane(runs, x_name, y_name, caption, x=None, y=None):
    paths = []
    for run in runs:
        (epochs, xs), (others, ys) = run.curve(x_name), run.curve(y_name)
        if len(epochs) and epochs == others:
            paths.append((run.name, xs, ys))
    if not paths:
        return []
    return [_figure(charts.path_chart(paths, x=x or x_name, y=y or y_name), caption)]


def _looks(run, several):
    looks, parts = run.looks, []
    for note in run.notes:
        parts.append(f'<p class="note">{html.escape(note)}</p>')
    if looks is not None:
        if looks.views:
            parts.append(_figure(
                galleries.view_gallery(looks.views),
                "<b>What the network sees.</b> Left the image, then pairs of view A and view B. "
                "Both views of a pair should still show the same thing to a person; where they "
                "do not, the augmentation is too strong for these images.", whole=True,
            ))  # fmt: skip
        figures = [_figure(
            charts.scatter(_map(looks.features), looks.labels, _names(looks)),
            "<b>The features in the plane</b> (t-SNE; distances between far groups mean nothing). "
            "Groups of one colour are good; one cloud of all colours is not.",
        )]  # fmt: skip
        for what, named in looks.correlations.items():
            figures.append(_figure(charts.matrices(named), _CORRELATIONS[what]))
        parts.append(f'<div class="figures">{"".join(figures)}</div>')
        parts.append(_figure(
            galleries.neighbour_gallery(looks),
            "<b>Nearest neighbours.</b> Left a test image, then those nearest to it by the "
            "features. A solid green border: the same class; a dashed red one: another. What they "
            "have in common is what the encoder goes by.", whole=True,
        ))  # fmt: skip
        parts.append(_figure(
            galleries.cluster_gallery(looks),
            "<b>Clusters found without labels</b> (k-means), each by the images nearest to its "
            "centre. One kind of thing in each row is good.", whole=True,
        ))  # fmt: skip
    name = f": {run.name}" if several else ""
    return _section(f"What the encoder sees{name}", "".join(parts))


def _map(features):
    """t-SNE, (N, F) to (N, 2)."""
    from sklearn.manifold import TSNE

    from keras_sacl.evaluation.features import l2_normalise

    x = l2_normalise(features)
    if len(x) < 4 or np.ptp(x, axis=0).max() == 0:
        return np.zeros((len(x), 2))
    perplexity = min(30.0, (len(x) - 1) / 3)
    return TSNE(perplexity=perplexity, init="pca", random_state=0).fit_transform(x)


def _names(looks):
    return lambda label: looks.class_names[label] if looks.class_names else str(label)


def _finetuning(runs):
    rows = []
    for run in runs:
        for found in run.results.get("finetune", []):
            name = f"{run.name}: {found['protocol']}" if len(runs) > 1 else found["protocol"]
            scores = (found[key] for key in ("top1_from_scratch", "top1", "teacher_top1"))
            scores = ("-" if score is None else f"{score:.4f}" for score in scores)
            rows.append([name, found["dataset"], f"{found['num_train']:,}", *scores])
    head = ["protocol", "data set", "labelled images", "from scratch", "pretrained", "teacher"]
    return tables.table(head, rows) if rows else ""


def _made(run):
    environment = run.results.get("environment", {})
    rows = [(key, ", ".join(v) if isinstance(v, list) else v) for key, v in environment.items()]
    flags = html.escape("\n".join(run.flag_lines))
    skipped = run.results.get("pretrain", {}).get("skipped_by_reason", {})
    rows += [(f"images skipped: {reason}", count) for reason, count in skipped.items()]
    listed = tables.pairs_table(rows) if rows else ""
    return f"{listed}<details><summary>All flags</summary><pre>{flags}</pre></details>"
