"""Runs flagfiles one after another, resumes what was cut, and tabulates what they reached.

    python -m benchmarks.sweep flags/ssl_small/ablation/*.flags --data_dir=PATH
    python -m benchmarks.sweep flags/cifar10_distillation/*.flags --seeds=0,1,2 --json=table.json \
        --data_dir=PATH

Flags that are not of this command go to every run. Each is a process of `train.py` in a directory
of its own, named after its flagfile; one that has ended is not run again, so that a sweep that was
stopped goes on where it was. Nor is one that --earlier holds, the --json of another sweep, with the
same settings. Files whose names begin with "base" are left out: others include them.
"""

import argparse
import itertools
import json
import pathlib
import statistics
import subprocess
import sys

import absl.flags

import train
from keras_sacl.quiet import quiet

with quiet():  # TensorFlow's notes on the machine would stand among the tables
    import tensorflow as tf

    from keras_sacl.callbacks import read_metrics
    from keras_sacl.config import RunConfig
    from keras_sacl.evaluation import is_score
    from keras_sacl.stages import RunDir
    from keras_sacl.stages.costs import run_cost

_SECONDS, _TERAFLOPS = "seconds_per_epoch", "teraflops"
_NO_COLUMNS = ("seed", "settings", "curve")


def main():
    """Runs what is missing and prints the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("flagfiles", nargs="+", type=pathlib.Path)
    parser.add_argument("--seeds", default="0", help="seeds, such as 0,1,2")
    add_options(parser)
    options, extra = parser.parse_known_args()
    check_files(parser, options.flagfiles)
    try:
        seeds = [int(seed) for seed in options.seeds.split(",")]
    except ValueError:
        parser.error(f"--seeds={options.seeds}: must be numbers such as 0,1,2")

    rows, failed = sweep(options, options.flagfiles, seeds, extra)
    write(options, rows)
    finish(failed)


def add_options(parser):
    """Options of every command that sweeps."""
    runs = pathlib.Path("runs/sweep")
    parser.add_argument("--runs", type=pathlib.Path, default=runs, help="where the runs go")
    parser.add_argument("--json", type=pathlib.Path, help="file for the numbers")
    parser.add_argument("--earlier", type=pathlib.Path, help="such a file; its runs count")
    parser.add_argument("--table_only", action="store_true", help="tabulate what is there")


def check_files(parser, flagfiles):
    """Ends with a line if a flagfile is missing."""
    missing = [str(path) for path in flagfiles if not path.is_file()]
    if missing:
        parser.error(f"no such file: {', '.join(missing)}")


def sweep(options, flagfiles, seeds, extra):
    """Runs what is missing: the first seed of all, then the second of all; prints tables.

    Args:
        options: Of `add_options`.
        flagfiles: Paths.
        seeds: Ints.
        extra: Flags for every run.

    Returns:
        (rows, failed): dicts of "name", "seeds" (how many) and "runs" (dicts of "seed", and what
        `results` and `costs` give), and the directories of the runs that failed.
    """
    earlier = read_earlier(options.earlier)
    tf.config.set_visible_devices([], "GPU")  # all its memory is the runs'
    paths = {name_of(path): path for path in recipes(flagfiles)}
    found, failed, rows = {name: [] for name in paths}, [], []
    for seed in seeds:
        for name, path in paths.items():
            run_dir = options.runs / name / f"seed{seed}"
            known = earlier.get((name, seed))
            if known is not None and is_of(known, path, seed, extra):
                print(f"{name}, seed {seed}: from {options.earlier}")
                found[name].append(known)
            elif ended(run_dir) and not same_settings(flag_lines(run_dir), path, seed, extra):
                print(f"{run_dir}: ended with other settings; take another --runs")
                failed.append(run_dir)
            else:
                if not options.table_only and not run(path, run_dir, seed, extra):
                    failed.append(run_dir)
                if ended(run_dir):
                    found[name].append({"seed": seed, **results(run_dir), **costs(run_dir)})
            if found[name]:
                rows = [{"name": n, "seeds": len(r), "runs": r} for n, r in found.items() if r]
                print(table(rows), flush=True)
    return rows, failed


def read_earlier(path):
    """The runs of an earlier sweep, by (name, seed)."""
    if path is None:
        return {}
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        rows = found["rows"] if isinstance(found, dict) else found
        return {(row["name"], run["seed"]): run for row in rows for run in row["runs"]}
    except (OSError, ValueError, KeyError, TypeError) as error:
        sys.exit(f"--earlier={path}: is no file that --json wrote ({error!r})")


def is_of(known, path, seed, extra):
    """Whether an earlier run has what a run of today would have, by its settings."""
    whole = all(len(point) == 3 for point in known.get("curve", []))
    return whole and same_settings(known.get("settings", []), path, seed, extra)


def same_settings(lines, path, seed, extra):
    """Whether the lines of a run's flags.txt say what a flagfile says today."""
    holder = absl.flags.FlagValues()
    train.define_flags(holder)
    arguments = ["train.py", f"--flagfile={path}", f"--seed={seed}", *extra]
    try:
        earlier = RunConfig.from_flag_lines("\n".join(lines))
        wanted = train.read_config(arguments, holder)
    except (ValueError, absl.flags.Error):  # of another version; or for the run to say
        return False
    names = [name for name in vars(wanted) if name.startswith("eval_")]
    # A resumed run may change them, or finds out by itself.
    names += ["knn_every", "teacher", "init_from"]
    return not wanted.differences(earlier) and all(
        getattr(wanted, name) == getattr(earlier, name) for name in names
    )


