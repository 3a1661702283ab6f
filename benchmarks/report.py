"""What every benchmark prints and writes: one table, one JSON file of ratios."""

import argparse
import json
import platform


def parse(description, **more):
    """The command line that all benchmarks share.

    Args:
        description: The benchmark's docstring.
        **more: Default values of further options, by name.

    Returns:
        An `argparse.Namespace` with json, repeats and the further options.
    """
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", metavar="FILE", help="write the ratios there")
    parser.add_argument("--repeats", type=int, default=7, help="timed repetitions (at least 5)")
    for name, default in more.items():
        kind = str if default is None else type(default)
        parser.add_argument(f"--{name}", type=kind, default=default, help=f"default: {default}")
    options = parser.parse_args()
    if options.repeats < 1:
        parser.error(f"--repeats={options.repeats}: must be at least 1")
    return options


class Report:
    """Collects measurements and prints them.

    Args:
        title: The workload, said once.
    """

    def __init__(self, title):
        self.rows = []
        print(f"{title}\n{platform.machine()}, {_cores()} cores, {platform.python_version()}\n")

    def times(self, case, measurements, ours, *, units=1, unit="s"):
        """Prints a block of one case and records the ratio of `ours` to every other.

        Args:
            case: The workload in a few words.
            measurements: As `race` returns them.
            ours: Name of our contender; the ratio is theirs / ours in time, above 1 if ours is
                faster.
            units: Pieces of work in one repetition (images, steps); with `unit` other than "s",
                the table shows units per second.
            unit: "s", or what is counted per second, such as "images/s".
        """

        def shown(seconds):
            return seconds if unit == "s" else units / seconds

        reference = measurements[ours]
        print(f"{case}\n  {'':34}{'median':>11}{'spread':>24}{'peak MiB':>10}{'ratio':>8}")
        for name, found in measurements.items():
            ratio = found.median / reference.median
            low, high = sorted((shown(min(found.seconds)), shown(max(found.seconds))))
            memory = "-" if found.peak_bytes is None else f"{found.peak_bytes / 2**20:.0f}"
            print(
                f"  {name:34}{_number(shown(found.median)):>11}"
                f"{_number(low) + ' to ' + _number(high):>24}{memory:>10}{ratio:8.2f}",
                flush=True,
            )
            if name != ours:
                self.add(case, shown(reference.median), shown(found.median), name, unit, ratio)
        print(f"  ({unit})\n")

    def memory(self, case, measurements, ours):
        """Records the ratios of the peak memory of measurements that `times` has shown."""
        mine = measurements[ours].peak_bytes
        for name, found in measurements.items():
            if name != ours and mine and found.peak_bytes:
                ratio = found.peak_bytes / mine
                self.add(case, mine / 2**20, found.peak_bytes / 2**20, name, "MiB", ratio)
                print(f"{case}: {name} takes {ratio:.2g} times the memory of {ours}\n")

    def add(self, case, ours, peer, peer_name, unit, ratio):
        """Records one ratio, above 1 if ours is better."""
        self.rows.append(
            {
                "case": case,
                "ours": ours,
                "peer": peer,
                "peer_name": peer_name,
                "unit": unit,
                "ratio": ratio,
            }
        )

    def write(self, path):
        """Writes the ratios to a JSON file, if one is asked for."""
        if path:
            with open(path, "w", encoding="utf-8") as file:
                json.dump(self.rows, file, indent=2)
                file.write("\n")


def _number(value):
    return f"{value:.4g}" if value < 1e4 else f"{value:,.0f}"


def _cores():
    import os

    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
