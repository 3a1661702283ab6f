"""Runs flagfiles one after another, resumes what was cut, and tabulates what they reached.

    python -m benchmarks.sweep flags/ssl_small/ablation/*.flags --data_dir=PATH
    python -m benchmarks.sweep flags/cifar10_distillation/*.flags --seeds=0,1,2 --json=table.json \
        --data_dir=PATH

Flags that are not of this command go to every run. Each is a process of `train.py` in a directory
of its own, named after its flagfile; one that has ended is not run again, so that a sweep that was
stopped goes on where it was. Files whose names begin with "base" are left out: others include them.
"""

import argparse
import json
import pathlib
import statistics
import subprocess
import sys

from keras_sacl.evaluation import is_score

_SECONDS = "seconds_per_epoch"


def main():
    """Runs what is missing and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=_Raw)
    parser.add_argument("flagfiles", nargs="+", type=pathlib.Path)
    parser.add_argument(
        "--runs", type=pathlib.Path, default=pathlib.Path("runs/sweep"), help="where the runs go"
    )
    parser.add_argument("--seeds", default="0", help="seeds, such as 0,1,2")
    parser.add_argument("--json", type=pathlib.Path, help="file for the numbers")
    parser.add_argument("--table_only", action="store_true", help="tabulate what is there")
    options, extra = parser.parse_known_args()
    missing = [str(path) for path in options.flagfiles if not path.is_file()]
    if missing:
        parser.error(f"no such file: {', '.join(missing)}")
    try:
        seeds = [int(seed) for seed in options.seeds.split(",")]
    except ValueError:
        parser.error(f"--seeds={options.seeds}: must be numbers such as 0,1,2")

    rows, failed = [], []
    for path in options.flagfiles:
        if path.name.startswith("base"):
            continue
        name, found = name_of(path), []
        for seed in seeds:
            run_dir = options.runs / name / f"seed{seed}"
            if not options.table_only and not run(path, run_dir, seed, extra):
                failed.append(run_dir)
            if ended(run_dir):
                found.append(results(run_dir))
        if found:
            rows.append({"name": name, "seeds": len(found), "runs": found})
            print(table(rows), flush=True)
    if options.json:
        options.json.write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")
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
    found = json.loads((run_dir / "results.json").read_text(encoding="utf-8"))
    lines = (run_dir / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    seconds = [json.loads(line)["seconds"] for line in lines]
    scores = {name: value for name, value in found["evaluate"].items() if is_score(name)}
    return {"run_dir": str(run_dir), **scores, _SECONDS: statistics.median(seconds)}


def name_of(flagfile):
    """What a run is called: the path of its flagfile below flags/, without the ending."""
    parts = flagfile.with_suffix("").parts
    return "/".join(parts[parts.index("flags") + 1 :] if "flags" in parts else parts[-1:])


def table(rows):
    """The rows as a Markdown table: means over seeds, with deviations where there are several."""
    named = (name for row in rows for run in row["runs"] for name in run)
    columns = [name for name in dict.fromkeys(named) if name not in ("run_dir", _SECONDS)]
    columns.append(_SECONDS)
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


class _Raw(argparse.RawDescriptionHelpFormatter):
    pass


if __name__ == "__main__":
    main()
