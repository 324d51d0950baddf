"""A study as a chart."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from omnihuman.studies.results import CellResult, choose_decimals


def draw_chart(file: Path, title: str, results: Sequence[CellResult], columns: Mapping[str, str]) -> None:
    """Draw a panel per score with the cells' values and their intervals.

    Args:
        file: of the chart.
        title: of the chart.
        results: of the cells; those without scores are left out.
        columns: score key -> title of its panel.
    """
    from matplotlib.figure import Figure

    results = [result for result in results if result.scores]
    figure = Figure(figsize=(1.8 + 3.0 * len(columns), 1.5 + 0.45 * max(1, len(results))), layout="constrained")
    panels = list(figure.subplots(1, max(1, len(columns)), squeeze=False, sharey=True).flat)
    heights = list(range(len(results)))[::-1]
    for axes, (key, label) in zip(panels, columns.items(), strict=False):
        for height, result in zip(heights, results, strict=True):
            value, (low, high) = result.scores[key].value, result.intervals[key]
            axes.errorbar(value, height, xerr=[[value - low], [high - value]], fmt="o", capsize=3, color="#2a6f97")
            text = f"{value:.{choose_decimals(result.scores[key])}f}"
            axes.annotate(text, (value, height), xytext=(0, 6), textcoords="offset points", ha="center", fontsize=8)
        axes.set_title(label, fontsize=10)
        axes.grid(axis="x", alpha=0.3)
        axes.set_ylim(-0.6, len(results) - 0.3)
    panels[0].set_yticks(heights, [result.label for result in results])
    figure.suptitle(title, fontsize=11)
    figure.savefig(file, dpi=110)
