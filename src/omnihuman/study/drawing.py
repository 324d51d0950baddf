"""A study as a table and as a chart."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from omnihuman.evaluation.tables import Figure, Row, Table
from omnihuman.metric.score import Score
from omnihuman.study.cell import Outcome

COSTS = ("minutes", "with parents", "PFLOPs", "million trained")
"""What a cell costs: its last stage, that with all it stands on, a forecast for the last stage, its parameters."""
FOOT = "95 % intervals by bootstrap over questions; differences are paired, p after Holm; one training seed a cell."


@dataclass
class Cell:
    """A row of the table.

    Attributes:
        name: of the cell.
        label: what the table calls it.
        outcome: how it went, ``None`` where it was never begun.
        scores: by key, ``emotion/war``.
        intervals: 95 %, by key.
        paper: what the paper prints.
    """

    name: str
    label: str
    outcome: Outcome | None
    scores: dict[str, Score] = field(default_factory=dict)
    intervals: dict[str, tuple[float, float]] = field(default_factory=dict)
    paper: tuple[float, ...] = ()

    @property
    def done(self) -> bool:
        """Whether it went to its end, or was left behind on purpose."""
        return self.outcome is not None and self.outcome.status in ("finished", "halved")


def digits_of(score: Score) -> int:
    """Decimals of a figure in a study's table: 57.1 %, 0.781."""
    return 1 if score.scale > 1 else 3


def table_of(title: str, cells: Sequence[Cell], columns: Mapping[str, str], paper: Mapping[str, Any]) -> Table:
    """The cells' figures, those that the paper prints, and what each cell cost."""
    heads = (*columns.values(), *(f"{name} (paper)" for name in paper["columns"]), *COSTS)
    rows = []
    for cell in cells:
        done = cell.outcome is not None and cell.outcome.status == "finished"
        figures: list[Figure | None] = []
        for key in columns:
            score = cell.scores.get(key)
            figures.append(None if score is None else Figure(score.value, digits_of(score), *cell.intervals[key]))
        figures += [Figure(value) for value in cell.paper] or [None] * len(paper["columns"])
        if cell.outcome is not None and done:
            own, chain = cell.outcome.seconds
            costs = (own / 60, chain / 60, cell.outcome.flops / 1e15, cell.outcome.trained / 1e6)
            figures += [Figure(cost, digits) for cost, digits in zip(costs, (1, 1, 3, 2), strict=True)]
        else:
            figures += [None] * len(COSTS)
        status = "" if done else "not run" if cell.outcome is None else cell.outcome.status
        rows.append(Row(cell.label, "", tuple(figures), status, ours=True))
    return Table(title, heads, tuple(rows), (FOOT,), ("cell", "modality", "status", "source"))


def draw(file: Path, title: str, cells: Sequence[Cell], columns: Mapping[str, str]) -> None:
    """Every column as a panel: the cells' figures with their intervals."""
    from matplotlib.figure import Figure as Picture

    there = [cell for cell in cells if cell.scores]
    picture = Picture(figsize=(1.8 + 3.0 * len(columns), 1.5 + 0.45 * max(1, len(there))), layout="constrained")
    panels = list(picture.subplots(1, max(1, len(columns)), squeeze=False, sharey=True).flat)
    places = list(range(len(there)))[::-1]
    for axes, (key, label) in zip(panels, columns.items(), strict=False):
        for place, cell in zip(places, there, strict=True):
            value, (low, high) = cell.scores[key].value, cell.intervals[key]
            axes.errorbar(value, place, xerr=[[value - low], [high - value]], fmt="o", capsize=3, color="#2a6f97")
            said = f"{value:.{digits_of(cell.scores[key])}f}"
            axes.annotate(said, (value, place), xytext=(0, 6), textcoords="offset points", ha="center", fontsize=8)
        axes.set_title(label, fontsize=10)
        axes.grid(axis="x", alpha=0.3)
        axes.set_ylim(-0.6, len(there) - 0.3)
    panels[0].set_yticks(places, [cell.label for cell in there])
    picture.suptitle(title, fontsize=11)
    picture.savefig(file, dpi=110)
