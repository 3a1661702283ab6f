"""What each recipe teaches: several seeds of each, compared pair by pair, with learning curves.

    python -m benchmarks.quality --grid flags/quality/*.flags --seeds 3 --json quality.json \
        --plot docs/learning_curves.png --data_dir=PATH

Each seed of a recipe is compared with the same seed of --reference: same order of the images, same
views. Flags that are not of this command go to every run; a sweep that was stopped goes on where it
was, the first seed of all recipes before the second of any.
"""

import argparse
import pathlib
import statistics

from benchmarks import sweep
from keras_sacl.report.charts import COLOURS

_SCORES = ("knn_top1", "linear_top1")


def main():
    """Runs what is missing; prints the tables; writes the numbers and the plot."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--grid", nargs="+", type=pathlib.Path, required=True, help="flagfiles")
    parser.add_argument("--seeds", type=int, default=3, help="how many: 0, 1, ...")
    parser.add_argument("--reference", help="recipe to compare with; default: the first")
    parser.add_argument("--plot", type=pathlib.Path, help="file for the learning curves")
    sweep.add_options(parser)
    options, extra = parser.parse_known_args()
    sweep.check_files(parser, options.grid)
    if options.seeds < 1:
        parser.error(f"--seeds={options.seeds}: must be at least 1")

    names = [sweep.name_of(path) for path in sweep.recipes(options.grid)]
    if not names:
        parser.error("--grid: names no recipe, only files that others include")
    wanted = options.reference or names[0]
    found = [name for name in names if f"/{name}".endswith(f"/{wanted}")]
    if len(found) != 1:
        parser.error(f"--reference={wanted}: must be one of {', '.join(names)}")

    rows, failed = sweep.sweep(options, options.grid, range(options.seeds), extra)
    reference = next((row for row in rows if row["name"] == found[0]), None)
    pairs = [compare(row, reference) for row in rows if reference and row is not reference]
    if pairs:
        print(f"\n{pairs_table(pairs, found[0])}")
    sweep.write(options, {"rows": rows, "reference": found[0], "pairs": pairs})
    if options.plot and rows:
        plot_curves({row["name"]: mean_curve(row["runs"]) for row in rows}, options.plot)
    sweep.finish(failed)


def compare(row, reference):
    """The differences of two recipes, seed by seed.

    Args:
        row, reference: Rows of `sweep.sweep`.

    Returns:
        A dict: "name", "seeds" (those that both have), and for each score a dict of "differences"
        (one a seed), their "mean", and "beyond": whether the mean is larger in size than the
        deviation of either recipe and of the differences (None of a single seed).
    """
    ours, theirs = ({run["seed"]: run for run in r["runs"]} for r in (row, reference))
    seeds = sorted(ours.keys() & theirs.keys())
    found = {"name": row["name"], "seeds": seeds}
    for score in _SCORES:
        if not seeds or any(score not in runs[seed] for runs in (ours, theirs) for seed in seeds):
            continue
        a, b = ([runs[seed][score] for seed in seeds] for runs in (ours, theirs))
        differences = [x - y for x, y in zip(a, b, strict=True)]
        mean, beyond = statistics.fmean(differences), None
        if len(seeds) > 1:
            beyond = abs(mean) > max(map(statistics.stdev, (a, b, differences)))
        found[score] = {"differences": differences, "mean": mean, "beyond": beyond}
    return found


def pairs_table(pairs, reference):
    """The comparisons as a Markdown table."""
    scores = [score for score in _SCORES if any(score in pair for pair in pairs)]
    lines = [
        f"| against {reference} | " + " | ".join(f"{score} | by seed" for score in scores) + " |",
        "|---|" + "---|---|" * len(scores),
    ]
    for pair in pairs:
        cells = [_cells(pair[score]) if score in pair else "- | -" for score in scores]
        lines.append(f"| {pair['name']} | " + " | ".join(cells) + " |")
    return "\n".join([*lines, "", "\\* more than the deviation over seeds"])


def _cells(found):
    star = "\\*" if found["beyond"] else ""
    by_seed = ", ".join(f"{difference:+.3f}" for difference in found["differences"])
    return f"{found['mean']:+.3f}{star} | {by_seed}"


def mean_curve(runs):
    """The k-NN accuracy that a recipe's monitor saw, as means over its runs.

    Args:
        runs: Dicts with "curve": (epoch, seconds of training until then, accuracy) of each epoch
            that was watched.

    Returns:
        Lists (epochs, minutes of training until then, accuracies).
    """
    seen = {}
    for run in runs:
        for epoch, seconds, accuracy in run["curve"]:
            seen.setdefault(epoch, []).append((seconds / 60, accuracy))
    epochs = sorted(epoch for epoch, points in seen.items() if len(points) == len(runs))
    minutes, accuracies = (
        [statistics.fmean(point[i] for point in seen[epoch]) for epoch in epochs] for i in range(2)
    )
    return epochs, minutes, accuracies


def plot_curves(curves, path):
    """Draws accuracy against epochs and against minutes.

    Args:
        curves: From a name to what `mean_curve` gave.
        path: File to write; its ending says the format.
    """
    # The object's own interface: pyplot keeps every figure, and asks for a display.
    import matplotlib.figure

    figure = matplotlib.figure.Figure(figsize=(9, 3.6), layout="constrained")
    by_epoch, by_minute = figure.subplots(1, 2, sharey=True)
    for i, (name, (epochs, minutes, accuracies)) in enumerate(curves.items()):
        for axes, xs in ((by_epoch, epochs), (by_minute, minutes)):
            colour = COLOURS[i % len(COLOURS)]
            axes.plot(xs, accuracies, color=colour, label=name, marker="o", markersize=3)
    for axes, title in ((by_epoch, "epochs"), (by_minute, "minutes of training")):
        axes.set_xlabel(title)
        axes.grid(alpha=0.2)
        axes.spines[["top", "right"]].set_visible(False)
    by_epoch.set_ylabel("k-NN top-1 (monitor)")
    by_epoch.legend(frameon=False)
    figure.savefig(path, dpi=150)


if __name__ == "__main__":
    main()
