"""Bootstrap intervals, paired tests and agreement of judges."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from omnihuman.metric.score import Array, Score, select

CHUNK_SIZE = 5_000_000
"""Bootstrap weights per chunk; about 100 MB with all that is computed from them."""

POWER = 0.8
"""Power at which the minimum detectable difference is stated."""


@dataclass(frozen=True)
class Comparison:
    """Two systems on the same questions: the first minus the second, in the unit of the score.

    Attributes:
        delta: the difference.
        low: lower end of its interval.
        high: upper end of its interval.
        p: two-sided p-value.
        test: ``mcnemar`` (exact) or ``sign_flip``.
        n: questions that both systems answered.
        detectable: the minimum detectable difference at this n, see ``detectable_difference``; NaN if the systems never
            differ.
    """

    delta: float
    low: float
    high: float
    p: float
    test: str
    n: int
    detectable: float = float("nan")


def interval(score: Score, confidence: float = 0.95, resamples: int = 10_000, seed: int = 0) -> tuple[float, float]:
    """Return the ends of a score's percentile bootstrap interval; NaN without questions.

    Questions are drawn within their stratum, clusters as a unit.

    Raises:
        ValueError: a cluster has questions of several strata.

    >>> low, high = interval(Score.mean("war", [f"{k}" for k in range(100)], [1] * 80 + [0] * 20))
    >>> 70 <= low <= 74 and 86 <= high <= 90
    True
    """
    if not score.ids:
        return float("nan"), float("nan")
    (compact,), counts, strata = merge_equal_units(score)
    weights = bootstrap_weights(counts, strata, resamples, np.random.default_rng(seed))
    return _percentiles(np.concatenate([compact.weighted(chunk) for chunk in weights]), confidence)


def difference(
    a: Score, b: Score, confidence: float = 0.95, resamples: int = 10_000, seed: int = 0, partial: bool = False
) -> Comparison:
    """Compare two scores of the same questions: a minus b, with a paired bootstrap interval and a paired test.

    The test is McNemar's (exact) where each question is right or wrong and all count equally. Otherwise it is a
    permutation test: answers are swapped between the systems at random, clusters as a unit, and the scores recomputed.

    Args:
        a: one system.
        b: the baseline.
        confidence: of the interval.
        resamples: of bootstrap and permutation.
        seed: of both.
        partial: compare on the common questions, even if they are not all.

    Raises:
        ValueError: the questions differ, or the scores have different forms.

    >>> a, b = (Score.mean("war", list("abcdef"), [value] * 6) for value in (1, 0))
    >>> difference(a, b).delta, difference(a, b).p  # 2 x (1/2)^6
    (100.0, 0.03125)
    """
    a, b = pair_questions(a, b, partial)
    (first, second), counts, strata = merge_equal_units(a, b)
    rng = np.random.default_rng(seed)
    n = len(a.ids)
    delta = a.value - b.value
    weights = bootstrap_weights(counts, strata, resamples, rng)
    deltas = np.concatenate([first.weighted(chunk) - second.weighted(chunk) for chunk in weights])
    low, high = _percentiles(deltas, confidence)
    if _is_binary(a) and _is_binary(b):
        p, discordance = _mcnemar(a, b)
        detectable = detectable_difference(discordance, n, confidence) * a.scale / 100
        return Comparison(delta, low, high, p, "mcnemar", n, detectable)
    null = np.concatenate(list(_swapped_differences(first, second, counts, resamples, rng)))
    null = null[~np.isnan(null)]
    tolerance = 1e-9 * a.scale  # sums in another order differ in their last digits
    num_extreme = (np.abs(null) >= abs(delta) - tolerance).sum()
    p = float((1 + num_extreme) / (1 + len(null)))
    detectable = _num_standard_errors(confidence, POWER) * float(null.std())
    if detectable <= tolerance:
        detectable = float("nan")
    return Comparison(delta, low, high, p, "sign_flip", n, detectable)


def detectable_difference(discordance: float, n: int, confidence: float = 0.95, power: float = POWER) -> float:
    """Return the minimum detectable difference of a paired test in points.

    It follows the normal approximation to McNemar's test, and is never below the difference that this test calls
    significant if all discordant questions favour one system.

    Args:
        discordance: share of questions on which exactly one system is right.
        n: number of questions.
        confidence: one minus the significance level.
        power: of the test.

    >>> round(detectable_difference(0.2, 2341), 2), detectable_difference(0.0, 200)
    (2.59, 3.0)
    """
    if not n:
        return float("nan")
    fewest = int(np.ceil(1 + np.log2(1 / (1 - confidence)) - 1e-9))  # 2 x (1/2)^k <= alpha
    difference: float = max(_num_standard_errors(confidence, power) * (discordance / n) ** 0.5, fewest / n)
    return 100 * difference


def verdict(comparison: Comparison, p: float | None = None, alpha: float = 0.05) -> str:
    """Format a comparison and whether its difference is resolved (significant) at this number of questions.

    Args:
        comparison: of two systems.
        p: replaces the p-value of the comparison, for example by ``holm``.
        alpha: significance level.

    >>> verdict(Comparison(0.64, -0.9, 2.2, 0.41, "mcnemar", 2341, 2.2))
    '+0.64 [-0.90, +2.20], p = 0.410, n = 2341: not resolved; at this size a difference of about 2.2 would be.'
    """
    p = comparison.p if p is None else p
    p_text = "p < 0.001" if p < 0.001 else f"p = {p:.3f}"
    delta = f"{comparison.delta:+.2f} [{comparison.low:+.2f}, {comparison.high:+.2f}]"
    text = f"{delta}, {p_text}, n = {comparison.n}: "
    if p < alpha:
        return text + "resolved."
    if comparison.test == "mcnemar" and 2 * 0.5**comparison.n >= alpha:
        return text + "not resolved; so few questions resolve nothing."
    if np.isnan(comparison.detectable):
        return text + "not resolved; on these questions the two do not differ at all."
    return text + f"not resolved; at this size a difference of about {comparison.detectable:.2g} would be."


def holm(p_values: Sequence[float]) -> list[float]:
    """Correct the p-values of a table for multiple tests by Holm's method.

    Reference: Holm, A Simple Sequentially Rejective Multiple Test Procedure (1979); equal to ``multipletests`` of
    statsmodels 0.15.

    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    values = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(values)
    steps = values[order] * np.arange(len(values), 0, -1)
    corrected = np.empty_like(values)
    corrected[order] = np.minimum(np.maximum.accumulate(steps), 1.0)
    return [float(value) for value in corrected]


