"""Chart of a run's ``metrics.csv``: losses, scores of the answers and weights of the fusions over the steps."""

import math
from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from omnihuman.source.glyphs import choose_fonts, make_drawable
from omnihuman.training.selection import SCORED

Rows = Sequence[Mapping[str, float]]

FLOOR = "floor/"
"""Begins the names of floors: ``floor/emotion/war`` is what the best constant answer scores in ``val/emotion/war``."""

SMOOTHING = 0.05
"""Share of the training losses that a running mean covers."""

PANEL = (5.0, 3.6)
"""Inches of a panel, with its share of the margins."""


def draw_curves(rows: Rows, file: Path, title: str) -> None:
    """Write a PNG with the metrics of a run, whose tasks have names in any script."""
    from matplotlib import rc_context

    with rc_context(choose_fonts([title, *chain.from_iterable(rows)])):
        build_figure(rows, title).savefig(file, dpi=110)


def build_figure(rows: Rows, title: str) -> Any:
    """Draw the metrics of a run, in one panel for each kind.

    A training loss is drawn faintly behind its running mean, a validation before the first step as an open circle, and
    a floor as a dashed line in the color of its score.

    Args:
        rows: of ``metrics.csv``.
        title: of the chart.
    """
    from matplotlib.figure import Figure

    panels = _group_metrics(rows)
    num_columns = min(4, len(panels))
    num_rows = math.ceil(len(panels) / num_columns)
    figure = Figure(figsize=(PANEL[0] * num_columns, PANEL[1] * num_rows))
    places = _place_panels(num_columns, num_rows)
    grid = list(figure.subplots(num_rows, num_columns, squeeze=False, gridspec_kw=places).flat)
    for axes in grid[len(panels) :]:
        axes.set_visible(False)
    for axes, (kind, names) in zip(grid, panels.items(), strict=False):
        for index, name in enumerate(names):
            label, color = make_drawable(name.removeprefix(f"{kind}/")).text, f"C{index}"
            if name.startswith("train/"):
                _draw_training(axes, rows, name, label, color)
            else:
                _draw_validations(axes, rows, name, label, color)
        axes.set(title=make_drawable(kind).text, xlabel="optimizer step")
        axes.grid(alpha=0.3)
        axes.legend(fontsize=9)
    figure.suptitle(make_drawable(title).text)
    return figure


def _place_panels(num_columns: int, num_rows: int) -> dict[str, float]:
    """Return the margins of a figure and the gaps of its panels: a layout by their contents draws all of it twice."""
    left, right, bottom, top, column_gap, row_gap = 0.6, 0.2, 0.5, 0.7, 0.75, 0.95  # inches
    width, height = PANEL[0] * num_columns, PANEL[1] * num_rows
    axes_width = (width - left - right - column_gap * (num_columns - 1)) / num_columns
    axes_height = (height - bottom - top - row_gap * (num_rows - 1)) / num_rows
    return {
        "left": left / width,
        "right": 1 - right / width,
        "bottom": bottom / height,
        "top": 1 - top / height,
        "wspace": column_gap / axes_width,
        "hspace": row_gap / axes_height,
    }


def _draw_training(axes: Any, rows: Rows, name: str, label: str, color: str) -> None:
    steps, values = _select_points(rows, name)
    window = max(1, round(SMOOTHING * len(values)))
    axes.plot(steps, values, color=color, linewidth=0.8, alpha=0.3)
    axes.plot(steps, average(values, window), color=color, linewidth=1.6, label=f"{label}, mean of {window} steps")


def _draw_validations(axes: Any, rows: Rows, name: str, label: str, color: str) -> None:
    steps, values = _select_points(rows, name)
    axes.plot(steps, values, color=color, linewidth=1, marker="o", markersize=4, label=label)
    if not steps[0]:  # before the first step
        axes.plot(steps[:1], values[:1], "o", color=color, markerfacecolor="white", markersize=6)
        if not axes.texts:
            place = {"xytext": (7, 0), "textcoords": "offset points", "va": "center"}
            axes.annotate("untrained", (steps[0], values[0]), fontsize=8, **place)
    floor = FLOOR + name.removeprefix("val/")
    if any(floor in row for row in rows):
        _, floors = _select_points(rows, floor)
        axes.axhline(floors[-1], color=color, linewidth=1, linestyle="--", label=f"{label} of the best constant answer")


def _select_points(rows: Rows, name: str) -> tuple[list[float], list[float]]:
    """Return the steps that have a metric, and its values."""
    steps, values = [], []
    for row in rows:
        if name in row:
            steps.append(row["step"])
            values.append(row[name])
    return steps, values


def average(values: Sequence[float], window: int) -> list[float]:
    """Return the mean of each value and the ``window - 1`` values before it, as far as there are any.

    >>> average([1.0, 3.0, 5.0], 2)
    [1.0, 2.0, 4.0]
    """
    means = []
    for end in range(1, len(values) + 1):
        part = values[max(0, end - window) : end]
        means.append(sum(part) / len(part))
    return means


def _group_metrics(rows: Rows) -> dict[str, list[str]]:
    """Return the names of metrics by panel: losses of answers in one, ``val/emotion/war`` and ``/uar`` in another."""
    panels: dict[str, list[str]] = {"loss": []}
    for row in rows:
        for name in row:
            if name.endswith("/loss"):
                panel = "loss"
            elif name.endswith("_loss"):
                panel = "auxiliary losses"
            elif name.startswith(SCORED) or (name.startswith("train/") and name.count("/") > 1):
                panel = name.rpartition("/")[0]
            else:
                continue
            names = panels.setdefault(panel, [])
            if name not in names:
                names.append(name)
    return panels
