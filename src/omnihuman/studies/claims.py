"""Claims of a paper, tested on the cells of a study."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from omegaconf import DictConfig

from omnihuman.metric.statistics import Comparison, difference, holm
from omnihuman.studies.results import CellResult

SIGNIFICANCE = 0.05


@dataclass(frozen=True)
class Claim:
    """A claim of a paper and the result of its test.

    Attributes:
        text: of the claim.
        score: the key that is compared.
        verdict: ``shown``, ``not shown``, ``contradicted`` or ``not run``.
        comparison: the better cell minus the worse.
        p: corrected by Holm over the study's claims.
    """

    text: str
    score: str
    verdict: str
    comparison: Comparison | None = None
    p: float = math.nan


def check_claims(config: DictConfig, results: Mapping[str, CellResult]) -> list[Claim]:
    """Test the claims of a study on its results; p-values are corrected for the number of claims.

    Raises:
        ValueError: a claim, or ``baseline``, names no cell of the study.
    """
    _check_names(config, results)
    comparisons = []
    for claim in config.claims:
        comparisons.append(compare_cells(results[claim.better], results[claim.worse], claim.score))
    claims = []
    for claim, comparison, p in zip(config.claims, comparisons, correct_p_values(comparisons), strict=True):
        verdict = "not run"
        if comparison is not None:
            verdict = _decide(comparison, p, results[claim.better].scores[claim.score].higher_is_better)
        claims.append(Claim(claim.text, claim.score, verdict, comparison, p))
    return claims


def compare_cells(first: CellResult, second: CellResult, key: str) -> Comparison | None:
    """Return the first cell minus the second on their common questions; ``None`` where one lacks the score."""
    if key not in first.scores or key not in second.scores:
        return None
    return difference(first.scores[key], second.scores[key], partial=True)


def correct_p_values(comparisons: Sequence[Comparison | None]) -> list[float]:
    """Return the p-values after Holm's correction, NaN for ``None``."""
    corrected = iter(holm([comparison.p for comparison in comparisons if comparison is not None]))
    p_values = []
    for comparison in comparisons:
        p_values.append(math.nan if comparison is None else next(corrected))
    return p_values


def _check_names(config: DictConfig, results: Mapping[str, CellResult]) -> None:
    names = {str(config.baseline)}
    for claim in config.claims:
        names |= {str(claim.better), str(claim.worse)}
    unknown = sorted(names - set(results))
    if unknown:
        raise ValueError(f"study {config.study}: unknown cells {unknown}; expected some of {', '.join(results)}.")


def _decide(comparison: Comparison, p: float, higher_is_better: bool) -> str:
    """Return the verdict on a claim, from the comparison of its better cell with its worse cell."""
    if not p < SIGNIFICANCE:  # also for NaN
        return "not shown"
    return "shown" if (comparison.delta > 0) == higher_is_better else "contradicted"
