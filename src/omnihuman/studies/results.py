"""Results of a study's cells: outcomes, scores and intervals, from the predictions alone."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from omnihuman.evaluation.folder import PREDICTIONS, load_benchmark, read_predictions
from omnihuman.metric.score import Score
from omnihuman.metric.statistics import interval
from omnihuman.studies.config import read_cells
from omnihuman.studies.outcome import Outcome, locate_results, read_outcome


@dataclass
class CellResult:
    """The result of a cell.

    Attributes:
        name: of the cell.
        label: in the table.
        outcome: of the cell, ``None`` where it was not run.
        scores: by key, ``emotion/war``.
        intervals: 95 %, by key.
        paper_values: the paper's numbers.
    """

    name: str
    label: str
    outcome: Outcome | None
    scores: dict[str, Score] = field(default_factory=dict)
    intervals: dict[str, tuple[float, float]] = field(default_factory=dict)
    paper_values: tuple[float, ...] = ()

    @property
    def is_finished(self) -> bool:
        """True for a cell that was trained and evaluated."""
        return self.outcome is not None and self.outcome.status == "finished"

    @property
    def is_complete(self) -> bool:
        """True for a finished cell, and for one that successive halving dropped."""
        return self.outcome is not None and self.outcome.status in ("finished", "halved")


def read_results(config: DictConfig) -> dict[str, CellResult]:
    """Return the result of every cell of a study by name."""
    folder, results = locate_results(config), {}
    paper: Any = OmegaConf.to_container(config.paper, resolve=True)
    for name, cell in read_cells(config).items():
        outcome = _read_last_outcome(config, folder, name)
        result = CellResult(name, str(cell.get("label", name)), outcome)
        result.paper_values = tuple(paper["rows"].get(name, ()))
        if outcome is not None and result.is_finished:
            result.scores = compute_scores(outcome.evaluations, list(config.scores))
            result.intervals = {key: interval(score) for key, score in result.scores.items()}
        results[name] = result
    return results


def _read_last_outcome(config: DictConfig, folder: Path, name: str) -> Outcome | None:
    """Return the outcome of a cell, or that of the last rung that it reached in successive halving."""
    outcome = read_outcome(folder, name)
    if outcome is None and config.halving:
        for steps in config.halving.steps:
            outcome = read_outcome(folder, f"{name}@{steps}") or outcome
    return outcome


def compute_scores(evaluations: Mapping[str, str], keys: Sequence[str]) -> dict[str, Score]:
    """Return the scores of a cell by ``<evaluation>/<score>``.

    Args:
        evaluations: name -> folder.
        keys: of the scores.

    Raises:
        ValueError: an evaluation has no score of that name.
    """
    scores: dict[str, Score] = {}
    for name, folder in evaluations.items():
        benchmark = load_benchmark(Path(folder))
        predictions = read_predictions(Path(folder) / PREDICTIONS, benchmark.name)
        for score in benchmark.scores(predictions):
            scores[f"{name}/{score.name}"] = score
    missing = [key for key in keys if key not in scores]
    if missing:
        raise ValueError(f"scores: unknown keys {missing}; the study's evaluations have {sorted(scores)}.")
    return {key: scores[key] for key in keys}


def choose_decimals(score: Score) -> int:
    """Return the number of decimals of a printed score: 57.1 %, 0.781."""
    return 1 if score.scale > 1 else 3
