"""A study as a chart."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from omnihuman.source.glyphs import choose_fonts, make_drawable
from omnihuman.studies.results import CellResult

FORMATS = ("png", "pdf", "svg")

TEXT_AS_TEXT = {"svg.fonttype": "none", "pdf.fonttype": 42, "svg.hashsalt": "omnihuman"}
"""Settings of matplotlib: text stays text in a paper, and equal charts have equal bytes."""

COLOR, SEED_COLOR = "#2a6f97", "#9fb8c8"


def draw_chart(folder: Path, title: str, results: Sequence[CellResult], columns: Mapping[str, str]) -> None:
    """Draw a panel per score with the cells' means, their intervals and the values of the seeds.

    Args:
        folder: in which ``chart.png``, ``chart.pdf`` and ``chart.svg`` are written.
        title: of the chart.
        results: of the cells; those without scores are left out.
        columns: score key -> title of its panel.
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    results = [result for result in results if result.means]
    labels = [result.label for result in results]
    texts = (title, *columns.values(), *labels)
    drawable = {text: make_drawable(text).text for text in texts}
    with rc_context(TEXT_AS_TEXT | choose_fonts(texts)):
        figure = Figure(figsize=(1.8 + 3.0 * len(columns), 1.5 + 0.45 * max(1, len(results))), layout="constrained")
        panels = list(figure.subplots(1, max(1, len(columns)), squeeze=False, sharey=True).flat)
        heights = list(range(len(results)))[::-1]
        for axes, (key, label) in zip(panels, columns.items(), strict=False):
            for height, result in zip(heights, results, strict=True):
                if key in result.means:
                    _draw_score(axes, height, result, key)
            axes.set_title(drawable[label], fontsize=10)
            axes.grid(axis="x", alpha=0.3)
            axes.set_ylim(-0.6, len(results) - 0.3)
        panels[0].set_yticks(heights, [drawable[label] for label in labels])
        figure.suptitle(drawable[title], fontsize=11)
        logging.getLogger("fontTools.subset").setLevel(logging.WARNING)  # it names every table of a font
        for name in FORMATS:
            date = {"pdf": {"CreationDate": None}, "svg": {"Date": None}}.get(name)
            figure.savefig(folder / f"chart.{name}", dpi=110, metadata=date)


def _draw_score(axes: Any, height: int, result: CellResult, key: str) -> None:
    mean = result.means[key]
    ends = [[mean.value - mean.low], [mean.high - mean.value]]
    if mean.deviation is not None:
        values = [score.value for score in result.scores[key].values()]
        axes.plot(values, [height] * len(values), "|", color=SEED_COLOR, markersize=12)
    axes.errorbar(mean.value, height, xerr=ends, fmt="o", capsize=3, color=COLOR)
    text = f"{mean.value:.{result.choose_decimals(key)}f}"
    axes.annotate(text, (mean.value, height), xytext=(0, 6), textcoords="offset points", ha="center", fontsize=8)
