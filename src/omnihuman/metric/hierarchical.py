"""Scores over training seeds: means, intervals and tests that count the spread of questions and of seeds."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from omnihuman.metric.score import Array, Score
from omnihuman.metric.statistics import POWER, bootstrap_weights, merge_equal_units, pair_questions

MIN_SEEDS = 3
"""Seeds of each system from which a claim is decided."""


@dataclass(frozen=True)
class SeedEstimate:
    """The mean of a score, or of a difference of two scores, over training seeds, in the unit of the score.

    Attributes:
        values: of the seeds; for a difference whose seeds do not pair, the one of the means.
        value: the mean.
        deviation: standard deviation over the seeds.
        low: lower end of the interval.
        high: upper end of the interval.
        p: two-sided p-value of the hypothesis that the mean is 0.
        n: questions.
        num_seeds: of each system.
        detectable: difference that would be significant with a power of 80 % at this spread; NaN without any spread.
    """

    values: tuple[float, ...]
    value: float
    deviation: float
    low: float
    high: float
    p: float
    n: int
    num_seeds: int
    detectable: float


def estimate_mean(
    scores: Mapping[int, Score], confidence: float = 0.95, resamples: int = 10_000, seed: int = 0
) -> SeedEstimate:
    """Return the mean of a score over seeds, with an interval; see ``estimate_difference``.

    Args:
        scores: seed -> its score, all of the same questions.
        confidence: of the interval.
        resamples: of the questions.
        seed: of the bootstrap.

    Raises:
        ValueError: there are fewer than two seeds, or they have different questions.
    """
    _check_seeds(scores)
    values, samples, n = _resample(list(scores.values()), resamples, seed)
    estimate = _estimate([values], [samples], values.tolist(), n, confidence)
    score = next(iter(scores.values()))
    if not _is_share(score):
        return estimate
    return replace(estimate, low=max(estimate.low, 0.0), high=min(estimate.high, score.scale))


def estimate_difference(
    first: Mapping[int, Score],
    second: Mapping[int, Score],
    confidence: float = 0.95,
    resamples: int = 10_000,
    seed: int = 0,
) -> SeedEstimate:
    """Return the mean difference of two systems over training seeds, with an interval and a test.

    It is a hierarchical bootstrap: questions and seeds are both samples of what could have been, and each question is
    answered with every seed. Questions are resampled, the same for all seeds of both systems (paired). The variance of
    their means and the variance between seeds, divided by the number of seeds, add up. The latter is what a resampling
    of seeds converges to, but for its bias by (S - 1) / S: three seeds have 27 resamples only, whose percentiles call
    a quarter of all differences significant where there are none. For the same reason the interval is that of
    Student's t with Satterthwaite's degrees of freedom: S - 1 where the seeds decide, many where the questions do.
    Where both systems have the same seeds, differences are taken seed by seed, otherwise between the means.

    The interaction of seeds and questions is in both variances. So the test is conservative where all spread is of that
    kind (1 % to 2 % of true nulls instead of 5 %), and at most slightly liberal (8 %) between the extremes; measured in
    ``tests/metric/test_hierarchical.py``.

    Reference: resampling of two crossed factors: Owen, The pigeonhole bootstrap, Annals of Applied Statistics 1 (2007);
        nested ones: Davison and Hinkley, Bootstrap Methods and their Application (1997), section 3.8. t intervals with
        bootstrap standard errors: Hesterberg, What Teachers Should Know About the Bootstrap, American Statistician 69
        (2015). Degrees of freedom: Satterthwaite, Biometrics Bulletin 2 (1946). Seeds as a source of variance:
        Bouthillier et al., Accounting for Variance in Machine Learning Benchmarks, MLSys (2021).

    Args:
        first: seed -> its score.
        second: seed -> its score; the baseline.
        confidence: of the interval.
        resamples: of the questions.
        seed: of the bootstrap.

    Raises:
        ValueError: a system has fewer than two seeds, or the systems have no question in common.
    """
    _check_seeds(first)
    _check_seeds(second)
    common = sorted(first.keys() & second.keys())
    if len(common) == len(first) == len(second):
        scores = [*(first[key] for key in common), *(second[key] for key in common)]
        values, samples, n = _resample(scores, resamples, seed)
        size = len(common)
        values, samples = values[:size] - values[size:], samples[:size] - samples[size:]
        return _estimate([values], [samples], values.tolist(), n, confidence)
    values, samples, n = _resample([*first.values(), *second.values()], resamples, seed)
    size = len(first)
    groups, sampled = [values[:size], -values[size:]], [samples[:size], -samples[size:]]
    return _estimate(groups, sampled, [], n, confidence)


def _check_seeds(scores: Mapping[int, Score]) -> None:
    if len(scores) < 2:
        raise ValueError(f"the spread over seeds needs two seeds or more, and there is {sorted(scores) or 'none'}.")


def _resample(scores: Sequence[Score], resamples: int, seed: int) -> tuple[Array, Array, int]:
    """Return values ``[S]``, values of resampled questions ``[S R]``, and the number of common questions."""
    head = scores[0]
    for score in scores[1:]:
        head, _ = pair_questions(head, score, partial=True)
    aligned = [pair_questions(head, score, partial=True)[1] for score in scores]
    merged, counts, strata = merge_equal_units(*aligned)
    chunks = []
    for weights in bootstrap_weights(counts, strata, resamples, np.random.default_rng(seed)):
        chunks.append(np.stack([score.weighted(weights) for score in merged]))
    return np.asarray([score.value for score in aligned]), np.concatenate(chunks, axis=1), len(head.ids)


def _estimate(
    groups: Sequence[Array], samples: Sequence[Array], values: Sequence[float], n: int, confidence: float
) -> SeedEstimate:
    """Return the sum of the groups' means.

    Args:
        groups: values of the seeds of each group, ``[S]`` each.
        samples: of the same with resampled questions, ``[S R]`` each.
        values: of the seeds, empty where the groups have different seeds.
        n: questions.
        confidence: of the interval.
    """
    from scipy.stats import t

    value = float(sum(group.mean() for group in groups))
    means = np.asarray(sum(sample.mean(axis=0) for sample in samples))
    parts = [(float(np.nanvar(means)), n - 1)]
    parts += [(float(group.var(ddof=1)) / len(group), len(group) - 1) for group in groups]
    variance = sum(part for part, _ in parts)
    num_seeds = min(map(len, groups))
    if variance <= (1e-9 * max(1.0, abs(value))) ** 2:
        p = _smallest_p(n) if value else 1.0
        return SeedEstimate(tuple(values), value, 0.0, value, value, p, n, num_seeds, math.nan)
    df = variance**2 / sum(part**2 / max(1, size) for part, size in parts)
    error, quantile = variance**0.5, float(t.ppf((1 + confidence) / 2, df))
    p = max(2 * float(t.sf(abs(value) / error, df)), _smallest_p(n))
    deviation = float(np.std(values, ddof=1)) if values else math.nan
    detectable = (quantile + float(t.ppf(POWER, df))) * error
    ends = value - quantile * error, value + quantile * error
    return SeedEstimate(tuple(values), value, deviation, *ends, p, n, num_seeds, detectable)


def _smallest_p(n: int) -> float:
    """Return the smallest two-sided p-value of a sign test over n questions: a bootstrap of few has no spread."""
    return min(1.0, 2 * 0.5**n)


def _is_share(score: Score) -> bool:
    """Return True for a score that is never below 0 nor above its scale."""
    return bool((score.numerators >= 0).all() and (score.numerators <= score.denominators).all())
