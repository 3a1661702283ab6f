"""metrics.jsonl: one line of JSON for each epoch."""

import json
import os
import time
from pathlib import Path

import keras


class MetricsLog(keras.callbacks.Callback):
    """Appends each epoch's logs, with the epoch (from 1), step, learning rate and seconds.

    Lines of epochs that a resumed run does again are dropped first, so that each epoch stands
    there once.

    Args:
        path: The file to write.
    """

    def __init__(self, path):
        super().__init__()
        self.path = Path(path)
        self._started = None

    def on_epoch_begin(self, epoch, logs=None):
        if self._started is None:
            self._drop_lines_from(epoch + 1)
        self._started = time.perf_counter()

    def on_epoch_end(self, epoch, logs=None):
        optimizer = self.model.optimizer
        line = {
            "epoch": epoch + 1,
            "step": int(optimizer.iterations.numpy()),
            "seconds": round(time.perf_counter() - self._started, 3),
            "learning_rate": float(optimizer.learning_rate),
            **{name: float(value) for name, value in (logs or {}).items()},
        }
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
            file.flush()
            os.fsync(file.fileno())

    def _drop_lines_from(self, epoch):
        kept = [line for line in read_metrics(self.path) if line["epoch"] < epoch]
        text = "".join(json.dumps(line) + "\n" for line in kept)
        temporary = self.path.with_suffix(".tmp")
        temporary.write_text(text, encoding="utf-8")
        os.replace(temporary, self.path)


def read_metrics(path):
    """The lines of a metrics.jsonl as dicts; a last line cut short by a kill is left out."""
    path = Path(path)
    if not path.exists():
        return []
    lines = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            lines.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return lines
