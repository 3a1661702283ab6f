"""Contenders side by side: each in a process of its own, in turn, with medians and memory."""

import dataclasses
import multiprocessing
import os
import statistics
import time
import traceback


@dataclasses.dataclass(frozen=True)
class Contender:
    """Something to time.

    Attributes:
        name: Shown in the table.
        build: A function at a module's top level, called in the contender's process with
            `arguments`; returns a function without arguments that does the work once and
            returns when it is done, or the seconds (float) of the part that counts. `build` may
            raise ImportError: the contender is then left out.
        arguments: A dict of what `build` takes.
    """

    name: str
    build: object
    arguments: dict = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Measurement:
    """Seconds of each repetition, and the memory that one takes at its peak, in bytes."""

    seconds: tuple
    peak_bytes: int | None

    @property
    def median(self):
        return statistics.median(self.seconds)


def race(contenders, *, repeats=7, warmup=2):
    """Times the contenders in turn (A B C A B C ...), so that a slow minute hits all alike.

    A process each keeps thread pools and allocators apart; those that wait are asleep.

    Args:
        contenders: A list of `Contender`.
        repeats: Timed repetitions of each.
        warmup: Repetitions before, not timed: tracing, compilation, caches.

    Returns:
        A dict from name to `Measurement`, without those whose library is missing.

    Raises:
        RuntimeError: If a contender fails; with its traceback.
    """
    context = multiprocessing.get_context("spawn")
    running = {}
    try:
        for contender in contenders:
            ours, theirs = context.Pipe()
            # Not a daemon: a contender may have workers of its own.
            process = context.Process(target=_serve, args=(theirs, contender, warmup))
            process.start()
            theirs.close()
            # One after the other: two at once would compile and warm up against each other.
            kind, value = _receive(ours, contender.name)
            if kind == "missing":
                print(f"{contender.name}: left out ({value})", flush=True)
                process.join()
                continue
            running[contender.name] = (ours, process, value)
        seconds = {name: [] for name in running}
        for _ in range(repeats):
            for name, (pipe, _, _) in running.items():
                pipe.send("go")
                seconds[name].append(_receive(pipe, name)[1])
        return {
            name: Measurement(tuple(seconds[name]), memory)
            for name, (_, _, memory) in running.items()
        }
    finally:
        for pipe, process, _ in running.values():
            pipe.close()
            process.join(5)
            if process.is_alive():
                process.kill()


def _receive(pipe, name):
    try:
        kind, value = pipe.recv()
    except EOFError:
        raise RuntimeError(f"{name} died without a word (killed for memory?)") from None
    if kind == "error":
        raise RuntimeError(f"{name} failed:\n{value}")
    return kind, value


def _serve(pipe, contender, warmup):
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    try:
        work = contender.build(**contender.arguments)
        before = _resident("VmRSS")
        _reset_peak()
        for _ in range(max(warmup, 1)):
            work()
        peak = _resident("VmHWM")
        pipe.send(("ready", None if peak is None else max(peak - before, 0)))
        while pipe.recv() == "go":
            start = time.perf_counter()
            own = work()
            seconds = own if isinstance(own, float) else time.perf_counter() - start
            pipe.send(("seconds", seconds))
    except ImportError as error:
        pipe.send(("missing", str(error)))
    except EOFError:
        pass  # the race is over
    except Exception:
        pipe.send(("error", traceback.format_exc()))


def _resident(field):
    """A memory figure of this process in bytes; None where the system does not tell."""
    try:
        with open("/proc/self/status", encoding="ascii") as status:
            line = next(line for line in status if line.startswith(field))
    except (OSError, StopIteration):
        return None
    return int(line.split()[1]) * 1024


def _reset_peak():
    try:
        with open("/proc/self/clear_refs", "w", encoding="ascii") as file:
            file.write("5")
    except OSError:
        pass  # the peak then counts from the process's start
