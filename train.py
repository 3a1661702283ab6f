"""Pretrains a small image encoder without labels, evaluates it, and exports it for phones.

    python train.py --flagfile=flags/quickstart.flags

Exit codes: 0 done; 2 bad input (one line on stderr says which flag); 3 an exported file failed
its check; 4 training or fine-tuning diverged; 5 a fault from outside in the middle of the
run (disk, memory, data, another worker); 130 and 143 stopped by SIGINT and SIGTERM, after a
checkpoint.
"""

import dataclasses
import signal
import sys

from absl import app, flags, logging

from keras_sacl.config import ConfigError, RunConfig
from keras_sacl.config.settings import flag_and_value, kind_of
from keras_sacl.quiet import quiet

BAD_INPUT, FAILED_EXPORT, STOPPED, FAULT = 2, 3, 4, 5


def define_flags(holder=flags.FLAGS):
    """Defines one flag for each field of RunConfig."""
    for field in dataclasses.fields(RunConfig):
        kind = kind_of(field)
        define = {
            bool: flags.DEFINE_boolean,
            int: flags.DEFINE_integer,
            float: flags.DEFINE_float,
            str: flags.DEFINE_string,
            tuple: flags.DEFINE_list,
        }[kind]
        default = list(field.default) if kind is tuple else field.default
        define(field.name, default, field.metadata["help"], flag_values=holder)


def read_config(argv, holder=flags.FLAGS):
    """The validated RunConfig of a command line.

    Raises:
        ConfigError: On a value that cannot work.
        flags.Error: On an unknown flag or a value of the wrong type.
    """
    try:
        positional = holder(argv)[1:]
    except UnicodeDecodeError as error:
        raise flags.Error(f"--flagfile: holds no UTF-8 text ({error.reason})") from error
    except flags.CantOpenFlagFileError as error:
        raise flags.Error(str(error).removeprefix("ERROR:: ")) from error
    if positional:
        raise flags.Error(f"Unknown argument {positional[0]!r}; settings are given as --flag=value")
    values = {}
    for field in dataclasses.fields(RunConfig):
        value = holder[field.name].value
        values[field.name] = tuple(value) if isinstance(value, list) else value
    return RunConfig(**values).validated()


def run(config):
    """Runs the stages of a configuration; returns the exit code."""
    from keras_sacl import stages
    from keras_sacl.callbacks import CheckpointError, TrainingStopped
    from keras_sacl.stages.summary import summary

    if config.dry_run:
        stages.dry_run(config, say)
        return 0
    if "pretrain" in config.stages:
        stages.make_strategy(config)  # before anything computes: it may divide the devices
    run_dir = stages.RunDir(config.run_dir)
    first = stages.is_first(config)
    if first:
        run_dir.check(config)
    same_run = config.eval_encoder is None and (config.resume or "pretrain" not in config.stages)
    if first and same_run and run_dir.flags.exists():
        check_same_run(config, run_dir.flags)
    try:
        stages.check_inputs(config)
    except ValueError as error:  # of a loader: its text names the flag
        raise ConfigError.from_text(error) from error
    if first:
        run_dir.start(config)
    try:
        for name, stage in stages.RUNNERS.items():
            if name in config.stages and (first or name == "pretrain"):
                stage(config, run_dir, say=say if first else lambda line: None)
    except TrainingStopped as stopped:
        print(f"train.py: training stopped: {stopped}", file=sys.stderr)
        return STOPPED
    except CheckpointError as error:
        print(f"train.py: {error}; --resume continues from there", file=sys.stderr)
        return FAULT
    if not first:
        return 0
    results = run_dir.results()
    print(summary(results))
    print(f"everything is in {run_dir.path}")
    failed = {
        name: row["reason"]
        for name, row in results.get("export", {}).items()
        if "export" in config.stages and not row["passed"]
    }
    for name, reason in failed.items():
        print(f"train.py: {name} failed its check: {reason}", file=sys.stderr)
    return FAILED_EXPORT if failed else 0


def check_same_run(config, flags_file):
    """Refuses to go on with a run under settings that would make it another run."""
    try:
        text = flags_file.read_text(encoding="utf-8")
        earlier = RunConfig.from_flag_lines(text)
    except (ConfigError, UnicodeDecodeError) as error:
        raise ConfigError(
            "run_dir",
            config.run_dir,
            f"holds a run that this version of keras_sacl cannot continue ({flags_file.name}: "
            f"{' '.join(str(error).split())}); name another, or --overwrite it",
        ) from error
    for name in config.differences(earlier):
        was = getattr(earlier, name)
        was = "the default" if was in (None, ()) else was
        # A run of a version that did not have a setting says nothing of it.
        names = {field.name for field in dataclasses.fields(RunConfig)}
        said = {flag_and_value(line, names)[0] for line in text.splitlines()}
        lines = {flag_and_value(line, names)[0]: line for line in earlier.flag_lines()}
        unsaid = [n for n in (name, *earlier.set_by_version()) if n in lines and n not in said]
        more = "".join(f" {lines[n]}" for n in dict.fromkeys(unsaid))
        raise ConfigError(
            name,
            getattr(config, name),
            f"the run in {config.run_dir} has {was}; start from "
            f"--flagfile={flags_file}{more} unchanged, or name another --run_dir",
        )


def say(line):
    print(line, flush=True)


def main(argv, holder=flags.FLAGS):
    """Parses, runs, and turns what went wrong into one line on stderr; returns the exit code."""
    try:
        return run(read_config(argv, holder))
    except (ConfigError, flags.Error) as error:
        print(f"train.py: {' '.join(str(error).split())}", file=sys.stderr)
        return BAD_INPUT
    except Exception as error:
        from keras_sacl.stages.faults import fault_line

        line = fault_line(error)
        if line is None:
            raise
        print(f"train.py: {line}; --resume continues from the last checkpoint", file=sys.stderr)
        return FAULT
    except KeyboardInterrupt as interrupt:
        number = getattr(interrupt, "number", signal.SIGINT)
        name = signal.Signals(number).name
        print(f"train.py: stopped by {name}; --resume continues from the last checkpoint",
              file=sys.stderr)  # fmt: skip
        return 128 + number


def stop(number, frame):
    """Handles SIGTERM as Python handles SIGINT."""
    interrupt = KeyboardInterrupt()
    interrupt.number = number
    raise interrupt


def import_tensorflow():
    """Imports TensorFlow, less its notes on GPUs, which would bury the one line that matters."""
    with quiet():
        import tensorflow as tf

        tf.config.list_physical_devices()


if __name__ == "__main__":
    try:
        import_tensorflow()
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGINT)
    define_flags()
    app.define_help_flags()
    logging.set_verbosity(logging.ERROR)  # TFDS' deprecation notes
    signal.signal(signal.SIGTERM, stop)  # not before: nothing is worth a word until here
    sys.exit(main(sys.argv))