def wilson(k: int, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """Return the ends of Wilson's interval of k out of n, in percent; suitable for classes of few clips.

    >>> [round(end, 1) for end in wilson(29, 29)]
    [88.3, 100.0]
    """
    from scipy.stats import binomtest

    if n == 0:
        return 0.0, 100.0
    low, high = binomtest(k, n).proportion_ci(confidence, method="wilson")
    return 100 * float(low), 100 * float(high)


def agreement(first: Sequence[float | int], second: Sequence[float | int]) -> dict[str, float]:
    """Return Spearman's correlation and Krippendorff's alpha of two judges' scores for the same answers.

    Raises:
        ValueError: the judges have different numbers of scores.

    >>> {name: round(value, 3) for name, value in agreement([1, 2, 3, 4], [1, 2, 4, 5]).items()}
    {'spearman': 1.0, 'alpha': 0.887, 'n': 4}
    """
    from scipy.stats import spearmanr

    if len(first) != len(second):
        raise ValueError(f"the judges have {len(first)} and {len(second)} scores; pass scores of the same answers.")
    correlation = float("nan")  # undefined if a judge is constant
    if len(set(first)) > 1 and len(set(second)) > 1:
        correlation = float(spearmanr(first, second).statistic)
    return {"spearman": correlation, "alpha": krippendorff_alpha([first, second]), "n": len(first)}


def krippendorff_alpha(ratings: Sequence[Sequence[float | int]]) -> float:
    """Return Krippendorff's alpha for interval data from ratings ``[judges answers]``, NaN where one is missing.

    It is one minus the ratio of the squared disagreement within answers to that among all ratings; answers with a
    single rating are excluded.

    Reference: Krippendorff, Computing Krippendorff's Alpha-Reliability (2011).

    >>> krippendorff_alpha([[1, 2, 3], [1, 2, 3]])
    1.0
    """
    table = np.asarray(ratings, dtype=np.float64)
    answers = []
    for column in table.T:
        values = column[~np.isnan(column)]
        if len(values) > 1:
            answers.append(values)
    if not answers:
        return float("nan")
    pooled = np.concatenate(answers)
    if pooled.var() == 0:
        return float("nan")
    within = sum(len(values) ** 2 * values.var() / (len(values) - 1) for values in answers) / len(pooled)
    return float(1 - within * (len(pooled) - 1) / (len(pooled) * pooled.var()))


def pair_questions(a: Score, b: Score, partial: bool) -> tuple[Score, Score]:
    """Return both scores on their common questions, in the order of the first.

    Raises:
        ValueError: the questions differ, or the scores have different forms.
    """
    a, b = _align_columns(a, b)
    forms = [(score.combine, score.scale, score.numerators.shape[1]) for score in (a, b)]
    if forms[0] != forms[1]:
        raise ValueError(
            f"{a.name} and {b.name} cannot be compared: combine, scale and number of columns are {forms[0]} and "
            f"{forms[1]}; expected the same."
        )
    position = {name: index for index, name in enumerate(b.ids)}
    common = [index for index, name in enumerate(a.ids) if name in position]
    is_complete = len(common) == len(a.ids) == len(b.ids)
    if not common or not (partial or is_complete):
        raise ValueError(
            f"{a.name}: the systems have {len(common)} questions in common, of {len(a.ids)} and {len(b.ids)}; answer "
            "the same questions with both, or compare on the common ones (partial)."
        )
    return _select_questions(a, common), _select_questions(b, [position[a.ids[index]] for index in common])


def _align_columns(a: Score, b: Score) -> tuple[Score, Score]:
    """Return both scores with the columns of both: one of them may lack a class or a fold."""
    if a.columns == b.columns or not (a.columns and b.columns):
        return a, b
    columns = sorted({*a.columns, *b.columns})
    return _with_columns(a, columns), _with_columns(b, columns)


def _with_columns(score: Score, columns: list[str]) -> Score:
    numerators = np.zeros((len(score.ids), len(columns)))
    denominators = np.zeros_like(numerators)
    positions = [columns.index(column) for column in score.columns]
    numerators[:, positions], denominators[:, positions] = score.numerators, score.denominators
    return replace(score, numerators=numerators, denominators=denominators, columns=tuple(columns))


def _select_questions(score: Score, positions: list[int]) -> Score:
    strata = None if score.strata is None else tuple(select(score.strata, positions))
    clusters = None if score.clusters is None else tuple(select(score.clusters, positions))
    return replace(
        score,
        ids=tuple(select(score.ids, positions)),
        numerators=score.numerators[positions],
        denominators=score.denominators[positions],
        strata=strata,
        clusters=clusters,
        num_questions=None,
    )


def merge_equal_units(*scores: Score) -> tuple[list[Score], NDArray[np.int64], NDArray[np.int64]]:
    """Merge equal units of paired scores: scores with a row per kind of unit, counts ``[U]``, strata ``[U]``.

    A unit is a cluster or a question. Units with equal rows in the same stratum are one kind. In a bootstrap resample
    the number of draws of each kind is multinomial, so a WAR over 11,697 clips needs two weights (right, wrong) instead
    of 11,697, with the same distribution.

    Raises:
        ValueError: a cluster has questions of several strata.
    """
    first, width = scores[0], scores[0].numerators.shape[1]
    rows = np.concatenate([np.concatenate([score.numerators, score.denominators], axis=1) for score in scores], axis=1)
    strata = np.unique(first.strata or [""] * len(rows), return_inverse=True)[1]
    if first.clusters is not None:
        rows, strata = _sum_over_clusters(first.name, first.clusters, rows, strata)
    kinds, counts = np.unique(np.column_stack([strata, rows]), axis=0, return_counts=True)
    parts = np.split(kinds[:, 1:], range(width, kinds.shape[1] - 1, width), axis=1)
    ids = tuple(map(str, range(len(kinds))))
    merged = []
    for index, score in enumerate(scores):
        numerators, denominators = parts[2 * index], parts[2 * index + 1]
        merged.append(
            replace(score, ids=ids, numerators=numerators, denominators=denominators, strata=None, clusters=None)
        )
    return merged, counts, kinds[:, 0].astype(np.int64)


def _sum_over_clusters(
    name: str, clusters: tuple[str, ...], rows: Array, strata: NDArray[np.intp]
) -> tuple[Array, NDArray[np.intp]]:
    """Return one row and one stratum per cluster."""
    _, heads, member = np.unique(clusters, return_index=True, return_inverse=True)
    is_mixed = strata[heads][member] != strata
    if is_mixed.any():
        cluster = clusters[int(is_mixed.argmax())]
        raise ValueError(
            f"{name}: cluster {cluster!r} has questions of several strata; set strata or clusters, not both."
        )
    sums = np.zeros((len(heads), rows.shape[1]))
    np.add.at(sums, member, rows)
    return sums, strata[heads]


def _chunk_sizes(resamples: int, num_units: int) -> Iterator[int]:
    size = max(1, CHUNK_SIZE // num_units)
    for start in range(0, resamples, size):
        yield min(size, resamples - start)


def bootstrap_weights(
    counts: NDArray[np.int64], strata: NDArray[np.int64], resamples: int, rng: np.random.Generator
) -> Iterator[Array]:
    """Draw units with replacement within each stratum: weights ``[R U]`` in chunks."""
    for size in _chunk_sizes(resamples, len(counts)):
        weights = np.empty((size, len(counts)))
        for stratum in np.unique(strata):
            members = strata == stratum
            total = counts[members].sum()
            weights[:, members] = rng.multinomial(total, counts[members] / total, size=size)
        yield weights


def _swapped_differences(
    first: Score, second: Score, counts: NDArray[np.int64], resamples: int, rng: np.random.Generator
) -> Iterator[Array]:
    """Swap the answers of each unit between the systems with probability 0.5: differences ``[R]`` in chunks."""
    both = replace(
        first,
        ids=tuple(map(str, range(2 * len(counts)))),
        numerators=np.concatenate([first.numerators, second.numerators]),
        denominators=np.concatenate([first.denominators, second.denominators]),
    )
    for size in _chunk_sizes(resamples, 2 * len(counts)):
        swapped = rng.binomial(counts, 0.5, size=(size, len(counts))).astype(np.float64)
        unswapped = counts - swapped
        one = both.weighted(np.concatenate([unswapped, swapped], axis=1))
        yield one - both.weighted(np.concatenate([swapped, unswapped], axis=1))


def _is_binary(score: Score) -> bool:
    """Return True for a share of right answers in which each question counts once and on its own."""
    if score.numerators.shape[1] != 1 or score.clusters is not None or score.combine != "mean":
        return False
    return bool((score.denominators == 1).all() and np.isin(score.numerators, (0, 1)).all())


def _mcnemar(a: Score, b: Score) -> tuple[float, float]:
    """Return the exact p-value, and the share of questions on which exactly one system is right."""
    from scipy.stats import binomtest

    first, second = a.numerators[:, 0], b.numerators[:, 0]
    wins, losses = int((first > second).sum()), int((first < second).sum())
    num_discordant = wins + losses
    p = float(binomtest(wins, num_discordant).pvalue) if num_discordant else 1.0
    return p, num_discordant / len(a.ids)


def _num_standard_errors(confidence: float, power: float) -> float:
    """Return how many standard errors a difference must have to be detected with this power."""
    from scipy.stats import norm

    return float(norm.ppf((1 + confidence) / 2) + norm.ppf(power))


def _percentiles(values: Array, confidence: float) -> tuple[float, float]:
    values = values[~np.isnan(values)]  # a resample may leave every column empty
    if not len(values):
        return float("nan"), float("nan")
    low, high = np.quantile(values, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)
