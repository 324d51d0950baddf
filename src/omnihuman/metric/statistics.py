"""How sure a figure is, and whether two differ: bootstrap, paired tests, agreement of judges."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from omnihuman.metric.score import Array, Score

CHUNK = 5_000_000
"""Weights drawn at a time; some 100 MB with what is made of them."""

POWER = 0.8
"""Of tests whose size is told: how often a difference of that size would show."""


@dataclass(frozen=True)
class Comparison:
    """Two systems on the same questions: the first less the second, in the score's units.

    Attributes:
        delta: the difference.
        low: end of its interval.
        high: end of its interval.
        p: of the test, two-sided.
        test: ``mcnemar`` (exact) or ``sign_flip``.
        n: questions that both answered.
        resolvable: the smallest difference that this many questions would show, see ``resolvable``; NaN where the two
            differ on none of them.
    """

    delta: float
    low: float
    high: float
    p: float
    test: str
    n: int
    resolvable: float = float("nan")


def interval(score: Score, confidence: float = 0.95, resamples: int = 10_000, seed: int = 0) -> tuple[float, float]:
    """A score -> the ends of its percentile bootstrap interval; NaN without questions.

    Questions are drawn within their stratum, whole clusters at a time.

    Raises:
        ValueError: a cluster has questions of several strata.

    >>> low, high = interval(Score.mean("war", [f"{k}" for k in range(100)], [1] * 80 + [0] * 20))
    >>> 70 <= low <= 74 and 86 <= high <= 90
    True
    """
    if not score.ids:
        return float("nan"), float("nan")
    (kinds,), counts, strata = _kinds(score)
    drawn = _drawn(counts, strata, resamples, np.random.default_rng(seed))
    return _ends(np.concatenate([kinds.of(weights) for weights in drawn]), confidence)


def difference(
    a: Score, b: Score, confidence: float = 0.95, resamples: int = 10_000, seed: int = 0, partial: bool = False
) -> Comparison:
    """Two scores of the same questions -> a less b, with a paired bootstrap interval and a paired test.

    The test is McNemar's, exact, where a question is right or wrong and all count alike; else answers are swapped
    between the systems at random and the figures taken anew (a sign flip of each question's contribution), whole
    clusters at a time.

    Args:
        a: one system.
        b: the other, the reference.
        confidence: of the interval.
        resamples: of bootstrap and permutation.
        seed: of both.
        partial: compare on the questions that both have, where they are not all.

    Raises:
        ValueError: the systems were not asked the same, or the scores are of different kinds.

    >>> a, b = (Score.mean("war", list("abcdef"), [right] * 6) for right in (1, 0))
    >>> difference(a, b).delta, difference(a, b).p  # 2 x (1/2)^6
    (100.0, 0.03125)
    """
    a, b = _paired(a, b, partial)
    (one, other), counts, strata = _kinds(a, b)
    rng, n, delta = np.random.default_rng(seed), len(a.ids), a.value - b.value
    drawn = _drawn(counts, strata, resamples, rng)
    low, high = _ends(np.concatenate([one.of(weights) - other.of(weights) for weights in drawn]), confidence)
    if _right_or_wrong(a) and _right_or_wrong(b):
        p, discordance = _mcnemar(a, b)
        least = resolvable(discordance, n, confidence) * a.scale / 100
        return Comparison(delta, low, high, p, "mcnemar", n, least)
    null = np.concatenate(list(_swapped(one, other, counts, resamples, rng)))
    null = null[~np.isnan(null)]
    tiny = 1e-9 * a.scale  # sums in another order differ in their last digits
    as_far = np.abs(null) >= abs(delta) - tiny
    p = float((1 + as_far.sum()) / (1 + len(null)))
    least = _steps(confidence, POWER) * float(null.std())
    return Comparison(delta, low, high, p, "sign_flip", n, least if least > tiny else float("nan"))


def resolvable(discordance: float, n: int, confidence: float = 0.95, power: float = POWER) -> float:
    """Share of questions on which exactly one system is right, their number -> smallest difference that shows.

    In points, with the given power, paired; by the normal approximation to McNemar's test, and never below what that
    test could call significant if all disagreements fell to one side.

    >>> round(resolvable(0.2, 2341), 2), resolvable(0.0, 200)
    (2.59, 3.0)
    """
    fewest = int(np.ceil(1 + np.log2(1 / (1 - confidence)) - 1e-9))  # 2 x (1/2)^k <= alpha
    return 100 * max(_steps(confidence, power) * (discordance / n) ** 0.5, fewest / n) if n else float("nan")


def verdict(comparison: Comparison, p: float | None = None, alpha: float = 0.05) -> str:
    """In words whether a difference is resolved at this size.

    Args:
        comparison: of two systems.
        p: in place of its own, as corrected for the others of the table (``holm``).
        alpha: below which it is.

    >>> verdict(Comparison(0.64, -0.9, 2.2, 0.41, "mcnemar", 2341, 2.2))
    '+0.64 [-0.90, +2.20], p = 0.410, n = 2341: not resolved; at this size a difference of about 2.2 would be.'
    """
    p = comparison.p if p is None else p
    figures = f"{comparison.delta:+.2f} [{comparison.low:+.2f}, {comparison.high:+.2f}]"
    said = f"{figures}, {'p < 0.001' if p < 0.001 else f'p = {p:.3f}'}, n = {comparison.n}: "
    if p < alpha:
        return said + "resolved."
    if comparison.test == "mcnemar" and 2 * 0.5**comparison.n >= alpha:
        return said + "not resolved; so few questions resolve nothing."
    if np.isnan(comparison.resolvable):
        return said + "not resolved; on these questions the two do not differ at all."
    return said + f"not resolved; at this size a difference of about {comparison.resolvable:.2g} would be."


def holm(ps: Sequence[float]) -> list[float]:
    """p-values of one table -> the same, corrected for their number by Holm's steps.

    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    from statsmodels.stats.multitest import multipletests

    return [float(p) for p in multipletests(list(ps), method="holm")[1]] if ps else []


def wilson(k: int, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """Right ones of n -> the ends of Wilson's interval in percent: also for a class of few clips.

    >>> [round(end, 1) for end in wilson(29, 29)]
    [88.3, 100.0]
    """
    from statsmodels.stats.proportion import proportion_confint

    if n == 0:
        return 0.0, 100.0
    low, high = proportion_confint(k, n, alpha=1 - confidence, method="wilson")
    return 100 * float(low), 100 * float(high)


def agreement(first: Sequence[float | int], second: Sequence[float | int]) -> dict[str, float]:
    """Marks of two judges for the same answers -> Spearman's correlation and Krippendorff's alpha.

    Raises:
        ValueError: one judge gave more marks than the other.

    >>> {name: round(value, 3) for name, value in agreement([1, 2, 3, 4], [1, 2, 4, 5]).items()}
    {'spearman': 1.0, 'alpha': 0.887, 'n': 4}
    """
    from scipy.stats import spearmanr

    if len(first) != len(second):
        raise ValueError(f"one judge gave {len(first)} marks, the other {len(second)}; take those of the same answers.")
    same = len(set(first)) < 2 or len(set(second)) < 2  # no rank correlation with a constant
    rho = float("nan") if same else float(spearmanr(first, second).statistic)
    return {"spearman": rho, "alpha": krippendorff_alpha([first, second]), "n": len(first)}


def krippendorff_alpha(marks: Sequence[Sequence[float | int]]) -> float:
    """Marks ``[judges answers]``, NaN where there is none -> Krippendorff's alpha for interval data.

    One less the squared disagreement within answers over that among all marks; answers with one mark do not count.

    Reference: Krippendorff, Computing Krippendorff's Alpha-Reliability (2011).

    >>> krippendorff_alpha([[1, 2, 3], [1, 2, 3]])
    1.0
    """
    table = np.asarray(marks, dtype=np.float64)
    answers = [column[~np.isnan(column)] for column in table.T]
    answers = [each for each in answers if len(each) > 1]
    every = np.concatenate(answers) if answers else np.zeros(0)
    if not len(every) or every.var() == 0:
        return float("nan")
    within = sum(len(each) ** 2 * each.var() / (len(each) - 1) for each in answers) / len(every)
    return float(1 - within * (len(every) - 1) / (len(every) * every.var()))


def _paired(a: Score, b: Score, partial: bool) -> tuple[Score, Score]:
    """Both on the questions that both have, in the order of the first.

    Raises:
        ValueError: the systems were not asked the same, or the scores are of different kinds.
    """
    a, b = _side_by_side(a, b)
    kinds = [(each.combine, each.scale, each.numerators.shape[1]) for each in (a, b)]
    if kinds[0] != kinds[1]:
        what = "combine, scale and columns"
        raise ValueError(f"{a.name} and {b.name} are no pair: their {what} are {kinds[0]} and {kinds[1]}.")
    place = {each: row for row, each in enumerate(b.ids)}
    mine = [row for row, each in enumerate(a.ids) if each in place]
    if not mine or (not partial and not len(mine) == len(a.ids) == len(b.ids)):
        raise ValueError(
            f"{a.name}: the systems have {len(mine)} questions in common, of {len(a.ids)} and {len(b.ids)}; ask both "
            "the same, or compare them on what they have in common (partial)."
        )
    theirs = [place[a.ids[row]] for row in mine]
    return _rows(a, mine), _rows(b, theirs)


def _side_by_side(a: Score, b: Score) -> tuple[Score, Score]:
    """Both with the columns of both: one of them may have no question of a class or a fold."""
    every = {column: place for place, column in enumerate(sorted({*a.columns, *b.columns}))}
    if a.columns == b.columns or not (a.columns and b.columns):
        return a, b
    wide = []
    for score in (a, b):
        above, below = np.zeros((2, len(score.ids), len(every)))
        places = [every[column] for column in score.columns]
        above[:, places], below[:, places] = score.numerators, score.denominators
        wide.append(replace(score, numerators=above, denominators=below, columns=tuple(every)))
    return wide[0], wide[1]


def _rows(score: Score, rows: list[int]) -> Score:
    strata, clusters = (
        None if some is None else tuple(some[row] for row in rows) for some in (score.strata, score.clusters)
    )
    ids, above, below = tuple(score.ids[row] for row in rows), score.numerators[rows], score.denominators[rows]
    return replace(score, ids=ids, numerators=above, denominators=below, strata=strata, clusters=clusters, asked=None)


def _kinds(*scores: Score) -> tuple[list[Score], NDArray[np.int64], NDArray[np.int64]]:
    """Paired scores -> the same with a row for each kind of unit, how often each occurs ``[U]``, its stratum ``[U]``.

    Units are clusters, or questions. Those with equal rows in one stratum are a kind: how often it is drawn is
    multinomial, so that a WAR of 11,697 clips takes two weights instead of 11,697, with the same distribution.

    Raises:
        ValueError: a cluster has questions of several strata.
    """
    first, width = scores[0], scores[0].numerators.shape[1]
    rows = np.concatenate([part for each in scores for part in (each.numerators, each.denominators)], axis=1)
    strata = np.unique(first.strata or [""] * len(rows), return_inverse=True)[1]
    if first.clusters is not None:
        _, heads, member = np.unique(first.clusters, return_index=True, return_inverse=True)
        if (mixed := strata[heads][member] != strata).any():
            cluster = first.clusters[int(mixed.argmax())]
            raise ValueError(f"{first.name}: cluster {cluster!r} has questions of several strata; name one of the two.")
        rows, every = np.zeros((len(heads), rows.shape[1])), rows
        np.add.at(rows, member, every)
        strata = strata[heads]
    kinds, counts = np.unique(np.column_stack([strata, rows]), axis=0, return_counts=True)
    parts = np.split(kinds[:, 1:], range(width, kinds.shape[1] - 1, width), axis=1)
    ids = tuple(map(str, range(len(kinds))))
    small = [
        replace(each, ids=ids, numerators=above, denominators=below, strata=None, clusters=None)
        for each, above, below in zip(scores, parts[0::2], parts[1::2], strict=True)
    ]
    return small, counts, kinds[:, 0].astype(np.int64)


def _sizes(resamples: int, kinds: int) -> Iterator[int]:
    size = max(1, CHUNK // kinds)
    for begin in range(0, resamples, size):
        yield min(size, resamples - begin)


def _drawn(
    counts: NDArray[np.int64], strata: NDArray[np.int64], resamples: int, rng: np.random.Generator
) -> Iterator[Array]:
    """Weights ``[R U]`` in chunks: units drawn with replacement within each stratum."""
    for size in _sizes(resamples, len(counts)):
        weights = np.empty((size, len(counts)))
        for stratum in np.unique(strata):
            mine = strata == stratum
            total = counts[mine].sum()
            weights[:, mine] = rng.multinomial(total, counts[mine] / total, size=size)
        yield weights


def _swapped(
    one: Score, other: Score, counts: NDArray[np.int64], resamples: int, rng: np.random.Generator
) -> Iterator[Array]:
    """Differences ``[R]`` in chunks: each unit's answers given to the other system, or not, at even odds."""
    rows = [
        np.concatenate(pair) for pair in ((one.numerators, other.numerators), (one.denominators, other.denominators))
    ]
    both = replace(one, ids=tuple(map(str, range(2 * len(counts)))), numerators=rows[0], denominators=rows[1])
    for size in _sizes(resamples, 2 * len(counts)):
        gone = rng.binomial(counts, 0.5, size=(size, len(counts))).astype(np.float64)
        kept = counts - gone
        yield both.of(np.concatenate([kept, gone], axis=1)) - both.of(np.concatenate([gone, kept], axis=1))


def _right_or_wrong(score: Score) -> bool:
    """Whether it is the share of questions answered rightly, each on its own."""
    plain = score.numerators.shape[1] == 1 and score.clusters is None and score.combine == "mean"
    return plain and bool((score.denominators == 1).all() and np.isin(score.numerators, (0, 1)).all())


def _mcnemar(a: Score, b: Score) -> tuple[float, float]:
    """The exact p, and the share of questions on which one system is right and the other is not."""
    from statsmodels.stats.contingency_tables import mcnemar

    table = np.zeros((2, 2), dtype=np.int64)
    np.add.at(table, (a.numerators[:, 0].astype(np.int64), b.numerators[:, 0].astype(np.int64)), 1)
    return float(mcnemar(table, exact=True).pvalue), float(table[0, 1] + table[1, 0]) / len(a.ids)


def _steps(confidence: float, power: float) -> float:
    """How many standard errors a difference needs to show with this power."""
    from scipy.stats import norm

    return float(norm.ppf((1 + confidence) / 2) + norm.ppf(power))


def _ends(figures: Array, confidence: float) -> tuple[float, float]:
    figures = figures[~np.isnan(figures)]  # a column may lose all its questions
    if not len(figures):
        return float("nan"), float("nan")
    low, high = np.quantile(figures, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)
