"""Silence for libraries whose C++ side writes to the process's own streams."""

import contextlib
import logging
import os
import sys
import tempfile
import warnings

_LOG = logging.getLogger(__name__)


@contextlib.contextmanager
def quiet():
    """Holds back what is written to stdout and stderr inside, by Python and by C++.

    A converter writes pages of notes that would bury the one line that matters; what is wrong
    comes as an exception. The text goes to this module's logger, level debug.
    """
    streams = [stream for stream in (sys.stdout, sys.stderr) if stream is not None]
    for stream in streams:
        stream.flush()
    kept = [(number, os.dup(number)) for number in (1, 2)]
    absl = logging.getLogger("absl")
    level = absl.level
    with tempfile.TemporaryFile() as held:
        try:
            absl.setLevel(logging.ERROR)
            for number, _ in kept:
                os.dup2(held.fileno(), number)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                yield
        finally:
            for stream in streams:
                stream.flush()
            for number, copy in kept:
                os.dup2(copy, number)
                os.close(copy)
            absl.setLevel(level)
            held.seek(0)
            text = held.read().decode(errors="replace").strip()
            if text:
                _LOG.debug(text)