def flag_lines(run_dir):
    """What a run was told, without where things lay on that machine."""
    lines = RunDir(run_dir).flags.read_text(encoding="utf-8").splitlines()
    return [line for line in lines if not line.startswith(("--run_dir=", "--data_dir="))]


def recipes(flagfiles):
    """The flagfiles that are run: those that others include are not."""
    return [path for path in flagfiles if not path.name.startswith("base")]


def write(options, found):
    """Writes the numbers, if a file is named for them."""
    if options.json:
        options.json.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


def finish(failed):
    """Names the runs that failed on stderr, and exits."""
    for run_dir in failed:
        print(f"failed: {run_dir}; its last lines are in {run_dir.parent}", file=sys.stderr)
    sys.exit(1 if failed else 0)


def run(flagfile, run_dir, seed, extra):
    """Runs a flagfile, unless that is done; whether it has ended well."""
    if ended(run_dir):
        return True
    began = (run_dir / "flags.txt").is_file()
    run_dir.parent.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "train.py", f"--flagfile={flagfile}", f"--run_dir={run_dir}"]
    command += [f"--seed={seed}", "--verbose=line", *extra, *(["--resume"] if began else [])]
    print(" ".join(command), flush=True)
    with (run_dir.parent / f"{run_dir.name}.out").open("a", encoding="utf-8") as out:
        return subprocess.run(command, stdout=out, stderr=out).returncode == 0


def ended(run_dir):
    """Whether a run has been evaluated."""
    try:
        return "evaluate" in json.loads((run_dir / "results.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False


def results(run_dir):
    """What a run reached: a flat dict."""
    run = RunDir(run_dir)
    epochs, config = read_metrics(run.metrics), settings_of(run)
    seconds = training_seconds(epochs, config.phase_ends if config else ())
    evaluated = run.results()["evaluate"]
    scores = {name: value for name, value in evaluated.items() if is_score(name)}
    curve = [
        (epoch["epoch"], sum(seconds[: i + 1]), epoch["knn_top1"])
        for i, epoch in enumerate(epochs) if "knn_top1" in epoch
    ]  # fmt: skip
    return {
        "settings": flag_lines(run_dir), "curve": curve, **scores,
        _SECONDS: statistics.fmean(seconds),
    }  # fmt: skip


def training_seconds(epochs, phase_ends=()):
    """What each epoch takes without the k-NN monitor.

    Args:
        epochs: Lines of a run's metrics.
        phase_ends: After how many of them other networks train, each of which takes its own time.

    Returns:
        A list of seconds: for each epoch the median of those of its kind that were not watched,
        without the first, which makes the graph, where there are others.
    """
    found = []
    for start, end in itertools.pairwise((0, *phase_ends, len(epochs))):
        kind = epochs[start:end]
        later = [epoch["seconds"] for epoch in kind[1:] if "knn_top1" not in epoch]
        seconds = later or [epoch["seconds"] for epoch in kind]
        found += [statistics.median(seconds)] * len(kind) if kind else []
    return found


def settings_of(run):
    """The `RunConfig` of a `RunDir`; None if this version cannot read it."""
    try:
        return RunConfig.from_flag_lines(run.flags.read_text(encoding="utf-8"))
    except ValueError:
        return None


def costs(run_dir):
    """What the training of a run costs, counted from its layers.

    The teacher's share is in it, its own pretraining is not. Nothing where it cannot be counted:
    the run is of a version with other settings, or its teacher is no longer there.
    """
    run = RunDir(run_dir)
    config = settings_of(run)
    if config is None:
        return {}
    try:
        cost = run_cost(config, run.results()["pretrain"]["images"])
    except (ValueError, KeyError):
        return {}
    return {} if cost.left_out else {_TERAFLOPS: cost.per_run / 1e12}


def name_of(flagfile):
    """What a run is called: the path of its flagfile below flags/, without the ending."""
    parts = flagfile.with_suffix("").parts
    return "/".join(parts[parts.index("flags") + 1 :] if "flags" in parts else parts[-1:])


def table(rows):
    """The rows as a Markdown table: means over seeds, with deviations where there are several."""
    named = dict.fromkeys(name for row in rows for run in row["runs"] for name in run)
    last = [name for name in (_SECONDS, _TERAFLOPS) if name in named]
    columns = [name for name in named if name not in (*_NO_COLUMNS, *last)] + last
    lines = [
        "| flagfile | " + " | ".join(columns) + " | seeds |",
        "|---|" + "---|" * (len(columns) + 1),
    ]
    for row in rows:
        cells = [_cell([run[c] for run in row["runs"] if c in run]) for c in columns]
        lines.append(f"| {row['name']} | " + " | ".join(cells) + f" | {row['seeds']} |")
    return "\n".join(lines)


def _cell(values):
    if not values:
        return "-"
    mean = statistics.fmean(values)
    text = f"{mean:.3f}" if mean < 1 else f"{mean:.1f}"
    return f"{text} ± {statistics.stdev(values):.3f}" if len(values) > 1 else text


if __name__ == "__main__":
    main()
