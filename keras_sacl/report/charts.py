"""Charts as SVG inside the page: their text and axes take its colours, light or dark."""

import hashlib
import io
import re

import numpy as np

# Told apart in both themes, and by most who do not see all colours ("Points of view: Color
# blindness", 2011, slightly darkened).
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#b8860b", "#56a0d3", "#7a5195", "#777777")
_INK = "#010203"  # stands for the page's own text colour
_SIZE = (4.6, 3.0)  # inches; small, so that text stays readable on a phone


def line_chart(curves, *, x, y, log=False, marks=()):
    """Lines over epochs.

    Args:
        curves: List of (name, xs, ys).
        x, y: Titles of the axes.
        marks: For each curve the xs at which it gets a dotted line across.
        log: Whether y is logarithmic (where all values are positive).

    Returns:
        SVG text.
    """
    import matplotlib.ticker

    figure, axes = _figure(x, y)
    for (name, xs, ys), colour in zip(curves, _colours(len(curves)), strict=True):
        marker = "o" if len(xs) <= 30 else None
        axes.plot(xs, ys, color=colour, label=name, linewidth=1.6, marker=marker, markersize=3)
    for found, colour in zip(marks, _colours(len(marks)), strict=True):
        for mark in found:
            axes.axvline(mark, color=colour, linewidth=1, linestyle=":")
    if log and all(min(ys) > 0 for _, _, ys in curves):
        axes.set_yscale("log")
        for axis in (axes.yaxis.set_major_formatter, axes.yaxis.set_minor_formatter):
            axis(matplotlib.ticker.LogFormatter(minor_thresholds=(2, 0.8)))
    axes.xaxis.get_major_locator().set_params(integer=True)
    if len(curves) > 1:
        _legend(axes)
    return _svg(figure)


def path_chart(curves, *, x, y):
    """Paths through a plane, one point for each epoch, the last one large.

    Args:
        curves: List of (name, xs, ys), in the order of the epochs.
        x, y: Titles of the axes.

    Returns:
        SVG text.
    """
    figure, axes = _figure(x, y)
    for (name, xs, ys), colour in zip(curves, _colours(len(curves)), strict=True):
        axes.plot(xs, ys, color=colour, label=name, linewidth=1, marker="o", markersize=3)
        axes.plot(xs[-1:], ys[-1:], color=colour, marker="o", markersize=8)
    if len(curves) > 1:
        _legend(axes)
    return _svg(figure)


def bar_chart(names, values, *, y):
    """Bars with their values above them.

    Args:
        names, values: Of the bars.
        y: Title of the axis.

    Returns:
        SVG text.
    """
    figure, axes = _figure("", y)
    bars = axes.bar(names, values, color=_colours(len(names)), width=0.6)
    axes.bar_label(bars, fmt="%.3f", color=_INK, fontsize=8)
    axes.tick_params(axis="x", rotation=20 if max(map(len, names)) > 10 else 0)
    axes.margins(y=0.15)
    return _svg(figure)


def scatter(points, labels, names):
    """Points of the plane, coloured by class.

    Args:
        points: (N, 2).
        labels: (N,) integers, or None.
        names: From label to its name.

    Returns:
        SVG text.
    """
    figure, axes = _figure("", "")
    axes.set_axis_off()
    classes = [None] if labels is None else np.unique(labels)
    many = len(classes) > len(COLOURS)
    for i, label in enumerate(classes):
        own = points if label is None else points[labels == label]
        # Beyond the colours that can be told apart, the shape changes too.
        marker = "o^sDvP*X"[i // len(COLOURS) % 8] if many else "o"
        colour = COLOURS[i % len(COLOURS)]
        text = "" if label is None else names(int(label))
        axes.scatter(*own.T, s=9, color=colour, marker=marker, label=text, rasterized=True)
    if labels is not None and len(classes) <= 24:
        _legend(axes, outside=True)
    return _svg(figure)


def matrices(named):
    """Correlation matrices side by side, -1 to 1.

    Args:
        named: From a title to a (D, D) array.

    Returns:
        SVG text.
    """
    import matplotlib.figure

    figure = matplotlib.figure.Figure(figsize=_SIZE, layout="constrained")
    for i, (title, matrix) in enumerate(named.items(), start=1):
        axes = figure.add_subplot(1, len(named), i)
        image = axes.imshow(matrix, cmap="RdBu_r", vmin=-1, vmax=1, interpolation="nearest")
        axes.set_title(title, fontsize=9, color=_INK)
        axes.set_xticks([])
        axes.set_yticks([])
    bar = figure.colorbar(image, ax=figure.axes, shrink=0.8)
    bar.ax.tick_params(colors=_INK, labelsize=8)
    bar.outline.set_visible(False)
    return _svg(figure)


def _figure(x, y):
    # The object's own interface: pyplot keeps every figure, and asks for a display.
    import matplotlib.figure

    figure = matplotlib.figure.Figure(figsize=_SIZE, layout="constrained")
    axes = figure.add_subplot()
    axes.set_xlabel(x, color=_INK)
    axes.set_ylabel(y, color=_INK)
    axes.tick_params(which="both", colors=_INK, labelsize=8)
    axes.grid(color=_INK, alpha=0.15, linewidth=0.6)
    axes.set_axisbelow(True)
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(_INK)
    return figure, axes


def _legend(axes, outside=False):
    place = {"loc": "center left", "bbox_to_anchor": (1, 0.5)} if outside else {"loc": "best"}
    axes.legend(fontsize=7, frameon=False, labelcolor=_INK, **place)


def _colours(count):
    return [COLOURS[i % len(COLOURS)] for i in range(count)]


def _svg(figure):
    import matplotlib

    with io.StringIO() as file:
        # Text as text: it can be searched and read aloud, and the file is a third as large.
        with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "0"}):
            figure.savefig(file, format="svg", transparent=True, metadata={"Date": None})
        text = file.getvalue()
    text = text[text.index("<svg") :].replace(_INK, "currentColor")
    text = re.sub(r"font: ([\d.]+)px [^;\"]*", r"font-size: \1px", text)
    text = re.sub(r' (width|height)="[\d.]+pt"', "", text, count=2)
    # Several figures share one page, and must not share names.
    salt = "f" + hashlib.sha256(text.encode()).hexdigest()[:8]
    for name in set(re.findall(r'\bid="([^"]+)"', text)):
        text = text.replace(f'id="{name}"', f'id="{salt}{name}"')
        text = text.replace(f'"#{name}"', f'"#{salt}{name}"')
        text = text.replace(f"url(#{name})", f"url(#{salt}{name})")
    return text
