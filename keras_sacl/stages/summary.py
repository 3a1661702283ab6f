"""The short table at the end of a run."""

from keras_sacl.evaluation import is_score, score_title


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
        classifiers = any("top1" in row for row in exported.values())
        top1 = ("top-1",) if classifiers else ()
        rows = [("file", "KiB", "max diff", "cosine", "k-NN", *top1, "ms", "check")]
        for name, row in exported.items():
            rows.append(
                (
                    name,
                    _number(row.get("bytes"), "{:.0f}", 1 / 1024),
                    _number(row.get("max_abs_diff"), "{:.1e}"),
                    _number(row.get("cosine"), "{:.5f}"),
                    _number(row.get("knn_top1"), "{:.4f}"),
                    *([_number(row.get("top1"), "{:.4f}")] if classifiers else []),
                    _number(row.get("latency_ms"), "{:.2f}"),
                    "ok" if row["passed"] else "FAILED",
                )
            )
        blocks.append(_table(rows))
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


def _number(value, form, factor=1):
    return "-" if value is None else form.format(value * factor)


def _table(rows):
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if i == 0 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    )
