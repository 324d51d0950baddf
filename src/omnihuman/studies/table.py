"""A study as a table."""

from collections.abc import Mapping, Sequence
from typing import Any

from omnihuman.evaluation.tables import Number, Row, Table
from omnihuman.studies.results import CellResult, choose_decimals

COST_COLUMNS = ("minutes", "minutes with parents", "PFLOPs", "trainable parameters (M)")
"""Costs of a cell: time of its last stage, of its whole chain; forecast and parameters of its last stage."""
COST_DECIMALS = (1, 1, 3, 2)

FOOTNOTE = "95 % bootstrap intervals over questions; differences are paired, p after Holm; one training seed per cell."


def build_table(
    title: str, results: Sequence[CellResult], columns: Mapping[str, str], paper: Mapping[str, Any]
) -> Table:
    """Return a table of our scores, the paper's numbers and the costs, a row per cell.

    Args:
        title: of the table.
        results: of the cells.
        columns: score key -> header.
        paper: the study's config of the paper's table.
    """
    paper_columns = [f"{name} (paper)" for name in paper["columns"]]
    rows = []
    for result in results:
        numbers = [_build_score(result, key) for key in columns]
        if result.paper_values:
            numbers += map(Number, result.paper_values)
        else:
            numbers += [None] * len(paper_columns)
        numbers += _build_costs(result)
        rows.append(Row(result.label, "", tuple(numbers), _format_status(result), is_ours=True))
    headers = (*columns.values(), *paper_columns, *COST_COLUMNS)
    return Table(title, headers, tuple(rows), (FOOTNOTE,), ("cell", "view", "status", "source"))


def _build_score(result: CellResult, key: str) -> Number | None:
    score = result.scores.get(key)
    if score is None:
        return None
    return Number(score.value, choose_decimals(score), *result.intervals[key])


def _build_costs(result: CellResult) -> list[Number | None]:
    outcome = result.outcome
    if outcome is None or not result.is_finished:
        return [None] * len(COST_COLUMNS)
    seconds, chain_seconds = outcome.seconds
    costs = (seconds / 60, chain_seconds / 60, outcome.flops / 1e15, outcome.num_trainable / 1e6)
    return list(map(Number, costs, COST_DECIMALS))


def _format_status(result: CellResult) -> str:
    if result.outcome is None:
        return "not run"
    return "" if result.is_finished else result.outcome.status
