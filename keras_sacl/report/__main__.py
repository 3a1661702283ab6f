"""One page on one run, or on several side by side.

python -m keras_sacl.report RUN_DIR [RUN_DIR ...] [--output=report.html]
"""

# A command, and so above the stages, as train.py is.

import os
import sys
from pathlib import Path

from keras_sacl.command_line import OneLineParser


def main(argv=None):
    """Returns the exit code: 0, or 2 on bad input, after one line on stderr."""
    parser = OneLineParser("report", __doc__)
    parser.add_argument("run_dirs", nargs="+", metavar="RUN_DIR", help="--run_dir of train.py")
    parser.add_argument(
        "--output", help="file to write; default: RUN_DIR/report.html, and report.html for several"
    )
    parser.add_argument("--data_dir", help="where TFDS data sets lie, if no longer where they were")
    options = parser.parse_args(argv)
    default = "report.html"
    if len(options.run_dirs) == 1:
        default = str(Path(options.run_dirs[0]) / "report.html")
    output = Path(options.output or default)
    try:
        text = _page(options, output)
        from keras_sacl.stages.run_dir import write_text

        write_text(output, text)
    except (ValueError, OSError) as error:
        print(f"report: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    print(output)
    return 0


def _page(options, output):
    if not output.parent.is_dir():
        raise ValueError(f"--output={output}: {output.parent} is no directory")
    missing = [path for path in options.run_dirs if not (Path(path) / "flags.txt").is_file()]
    if missing:
        raise ValueError(f"RUN_DIR {missing[0]}: holds no run (no flags.txt); name a --run_dir")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    # Not at the top: TensorFlow takes seconds to import, and bad input should not wait for it.
    import dataclasses

    from keras_sacl.config import RunConfig
    from keras_sacl.report.page import report_page
    from keras_sacl.stages.report import collect
    from keras_sacl.stages.run_dir import RunDir

    runs = []
    for path in options.run_dirs:
        run_dir = RunDir(path)
        try:
            config = RunConfig.from_flag_lines(run_dir.flags.read_text(encoding="utf-8"))
        except ValueError as error:
            raise ValueError(f"RUN_DIR {path}: flags.txt: {error}") from error
        if options.data_dir:
            config = dataclasses.replace(config, data_dir=options.data_dir)
        runs.append(collect(config, run_dir, _short_name(path, options.run_dirs)))
    return report_page(runs)


def _short_name(path, paths):
    """The directory's name, or so much of its path as tells it from the others."""
    parts = Path(path).resolve().parts
    others = [Path(other).resolve().parts for other in paths if other != path]
    length = 1
    while length < len(parts) and any(other[-length:] == parts[-length:] for other in others):
        length += 1
    return "/".join(parts[-length:])


if __name__ == "__main__":
    sys.exit(main())
