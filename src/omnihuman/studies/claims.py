"""Claims of a paper, tested on the cells of a study."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from omegaconf import DictConfig

from omnihuman.metric.hierarchical import MIN_SEEDS, estimate_difference
from omnihuman.metric.statistics import difference, holm
from omnihuman.studies.results import CellResult

SIGNIFICANCE = 0.05

ONE_SEED = "one seed: a run, no verdict"
"""Verdict on a claim that one training of each cell has tested."""


@dataclass(frozen=True)
class Difference:
    """One cell minus another, in the unit of the score.

    Attributes:
        value: the mean over the seeds.
        low: lower end of its 95 % interval, over questions and seeds; with one seed over questions alone.
        high: upper end.
        p: of the test over questions and seeds; NaN with one seed.
        n: questions.
        num_seeds: of each cell.
        values: of the seeds, where both cells have the same.
        detectable: difference that this spread would resolve; NaN with one seed.
    """

    value: float
    low: float
    high: float
    p: float
    n: int
    num_seeds: int
    values: tuple[float, ...] = ()
    detectable: float = math.nan

    @property
    def is_decided(self) -> bool:
        """True if there are enough seeds for a verdict."""
        return self.num_seeds >= MIN_SEEDS

    @property
    def uncertainty(self) -> str:
        """The reason why there is no verdict; empty where there is one."""
        if self.is_decided:
            return ""
        return ONE_SEED if self.num_seeds == 1 else f"{self.num_seeds} seeds: runs, no verdict"


@dataclass(frozen=True)
class Claim:
    """A claim of a paper and the result of its test.

    Attributes:
        text: of the claim.
        score: the key that is compared.
        verdict: ``shown``, ``not shown``, ``contradicted``, ``not run``, or that there are too few seeds.
        difference: the better cell minus the worse.
        p: corrected by Holm over the study's claims.
    """

    text: str
    score: str
    verdict: str
    difference: Difference | None = None
    p: float = math.nan


def check_claims(config: DictConfig, results: Mapping[str, CellResult]) -> list[Claim]:
    """Test the claims of a study on its results; p-values are corrected for the number of claims."""
    differences = []
    for claim in config.claims:
        differences.append(compare_cells(results[claim.better], results[claim.worse], claim.score))
    claims = []
    for claim, comparison, p in zip(config.claims, differences, correct_p_values(differences), strict=True):
        verdict = "not run"
        if comparison is not None:
            verdict = comparison.uncertainty or _decide(comparison, p, results[claim.better].is_maximized(claim.score))
        claims.append(Claim(claim.text, claim.score, verdict, comparison, p))
    return claims


def compare_cells(first: CellResult, second: CellResult, key: str) -> Difference | None:
    """Return the first cell minus the second on their common questions; ``None`` where one has no result.

    Seeds pair where both cells have them. If only one has a seed of its own, it is left out, so that all pair.
    """
    one, other = first.scores.get(key, {}), second.scores.get(key, {})
    common = sorted(one.keys() & other.keys())
    if common:
        one, other = {seed: one[seed] for seed in common}, {seed: other[seed] for seed in common}
    if not one or not other:
        return None
    if min(len(one), len(other)) > 1:
        estimate = estimate_difference(one, other)
        ends, size = (estimate.low, estimate.high), estimate.num_seeds
        return Difference(
            estimate.value, *ends, estimate.p, estimate.n, size, estimate.values, detectable=estimate.detectable
        )
    comparison = difference(next(iter(one.values())), next(iter(other.values())), partial=True)
    delta = comparison.delta
    return Difference(delta, comparison.low, comparison.high, math.nan, comparison.n, 1, (delta,))


def correct_p_values(differences: Sequence[Difference | None]) -> list[float]:
    """Return the p-values after Holm's correction over the decided differences, NaN for the others."""
    decided = [comparison for comparison in differences if comparison is not None and comparison.is_decided]
    corrected = dict(zip(map(id, decided), holm([comparison.p for comparison in decided]), strict=True))
    return [corrected.get(id(comparison), math.nan) for comparison in differences]


def describe_difference(comparison: Difference, p: float, decimals: int) -> str:
    """Format a difference, its spread over the seeds, and with enough of them whether it is resolved (significant).

    >>> describe_difference(Difference(6.1, 2.5, 10.1, 0.004, 224, 3, (6.2, 5.0, 7.1), 4.0), 0.008, 1)
    '+6.1 [+2.5, +10.1] (seeds +6.2, +5.0, +7.1), p = 0.008, n = 224: resolved'
    """
    form = f"+.{decimals}f"
    value, low, high = (format(number, form) for number in (comparison.value, comparison.low, comparison.high))
    text = f"{value} [{low}, {high}]"
    if comparison.num_seeds == 1:
        return f"{text} over questions, n = {comparison.n}"
    if comparison.values:
        text += f" (seeds {', '.join(format(number, form) for number in comparison.values)})"
    if not comparison.is_decided:
        return f"{text}, n = {comparison.n}"
    text += f", {format_p(p)}, n = {comparison.n}: "
    if p < SIGNIFICANCE:
        return text + "resolved"
    if math.isnan(comparison.detectable):
        return text + "not resolved; the two do not differ at all"
    return text + f"not resolved; at this spread a difference of about {comparison.detectable:.2g} would be"


def format_p(p: float) -> str:
    """Format a p-value: ``p = 0.004``."""
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}"


def _decide(comparison: Difference, p: float, higher_is_better: bool) -> str:
    """Return the verdict on a claim, from its better cell minus its worse cell."""
    if not p < SIGNIFICANCE:
        return "not shown"
    return "shown" if (comparison.value > 0) == higher_is_better else "contradicted"
