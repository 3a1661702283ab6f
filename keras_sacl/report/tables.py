"""The report's tables, as HTML: runs side by side, scores by protocol, files, settings."""

import html

from keras_sacl.evaluation import is_score, protocol_of, score_title

# What a run is summed up by: a title, where it stands in results.json, and how it is written.
_SUMMARY = (
    ("method", ("pretrain", "method"), "{}"),
    ("images", ("pretrain", "images"), "{:,}"),
    ("epochs", ("pretrain", "epochs"), "{}"),
    ("parameters deployed", ("pretrain", "deployed_parameters"), "{:,}"),
    ("minutes", ("pretrain", "seconds"), "{:.1f}"),
    ("k-NN, untrained", ("evaluate", "knn_top1_untrained"), "{:.4f}"),
    ("k-NN", ("evaluate", "knn_top1"), "{:.4f}"),
    ("linear, untrained", ("evaluate", "linear_top1_untrained"), "{:.4f}"),
    ("linear", ("evaluate", "linear_top1"), "{:.4f}"),
    ("files skipped", ("pretrain", "skipped_images"), "{}"),
)
_EXPORT = (
    ("KiB", "bytes", lambda value: f"{value / 1024:.0f}"),
    ("max diff", "max_abs_diff", "{:.1e}".format),
    ("cosine", "cosine", "{:.5f}".format),
    ("k-NN", "knn_top1", "{:.4f}".format),
    ("k-NN in Keras", "knn_top1_keras", "{:.4f}".format),
    ("top-1", "top1", "{:.4f}".format),
    ("top-1 in Keras", "top1_keras", "{:.4f}".format),
    ("ms", "latency_ms", "{:.2f}".format),
    ("check", "passed", lambda value: "ok" if value else "FAILED"),
)


def table(head, rows):
    """A table that scrolls by itself where the screen is narrow.

    Args:
        head: Titles of the columns.
        rows: Lists of texts, the first of each the row's title.

    Returns:
        HTML.
    """
    titles = "".join(f"<th scope=col>{html.escape(str(cell))}</th>" for cell in head)
    lines = []
    for first, *rest in rows:
        cells = "".join(f"<td>{html.escape(str(cell))}</td>" for cell in rest)
        lines.append(f"<tr><th scope=row>{html.escape(str(first))}</th>{cells}</tr>")
    head, body = f"<thead><tr>{titles}</tr></thead>", f"<tbody>{''.join(lines)}</tbody>"
    return f'<div class="wide"><table>{head}{body}</table></div>'


def summary_table(runs):
    """A row for each run."""
    columns = [c for c in _SUMMARY if any(_summed(run, c) != "" for run in runs)]
    rows = [[run.name, *(_summed(run, column) for column in columns)] for run in runs]
    return table(["run", *(title for title, *_ in columns)], rows)


def _summed(run, column):
    title, (stage, key), form = column
    value = run.results.get(stage, {}).get(key)
    if title == "files skipped":
        return len(value) if value else ""
    if title == "minutes" and value is not None:
        value /= 60
    return "" if value is None else form.format(value)


def score_table(runs):
    """A row for each score, two columns for each width of each run, then the protocol."""
    found = {}
    for run in runs:
        found[run.name] = run.results.get("evaluate", {})
        for width, scores in run.results.get("evaluate_widths", {}).items():
            found[f"{run.name}, width {width}"] = scores
    names = dict.fromkeys(
        key
        for scores in found.values()
        for key in scores
        if is_score(key) and not key.endswith("_untrained")
    )
    if not names:
        return ""
    head = ["score"]
    for name in found:
        which = f"{name}: " if len(found) > 1 else ""
        head += [f"{which}untrained", f"{which}trained"]
    rows = []
    for name in names:
        row = [score_title(name)]
        for scores in found.values():
            row += [_number(scores.get(f"{name}_untrained")), _number(scores.get(name))]
        protocols = {protocol_of(name, scores) for scores in found.values() if name in scores}
        rows.append([*row, ", ".join(sorted(filter(None, protocols)))])
    return table([*head, "protocol"], rows)


def export_table(runs):
    """A row for each exported file; empty where there is none."""
    found = [
        (f"{run.name}/{name}" if len(runs) > 1 else name, row)
        for run in runs
        for name, row in run.results.get("export", {}).items()
    ]
    head, rows = export_rows(found)
    return table(head, rows) if rows else ""


def export_rows(files, *, beside_keras=True):
    """Exported files as text, for this page and for the command line.

    Args:
        files: List of (name, row), a row as the export stage records it.
        beside_keras: Whether to show the accuracies of the Keras model too.

    Returns:
        (titles of the columns, a list of texts for each file).
    """
    # Only classifiers have a top-1.
    columns = [
        column for column in _EXPORT
        if ("top-1" not in column[0] or any(column[1] in row for _, row in files))
        and (beside_keras or "in Keras" not in column[0])
    ]  # fmt: skip
    rows = [
        [name, *("-" if row.get(key) is None else form(row[key]) for _, key, form in columns)]
        for name, row in files
    ]
    return ["file", *(title for title, *_ in columns)], rows


def file_table(runs):
    """The scores of files that were evaluated by --eval_encoder; empty where there are none."""
    rows = []
    for run in runs:
        for path, scores in run.results.get("evaluate_files", {}).items():
            for key, value in scores.items():
                if is_score(key):
                    protocol = protocol_of(key, scores)
                    rows.append([path, score_title(key), _number(value), protocol])
    return table(["file", "score", "value", "protocol"], rows) if rows else ""


def pairs_table(pairs):
    """Two columns: what, and its value."""
    return table(["", ""], pairs)


def _number(value):
    return "" if value is None else f"{value:.4f}"
