"""The short table at the end of a run."""


def summary(results):
    """results.json as text: k-NN and linear accuracy, then one row for each exported file."""
    blocks = []
    evaluated = results.get("evaluate")
    if evaluated:
        rows = [("", "untrained", "trained")]
        for name, key in (("k-NN top-1", "knn_top1"), ("linear top-1", "linear_top1")):
            rows.append((name, f"{evaluated[key + '_untrained']:.4f}", f"{evaluated[key]:.4f}"))
        blocks.append(_table(rows))
        blocks.append(
            f"on {evaluated['dataset']}: {evaluated['num_train']} training and "
            f"{evaluated['num_test']} test images; {evaluated['knn_protocol']}, "
            f"{evaluated['linear_protocol']}"
        )
    exported = results.get("export")
    if exported:
        rows = [("file", "KiB", "max diff", "cosine", "k-NN", "ms", "check")]
        for name, row in exported.items():
            rows.append(
                (
                    name,
                    _number(row.get("bytes"), "{:.0f}", 1 / 1024),
                    _number(row.get("max_abs_diff"), "{:.1e}"),
                    _number(row.get("cosine"), "{:.5f}"),
                    _number(row.get("knn_top1"), "{:.4f}"),
                    _number(row.get("latency_ms"), "{:.2f}"),
                    "ok" if row["passed"] else "FAILED",
                )
            )
        blocks.append(_table(rows))
    return "\n\n".join(blocks)


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
