"""What a report shows of one run: plain values and arrays."""

import dataclasses
import functools

import numpy as np

from keras_sacl.config import ConfigError, RunConfig


@dataclasses.dataclass
class Looks:
    """What the trained encoder makes of some test images.

    Attributes:
        pixels: uint8 (N, S, S, 3), the images as they are shown.
        features: (N, F) of the frozen encoder.
        labels: (N,) integers, or None.
        class_names: Names of the labels, or None.
        views: Pairs of views of training images, as `views.view_rows` gives them.
        correlations: Correlation matrices (D, D) of embeddings, by title: under "views" those of
            the two views, under "encoders" of one view by the host and by the slim network.
    """

    pixels: np.ndarray
    features: np.ndarray
    labels: np.ndarray | None = None
    class_names: list | None = None
    views: list = dataclasses.field(default_factory=list)
    correlations: dict = dataclasses.field(default_factory=dict)

    def class_name(self, index):
        """Name of the class of image `index`; empty where it has none."""
        if self.labels is None:
            return ""
        label = int(self.labels[index])
        return str(self.class_names[label]) if self.class_names else str(label)


@dataclasses.dataclass
class RunReport:
    """One run.

    Attributes:
        name: What it is called in tables and legends.
        flag_lines: The lines of its flags.txt.
        metrics: A dict for each epoch, as `callbacks.MetricsLog` writes them.
        results: Contents of results.json.
        looks: `Looks`, or None.
        costs: Rows (what, text) of its training cost; may be empty.
        notes: What could not be shown, and why; lines of text.
    """

    name: str
    flag_lines: list
    metrics: list
    results: dict
    looks: Looks | None = None
    costs: list = dataclasses.field(default_factory=list)
    notes: list = dataclasses.field(default_factory=list)

    def curve(self, name):
        """(epochs, values) of a metric, where it was measured."""
        points = [(line["epoch"], line[name]) for line in self.metrics if name in line]
        return tuple(zip(*points, strict=True)) if points else ((), ())

    @functools.cached_property  # each curve asks for it
    def phase_ends(self):
        """The epochs after which other networks trained than before: see `RunConfig.phase_ends`."""
        try:
            return RunConfig.from_flag_lines("\n".join(self.flag_lines)).phase_ends
        except ConfigError:  # of a version with other settings
            return ()
