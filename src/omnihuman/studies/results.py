"""Results of a study's cells: outcomes, scores and their means over seeds, from the predictions alone."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from omnihuman.build import build, compose_config
from omnihuman.evaluation.comparison import MIN_COVERAGE
from omnihuman.evaluation.folder import PREDICTIONS, load_benchmark, read_predictions
from omnihuman.metric.hierarchical import estimate_mean
from omnihuman.metric.score import Score
from omnihuman.metric.statistics import interval
from omnihuman.overrides import select_keys
from omnihuman.studies.config import build_evaluations, list_seeds, read_cells
from omnihuman.studies.outcome import Outcome, locate_results, name_outcome, read_outcome


@dataclass(frozen=True)
class CellScore:
    """A score of a cell: the mean over its seeds.

    Attributes:
        value: the mean.
        deviation: standard deviation over the seeds; ``None`` with one seed.
        low: lower end of its 95 % interval, over questions and seeds; with one seed over questions alone.
        high: upper end.
    """

    value: float
    deviation: float | None
    low: float
    high: float


@dataclass
class CellResult:
    """The result of a cell.

    Attributes:
        name: of the cell.
        label: in the table.
        outcomes: seed -> outcome, ``None`` where it was not run.
        scores: key, such as ``emotion/war`` -> seed -> score, of the finished seeds.
        means: key -> mean over the seeds.
        judges: key -> the judge that has scored the answers; scores without one are not listed.
        coverages: key -> share of the answers that it has scored, where it is too small for a score.
        paper_values: the paper's numbers, ``None`` where it prints none.
    """

    name: str
    label: str
    outcomes: dict[int, Outcome | None]
    scores: dict[str, dict[int, Score]] = field(default_factory=dict)
    means: dict[str, CellScore] = field(default_factory=dict)
    judges: dict[str, str] = field(default_factory=dict)
    coverages: dict[str, float] = field(default_factory=dict)
    paper_values: tuple[float | None, ...] = ()

    @property
    def finished(self) -> dict[int, Outcome]:
        """The outcomes of the seeds that were trained and evaluated."""
        return {
            seed: outcome
            for seed, outcome in self.outcomes.items()
            if outcome is not None and outcome.status == "finished"
        }

    def is_complete(self, seeds: Collection[int] | None = None) -> bool:
        """Return true for a cell whose seeds, all or these, are finished; one that halving dropped is, too."""
        outcomes = [self.outcomes.get(seed) for seed in seeds or self.outcomes]
        return all(outcome is not None and outcome.status in ("finished", "halved") for outcome in outcomes)

    def is_maximized(self, key: str) -> bool:
        """Return True if more is better; the cell has the score."""
        return next(iter(self.scores[key].values())).higher_is_better

    def choose_decimals(self, key: str) -> int:
        """Return the number of decimals of a printed score: 57.1 %, 0.781."""
        return 1 if next(iter(self.scores[key].values())).scale > 1 else 3


def read_results(config: DictConfig) -> dict[str, CellResult]:
    """Return the result of every cell of a study by name."""
    folder, results = locate_results(config), {}
    paper: Any = OmegaConf.to_container(config.paper, resolve=True)
    for name, cell in read_cells(config).items():
        outcomes = {seed: _read_last_outcome(config, folder, name_outcome(name, seed)) for seed in list_seeds(config)}
        result = CellResult(name, str(cell.get("label", name)), outcomes)
        result.paper_values = tuple(paper["rows"].get(name, ()))
        evaluations = build_evaluations(config, name)
        keys = [str(key) for key in config.scores if str(key).partition("/")[0] in evaluations]
        judges = _build_judges(evaluations)
        for seed, outcome in result.finished.items():
            for key, score in compute_scores(outcome.evaluations, keys, judges).items():
                result.scores.setdefault(key, {})[seed] = score
                judge = judges.get(key.partition("/")[0])
                if judge is not None and score.num_questions is not None:
                    result.judges[key] = judge.id
        _drop_uncovered(result)
        result.means = {key: _compute_mean(scores) for key, scores in result.scores.items()}
        results[name] = result
    return results


def _build_judges(evaluations: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """Return the judge of each evaluation that has one; what it has judged before is in its cache."""
    judges = {}
    for name, overrides in evaluations.items():
        chosen = select_keys(overrides, "judge")
        if chosen:
            judges[name] = build(compose_config(list(map(str, chosen)), "evaluate").judge)
    return judges


def _drop_uncovered(result: CellResult) -> None:
    """Drop the scores whose judge has failed on too many answers."""
    for key in result.judges:
        coverage = min(score.coverage for score in result.scores[key].values())
        if coverage < MIN_COVERAGE:
            result.coverages[key] = coverage
            del result.scores[key]


def _compute_mean(scores: Mapping[int, Score]) -> CellScore:
    if len(scores) == 1:
        (score,) = scores.values()
        return CellScore(score.value, None, *interval(score))
    estimate = estimate_mean(scores)
    return CellScore(estimate.value, estimate.deviation, estimate.low, estimate.high)


def _read_last_outcome(config: DictConfig, folder: Path, name: str) -> Outcome | None:
    """Return an outcome, or that of the last rung of successive halving that its cell reached."""
    outcome = read_outcome(folder, name)
    if outcome is None and config.halving:
        for steps in config.halving.steps:
            outcome = read_outcome(folder, f"{name}@{steps}") or outcome
    return outcome


def compute_scores(evaluations: Mapping[str, str], keys: Sequence[str], judges: Mapping[str, Any]) -> dict[str, Score]:
    """Return the scores of a cell by ``<evaluation>/<score>``.

    Args:
        evaluations: name -> folder.
        keys: of the scores.
        judges: of the evaluations whose free text is judged.

    Raises:
        ValueError: an evaluation has no score of that name.
    """
    scores: dict[str, Score] = {}
    for name, folder in evaluations.items():
        benchmark = load_benchmark(Path(folder), judges.get(name))
        predictions = read_predictions(Path(folder) / PREDICTIONS, benchmark.name)
        for score in benchmark.scores(predictions):
            scores[f"{name}/{score.name}"] = score
    missing = [key for key in keys if key not in scores]
    if missing:
        raise ValueError(f"scores: unknown keys {missing}; the study's evaluations have {sorted(scores)}.")
    return {key: scores[key] for key in keys}
