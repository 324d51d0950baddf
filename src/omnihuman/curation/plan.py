"""The plan of a pipeline: how many rows reach each operator, and what it costs to run what is missing."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from rich.console import Console
from rich.table import Table

from omnihuman.curation.account import Entry, count
from omnihuman.curation.folder import STATE, read_state
from omnihuman.curation.pipeline import Pipeline
from omnihuman.curation.prices import AMOUNTS, Cost, Prices


@dataclass(frozen=True, slots=True)
class Line:
    """An operator of a plan.

    Attributes:
        name: in the pipeline.
        rows: that reach it.
        num_missing: partitions that are to do.
        cost: of these.
    """

    name: str
    rows: float
    num_missing: int
    cost: Cost


def plan(pipeline: Pipeline, prices: Prices, num_clips: int) -> list[Line]:
    """Return the operators of a pipeline with the cost of the partitions that are missing.

    Args:
        pipeline: to run.
        prices: of the operators.
        num_clips: of the source.

    Raises:
        ValueError: the price list lacks an operator or a model.
    """
    measured = read_entries(pipeline.out)
    lines, rows = list[Line](), float(num_clips)
    for level in pipeline.levels:
        if level.is_decision:
            continue
        num_missing = pipeline.num_parts - len(list(level.folder.glob("part-*.parquet")))
        cost = prices.estimate(level.name, level.operator)
        if level.folder.name in measured:
            cost = prices.measure(measured[level.folder.name], level.operator, cost)
        lines.append(Line(level.name, rows, num_missing, cost.scale(rows * num_missing / max(1, pipeline.num_parts))))
        rows *= cost.share
    return lines


def read_entries(out: Path) -> dict[str, Entry]:
    """Return the account of a folder by the folders of its operators, empty without one."""
    if not (out / STATE).is_file():
        return {}
    state = read_state(out)
    folders = [folder for _, folder, is_decision in state.levels if not is_decision]
    return dict(zip(folders, count(state), strict=True))


def print_plan(pipeline: Pipeline, prices: Prices, num_clips: int) -> None:
    """Print the plan of a pipeline as a table.

    Raises:
        ValueError: see ``plan``.
    """
    lines = plan(pipeline, prices, num_clips)
    table = Table(title=f"{pipeline.name}: {num_clips:,} clips in {pipeline.num_parts:,} partitions")
    headings = ("operator", "rows", "to do", "calls", "tokens in", "tokens out", "core h", "GPU h", "dollars", "by")
    for heading in headings:
        table.add_column(heading, justify="left" if heading in ("operator", "by") else "right")
    for line in lines:
        table.add_row(line.name, f"{line.rows:,.0f}", f"{line.num_missing:,}", *_format(line.cost), _name_origin(line))
    total = add([line.cost for line in lines])
    table.add_section()
    table.add_row("all", "", "", *_format(total), "")
    console = Console(width=120)
    console.print(table)
    console.print(f"{total.gpu_hours / prices.gpus:,.1f} hours on {prices.gpus} GPUs; prices: conf/prices.")


def add(costs: Sequence[Cost]) -> Cost:
    """Return the sum of costs."""
    total = Cost()
    for cost in costs:
        total = replace(total, **{name: getattr(total, name) + getattr(cost, name) for name in AMOUNTS})
    return total


def _name_origin(line: Line) -> str:
    return "measured" if line.cost.is_measured else "list"


def _format(cost: Cost) -> list[str]:
    counts = [shorten(value) for value in (cost.calls, cost.tokens_in, cost.tokens_out)]
    return [*counts, f"{cost.core_hours:,.1f}", f"{cost.gpu_hours:,.1f}", f"{cost.dollars:,.0f}"]


def shorten(number: float) -> str:
    """Return a number in thousands, millions or billions.

    >>> shorten(950), shorten(2_400_000), shorten(11_900_000_000)
    ('950', '2.40M', '11.9G')
    """
    for unit, suffix in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= unit:
            digits = 2 if number < 10 * unit else 1
            return f"{number / unit:.{digits}f}{suffix}"
    return f"{number:.0f}"
