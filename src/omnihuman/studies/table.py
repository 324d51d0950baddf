"""A study as a table."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from omnihuman.evaluation.tables import Number, Row, Table
from omnihuman.studies.claims import ONE_SEED
from omnihuman.studies.results import CellResult

COST_COLUMNS = ("minutes", "minutes with parents", "PFLOPs", "trainable parameters (M)")
"""Costs of a cell: time of its last stage, of its whole chain; forecast and parameters of its last stage."""
COST_DECIMALS = (1, 1, 3, 2)

ONE_SEED_NOTE = f"{ONE_SEED.capitalize()}. 95 % bootstrap intervals over questions alone."
SEEDS_NOTE = (
    "Mean ± standard deviation over the training seeds {seeds}; 95 % intervals of a hierarchical bootstrap over "
    "questions and seeds; p after Holm."
)
PARENTS_NOTE = "All seeds start from the same parents, whose spread is not included."


def build_table(
    title: str,
    results: Sequence[CellResult],
    columns: Mapping[str, str],
    paper: Mapping[str, Any],
    parent_seeds: str = "shared",
) -> Table:
    """Return a table of our scores, the paper's numbers and the costs, a row per cell; the best scores are marked.

    A column of the paper stands behind ours of the same benchmark, or behind all of ours where there is none.

    Args:
        title: of the table.
        results: of the cells.
        columns: score key -> header.
        paper: the study's config of the paper's table.
        parent_seeds: ``shared`` or ``own``.
    """
    order = _order_columns(columns, paper)
    rows = []
    for result in results:
        numbers: list[Number | None] = []
        for column in order:
            if isinstance(column, int):
                numbers.append(_build_paper_number(result, column))
            else:
                numbers.append(_build_score(result, column, results))
        numbers += _build_costs(result)
        rows.append(Row(result.label, "", tuple(numbers), _format_status(result), is_ours=True))
    headers = []
    for column in order:
        headers.append(f"{paper['columns'][column]} (paper)" if isinstance(column, int) else columns[column])
    notes = (*_describe_seeds(results, parent_seeds), *_describe_judges(results, columns))
    return Table(title, (*headers, *COST_COLUMNS), tuple(rows), notes, ("cell", "view", "status", "source"))


def _order_columns(columns: Mapping[str, str], paper: Mapping[str, Any]) -> list[str | int]:
    """Return the columns in order: the key of a score of ours, or the index of a column of the paper.

    >>> _order_columns({"dfew/war": "WAR", "dfew/uar": "UAR"}, {"columns": ["WAR", "R"], "scores": ["dfew/war", "x/r"]})
    ['dfew/war', 0, 'dfew/uar', 1]
    """
    paper_columns = dict(enumerate(paper.get("scores") or ()))
    order: list[str | int] = []
    for key in columns:
        order.append(key)
        order += [index for index, score in paper_columns.items() if score == key]
    return order + [index for index in range(len(paper["columns"])) if index not in order]


def _build_paper_number(result: CellResult, column: int) -> Number | None:
    value = result.paper_values[column] if result.paper_values else None
    return None if value is None else Number(value)


def without_costs(table: Table) -> Table:
    """Return the table of a study as a paper prints it."""
    rows = [replace(row, numbers=row.numbers[: -len(COST_COLUMNS)]) for row in table.rows]
    return replace(table, columns=table.columns[: -len(COST_COLUMNS)], rows=tuple(rows))


def _build_score(result: CellResult, key: str, results: Sequence[CellResult]) -> Number | None:
    if key in result.coverages:
        return Number(0.0, placeholder=f"– ({100 * result.coverages[key]:.0f} % judged)")
    mean = result.means.get(key)
    if mean is None:
        return None
    decimals = result.choose_decimals(key)
    values = [round(other.means[key].value, decimals) for other in results if key in other.means]
    best = max(values) if result.is_maximized(key) else min(values)
    is_best = len(values) > 1 and round(mean.value, decimals) == best
    return Number(mean.value, decimals, mean.low, mean.high, is_best=is_best, deviation=mean.deviation)


def _build_costs(result: CellResult) -> list[Number | None]:
    """Return the costs of a cell with one seed: the mean over its finished seeds."""
    outcomes = list(result.finished.values())
    if not outcomes:
        return [None] * len(COST_COLUMNS)
    sums = [0.0] * len(COST_COLUMNS)
    for outcome in outcomes:
        seconds, chain_seconds = outcome.seconds
        costs = (seconds / 60, chain_seconds / 60, outcome.flops / 1e15, outcome.num_trainable / 1e6)
        sums = [total + cost for total, cost in zip(sums, costs, strict=True)]
    return [Number(total / len(outcomes), decimals) for total, decimals in zip(sums, COST_DECIMALS, strict=True)]


def _format_status(result: CellResult) -> str:
    """Return the status of a cell whose seeds are not all finished: ``failed``, ``2 of 3 seeds``."""
    if len(result.finished) == len(result.outcomes):
        return ""
    if result.finished:
        return f"{len(result.finished)} of {len(result.outcomes)} seeds"
    statuses = dict.fromkeys("not run" if outcome is None else outcome.status for outcome in result.outcomes.values())
    return ", ".join(statuses)


def _describe_seeds(results: Sequence[CellResult], parent_seeds: str) -> tuple[str, ...]:
    """Return the footnotes: how the numbers were computed."""
    seeds = list(results[0].outcomes)
    if len(seeds) == 1:
        return (ONE_SEED_NOTE,)
    note = SEEDS_NOTE.format(seeds=", ".join(map(str, seeds)))
    return (note, PARENTS_NOTE) if parent_seeds == "shared" and any(map(_has_parents, results)) else (note,)


def _describe_judges(results: Sequence[CellResult], columns: Mapping[str, str]) -> list[str]:
    """Return a footnote for each judge, with the columns that have its scores."""
    judged: dict[str, dict[str, None]] = {}
    for result in results:
        for key, judge in result.judges.items():
            judged.setdefault(judge, {})[columns[key]] = None
    return [f"{', '.join(labels)}: judge {judge}." for judge, labels in judged.items()]


def _has_parents(result: CellResult) -> bool:
    return any(outcome.seconds[1] > outcome.seconds[0] for outcome in result.finished.values())
