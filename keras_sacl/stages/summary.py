"""The short table at the end of a run."""

from keras_sacl.evaluation import is_score, score_title
from keras_sacl.report.tables import export_rows


def summary(results):
    """results.json as text: the scores, then one row for each exported file."""
    blocks = []
    widths = {
        f"width {width}": found for width, found in results.get("evaluate_widths", {}).items()
    }
    for which, evaluated in {"": results.get("evaluate"), **widths}.items():
        if not evaluated:
            continue
        rows = [(which, "untrained", "trained")]
        for key, value in evaluated.items():
            before = evaluated.get(f"{key}_untrained")
            if before is not None and is_score(key):
                rows.append((score_title(key), f"{before:.4f}", f"{value:.4f}"))
        blocks.append(_table(rows))
        blocks.append(_evaluated_on(evaluated))
    for path, found in results.get("evaluate_files", {}).items():
        rows = [(score_title(key), f"{value:.4f}") for key, value in found.items() if is_score(key)]
        blocks.append(_table([("", path), *rows]))
        blocks.append(_evaluated_on(found))
    finetuned = results.get("finetune")
    if finetuned:
        blocks.append(_finetuned(finetuned))
    exported = results.get("export")
    if exported:
        head, rows = export_rows(list(exported.items()), beside_keras=False)
        blocks.append(_table([head, *rows]))
    return "\n\n".join(blocks)


def _finetuned(results):
    rows = [("top-1", "data", "labels", "from scratch", "pretrained", "teacher")]
    for row in results:
        names = (row["protocol"], row["dataset"], f"{row['num_train']}")
        scores = (row["top1_from_scratch"], row["top1"], row["teacher_top1"])
        rows.append((*names, *(_number(score, "{:.4f}") for score in scores)))
    return _table(rows)


def _evaluated_on(found):
    protocols = [value for key, value in found.items() if key.endswith("_protocol")]
    return (
        f"on {found['dataset']}: {found['num_train']} training and {found['num_test']} test "
        f"images; {', '.join(protocols)}"
    )


def _number(value, form):
    return "-" if value is None else form.format(value)


def _table(rows):
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if i == 0 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    )
