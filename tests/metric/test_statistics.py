"""Intervals and paired tests: by hand, against scipy, against values of statsmodels 0.15.0, and by simulation."""

import math
from itertools import product

import numpy as np
import pytest
from scipy.stats import binomtest, bootstrap, norm, permutation_test, spearmanr

from omnihuman.metric import statistics
from omnihuman.metric.choice import score_choices
from omnihuman.metric.emotion import score_labels
from omnihuman.metric.score import Score, select
from omnihuman.metric.statistics import (
    Comparison,
    agreement,
    detectable_difference,
    difference,
    holm,
    interval,
    krippendorff_alpha,
    verdict,
    wilson,
)


def ids(n: int) -> list[str]:
    return [str(k) for k in range(n)]


def share(num_correct: int, n: int = 200) -> Score:
    """Build the score of a system that is right on the first ``num_correct`` questions."""
    return Score.mean("war", ids(n), [int(k < num_correct) for k in range(n)])


def test_interval_equals_the_binomial_one() -> None:
    low, high = interval(share(160))
    assert (low, high) == pytest.approx(binomial_ends(160, 200), abs=0.51)
    assert interval(share(160)) == (low, high) != interval(share(160), seed=1, resamples=100)
    narrow = interval(share(160), confidence=0.5)
    assert low < narrow[0] < 80 < narrow[1] < high


def binomial_ends(k: int, n: int) -> list[float]:
    from scipy.stats import binom

    return [100 * float(binom.ppf(q, n, k / n)) / n for q in (0.025, 0.975)]


@pytest.mark.parametrize(("accuracy", "n", "half"), [(0.82, 2341, 1.6), (0.68, 1839, 2.1), (0.7, 200, 6.4)])
def test_half_width_of_typical_scores(accuracy: float, n: int, half: float) -> None:
    low, high = interval(share(round(accuracy * n), n=n))
    assert (high - low) / 2 == pytest.approx(half, abs=0.2)  # 200 questions move in steps of half a point


def test_half_width_of_a_mean_over_six_tasks() -> None:
    tasks = [f"task {k // 200}" for k in range(1200)]
    parsed = [(int(k % 200 >= 140), "letter") for k in range(1200)]
    average = score_choices(ids(1200), [0] * 1200, parsed, tasks)[0]
    low, high = interval(average)
    assert average.value == 70.0 and (high - low) / 2 == pytest.approx(2.5, abs=0.15)


def test_interval_of_a_ratio_matches_scipy() -> None:
    rng = np.random.default_rng(0)
    words = rng.integers(1, 30, 150).astype(float)
    edits = rng.binomial(words.astype(int), 0.2).astype(float)
    ends = interval(Score("wer", tuple(ids(150)), edits[:, None], words[:, None]))
    scipy_result = bootstrap(
        (edits, words),
        lambda e, w, axis: 100 * e.sum(axis=axis) / w.sum(axis=axis),
        paired=True,
        method="percentile",
        n_resamples=4000,
        rng=1,
    ).confidence_interval
    assert ends == pytest.approx(tuple(scipy_result), abs=0.25)


def test_resampling_keeps_the_sizes_of_strata() -> None:
    # two clips of a class, both right, 98 of another, half right: the recall of the rare class is constant
    classes, right = ["rare"] * 2 + ["often"] * 98, [1] * 2 + [0, 1] * 49
    uar = Score.macro("uar", ids(100), right, classes)
    low, high = interval(uar)
    assert (high - low) / 2 == pytest.approx(196 * math.sqrt(0.25 / 98) / 2, abs=0.3)
    assert low > 66  # never loses the rare class


def test_clusters_are_drawn_as_a_unit() -> None:
    # 50 videos with four equal answers each: as wide as for 50 questions
    right = [k // 4 % 2 for k in range(200)]
    videos = tuple(f"v{k // 4}" for k in range(200))
    independent = interval(Score.mean("acc", ids(200), right))
    clustered = interval(Score.mean("acc", ids(200), right, clusters=videos))
    assert (clustered[1] - clustered[0]) == pytest.approx(2 * (independent[1] - independent[0]), rel=0.05)
    fewer = Score.mean("acc", ids(50), right[::4])
    assert interval(fewer) == pytest.approx(clustered, abs=0.01)
    with pytest.raises(ValueError, match=r"acc: cluster 'v0'.*strata or clusters"):
        interval(Score.mean("acc", ids(200), right, clusters=videos, strata=tuple(str(k % 2) for k in range(200))))


def test_chunk_size_does_not_change_the_interval(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(3)
    score = Score.mean("cider", ids(60), rng.random(60).tolist())
    expected = interval(score, resamples=2000)
    monkeypatch.setattr(statistics, "CHUNK_SIZE", 60 * 70)
    assert interval(score, resamples=2000) == pytest.approx(expected)


def test_interval_without_questions_is_nan() -> None:
    empty: list[float] = []
    assert all(map(math.isnan, interval(Score.mean("war", [], empty))))


def test_mcnemar_is_exact() -> None:
    # right: 12 questions by a only, 3 by b only, 20 by both, 5 by neither
    a = Score.mean("war", ids(40), [1] * 12 + [0] * 3 + [1] * 20 + [0] * 5)
    b = Score.mean("war", ids(40), [0] * 12 + [1] * 3 + [1] * 20 + [0] * 5)
    comparison = difference(a, b)
    assert comparison.delta == pytest.approx(22.5) and comparison.n == 40 and comparison.test == "mcnemar"
    assert comparison.p == pytest.approx(2 * sum(math.comb(15, k) for k in range(4)) / 2**15)
    assert comparison.p == pytest.approx(binomtest(3, 15).pvalue)
    error = 100 * math.sqrt((15 / 40 - (9 / 40) ** 2) / 40)
    assert (comparison.high - comparison.low) / 2 == pytest.approx(1.96 * error, rel=0.06)
    back = difference(b, a)
    assert (back.delta, back.p) == pytest.approx((-comparison.delta, comparison.p))


def test_the_order_of_questions_does_not_matter() -> None:
    a, b = share(30, n=40), share(20, n=40)
    reversed_b = Score.mean("war", b.ids[::-1], [float(k >= 20) for k in range(40)])
    assert reversed_b.value == b.value and difference(a, reversed_b) == difference(a, b)


def test_equal_systems_do_not_differ() -> None:
    a = share(30, n=40)
    comparison = difference(a, a)
    assert (comparison.delta, comparison.low, comparison.high, comparison.p) == (0.0, 0.0, 0.0, 1.0)
    ratings = Score.mean("judge", ids(10), np.random.default_rng(0).random(10).tolist(), scale=1.0)
    assert difference(ratings, ratings).p == 1.0
    assert "do not differ at all" in verdict(difference(ratings, ratings))


def test_sign_flip_matches_scipy() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(0.25, 1, 60)
    y = x - rng.normal(0.3, 1, 60)
    comparison = difference(
        Score.mean("m", ids(60), x.tolist(), scale=1.0), Score.mean("m", ids(60), y.tolist(), scale=1.0)
    )
    scipy_result = permutation_test(
        (x, y),
        lambda one, other, axis: (one - other).mean(axis=axis),
        permutation_type="samples",
        vectorized=True,
        n_resamples=9999,
        rng=1,
    )
    assert comparison.test == "sign_flip" and comparison.p == pytest.approx(scipy_result.pvalue, abs=0.01)
    assert 0.001 < comparison.p < 0.2


def test_sign_flip_by_enumeration() -> None:
    # differences 1 2 3 4: only the observed signs and their mirror reach 10 in sum, 2 of 16
    a = Score.mean("m", ids(4), [1, 2, 3, 4], scale=1.0)
    b = Score.mean("m", ids(4), [0, 0, 0, 0], scale=1.0)
    assert difference(a, b, resamples=40_000).p == pytest.approx(2 / 16, abs=0.005)


def test_uar_is_recomputed_for_each_swap() -> None:
    # the rare class decides: a alone is right on its three clips, the other 100 answers are equal
    references = ["rare"] * 3 + ["often"] * 100
    a = score_labels(ids(103), references, references, ["rare", "often"])[1]
    b = score_labels(ids(103), references, [None] * 3 + ["often"] * 100, ["rare", "often"])[1]
    comparison = difference(a, b)
    assert comparison.delta == pytest.approx(50.0) and comparison.test == "sign_flip"
    assert comparison.p == pytest.approx(2 / 8, abs=0.02)
    assert (comparison.low, comparison.high) == (50.0, 50.0)


def test_swaps_of_ratios_move_numerator_and_denominator() -> None:
    # WER on one long utterance and many short ones; swapped by hand over all 2^3 cases
    a = Score("wer", tuple(ids(3)), np.array([[1.0], [2.0], [30.0]]), np.array([[10.0], [10.0], [100.0]]))
    b = Score("wer", tuple(ids(3)), np.array([[3.0], [2.0], [20.0]]), np.array([[10.0], [10.0], [100.0]]))
    deltas = np.asarray([100 * (s * -2 + t * 10) / 120 for s, t in product((1, -1), (1, -1))])
    p = np.mean(np.abs(deltas) >= abs(a.value - b.value) - 1e-9)
    assert difference(a, b, resamples=20_000).p == pytest.approx(p, abs=0.02)


def test_clusters_are_swapped_as_a_unit() -> None:
    right, videos = [1] * 8, ("v", "v", "v", "v", "w", "w", "w", "w")
    a = Score.mean("acc", ids(8), right, clusters=videos)
    b = Score.mean("acc", ids(8), [0] * 8, clusters=videos)
    comparison = difference(a, b)
    assert comparison.test == "sign_flip" and comparison.p == pytest.approx(0.5, abs=0.02)  # two coins, not eight


def test_false_positive_rate_is_nominal() -> None:
    rng = np.random.default_rng(5)
    classes = ["a"] * 20 + ["b"] * 60
    ps = []
    for _ in range(200):
        a, b = (Score.macro("uar", ids(80), (rng.random(80) < 0.7).astype(int).tolist(), classes) for _ in "ab")
        ps.append(difference(a, b, resamples=400).p)
    assert 0.005 <= np.mean(np.asarray(ps) < 0.05) <= 0.09


def test_different_questions_raise_unless_partial() -> None:
    a, b = share(30, n=40), share(20, n=40)
    fewer = Score.mean("war", ids(30), [1] * 20 + [0] * 10)
    with pytest.raises(ValueError, match=r"war: .*\b30 questions.*\b40 and 30\b"):
        difference(a, fewer)
    comparison = difference(a, fewer, partial=True)
    assert comparison.n == 30 and comparison.delta == pytest.approx(100 * 10 / 30)
    other = Score.mean("war", [f"x{k}" for k in range(40)], [1] * 40)
    with pytest.raises(ValueError, match=r"\b0 questions"):
        difference(a, other, partial=True)
    with pytest.raises(ValueError, match=r"war and uar .* 1\) and .* 2\)"):
        difference(b, Score.macro("uar", ids(40), [1] * 40, ["x", "y"] * 20))


HOLM = {
    (0.4354, 0.0744, 0.0174, 0.1336, 0.0664): (0.4354, 0.2656, 0.087, 0.2672, 0.2656),
    (0.9065, 0.0459, 0.7089, 0.0104): (1.0, 0.1377, 1.0, 0.0416),
    (0.9623, 0.151, 0.3507, 0.2181): (0.9623, 0.604, 0.7014, 0.6543),
    (0.036, 0.1754, 0.0443, 0.0316, 0.2627, 0.0085, 0.1687): (0.1896, 0.5061, 0.1896, 0.1896, 0.5061, 0.0595, 0.5061),
    (0.3,): (0.3,),
    (): (),
}
"""p-values -> ``multipletests(..., method="holm")`` of statsmodels 0.15.0."""


def test_holm() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    for ps, expected in HOLM.items():
        assert holm(ps) == pytest.approx(expected)


WILSON = {
    (0, 29, 0.9): (0.0, 8.533345148),
    (20, 29, 0.95): (50.769865767, 82.724383256),
    (29, 29, 0.95): (88.30302015, 100.0),
    (1, 3, 0.99): (4.04266293, 85.578398495),
    (1930, 2341, 0.95): (80.849443249, 83.931055845),
    (7, 4000, 0.5): (0.135735732, 0.225596583),
}
"""k, n and confidence -> ``proportion_confint(..., method="wilson")`` of statsmodels 0.15.0, in percent."""


def test_wilson() -> None:
    z, n, k = norm.ppf(0.975), 29, 20 / 29
    middle = (k + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z * math.sqrt(k * (1 - k) / n + z**2 / (4 * n**2)) / (1 + z**2 / n)
    assert wilson(20, 29) == pytest.approx((100 * (middle - half), 100 * (middle + half)))
    for arguments, expected in WILSON.items():
        assert wilson(*arguments) == pytest.approx(expected)
    assert wilson(0, 0) == (0.0, 100.0)


MCNEMAR = {
    (0, 0): 1.0,
    (1, 0): 1.0,
    (5, 5): 1.0,
    (3, 9): 0.14599609375,
    (17, 4): 0.007197380066,
    (127, 112): 0.365186745288,
    (0, 12): 0.00048828125,
}
"""Questions that one system alone got right -> p of ``mcnemar(..., exact=True)`` of statsmodels 0.15.0."""


@pytest.mark.parametrize("wins", MCNEMAR)
def test_mcnemar_equals_statsmodels(wins: tuple[int, int]) -> None:
    only_a, only_b = wins
    a = Score.mean("war", ids(only_a + only_b + 3), [1] * only_a + [0] * only_b + [1, 1, 0])
    b = Score.mean("war", ids(only_a + only_b + 3), [0] * only_a + [1] * only_b + [1, 1, 0])
    assert difference(a, b, resamples=10).p == pytest.approx(MCNEMAR[wins])


def test_detectable_difference_has_the_nominal_power() -> None:
    n, discordance = 2341, 0.2
    least = detectable_difference(discordance, n) / 100
    rng = np.random.default_rng(0)
    odds = [(discordance + least) / 2, (discordance - least) / 2, 1 - discordance]
    hits = [binomtest(int(one), int(one + other)).pvalue < 0.05 for one, other, _ in rng.multinomial(n, odds, 1000)]
    assert np.mean(hits) == pytest.approx(0.8, abs=0.04)


def test_at_least_six_discordant_questions_are_needed() -> None:
    assert detectable_difference(0.0, 200) == pytest.approx(3.0)
    a, b = share(195), share(190)
    assert difference(a, b).p > 0.05 and difference(a, b).detectable >= 3.0
    a, b = share(196), share(190)
    assert difference(a, b).p == pytest.approx(2 / 2**6) and difference(a, b).delta == pytest.approx(3.0)
    assert math.isnan(detectable_difference(0.1, 0))


def test_the_difference_between_two_tables_of_humanomni_is_not_resolved() -> None:
    # 82.46 and 81.82 on one fold, with one answer in ten decided differently
    rng = np.random.default_rng(0)
    first = (np.arange(2341) < 1930).astype(int)
    second = first.copy()
    second[rng.choice(1930, 127, replace=False)] = 0
    second[1930 + rng.choice(411, 112, replace=False)] = 1
    a, b = (Score.mean("war", ids(2341), values.tolist()) for values in (first, second))
    comparison = difference(a, b)
    assert comparison.delta == pytest.approx(0.64, abs=0.005) and comparison.p > 0.3
    assert "not resolved; at this size a difference of about 1.9 would be." in verdict(comparison)


def test_verdict_uses_the_corrected_p() -> None:
    comparison = Comparison(2.0, 0.1, 3.9, 0.03, "mcnemar", 500, 2.8)
    assert verdict(comparison) == "+2.00 [+0.10, +3.90], p = 0.030, n = 500: resolved."
    assert verdict(comparison, p=0.09).endswith(
        "p = 0.090, n = 500: not resolved; at this size a difference of about 2.8 would be."
    )
    assert "p < 0.001" in verdict(comparison, p=0.0001)


def test_krippendorff_alpha_of_a_published_table() -> None:
    # Krippendorff 2011, four observers, twelve units, some ratings missing: interval alpha .849
    x = math.nan
    table = [
        [1, 2, 3, 3, 2, 1, 4, 1, 2, x, x, x],
        [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, x, 3],
        [x, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, x],
        [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, x],
    ]
    assert round(krippendorff_alpha(table), 3) == 0.849


def test_krippendorff_alpha_by_hand() -> None:
    # ratings 1 1, 2 2, 3 4, 4 5: disagreement within 4/8, among all 2 (8 x 76 - 22^2) / (8 x 7)
    assert krippendorff_alpha([[1, 2, 3, 4], [1, 2, 4, 5]]) == pytest.approx(1 - 0.5 / (2 * (8 * 76 - 22**2) / 56))
    assert krippendorff_alpha([[1, 2], [2, 1]]) == pytest.approx(-0.5)
    assert math.isnan(krippendorff_alpha([[3, 3], [3, 3]])) and math.isnan(krippendorff_alpha([[1.0], [math.nan]]))


def test_agreement_of_two_judges() -> None:
    first, second = [1, 2, 3, 4, 5, 5], [2, 2, 3, 5, 4, 5]
    comparison = agreement(first, second)
    assert comparison["spearman"] == pytest.approx(spearmanr(first, second).statistic) and comparison["n"] == 6
    assert math.isnan(agreement([3, 3], [1, 2])["spearman"])
    with pytest.raises(ValueError, match=r"judges .*\b1 and 2 scores"):
        agreement([1], [1, 2])


def test_partial_comparison_ignores_classes_of_one_system() -> None:
    ids, right = [f"{k}" for k in range(40)], [k % 3 > 0 for k in range(40)]
    classes = ["fear", "happy", "sad", "sad"] * 10
    a = Score.macro("uar", ids, right, classes)
    rows = [k for k in range(40) if classes[k] != "happy"]
    fewer_ids, fewer_right, fewer_classes = select(ids, rows), select(right, rows), select(classes, rows)
    b = Score.macro("uar", fewer_ids, [not value for value in fewer_right], fewer_classes)
    expected = difference(Score.macro("uar", fewer_ids, fewer_right, fewer_classes), b, resamples=500)
    comparison = difference(a, b, resamples=500, partial=True)
    assert (comparison.delta, comparison.p, comparison.n) == (pytest.approx(expected.delta), expected.p, 30)


def test_verdict_of_very_few_questions() -> None:
    right, wrong = (Score.mean("war", list("abcde"), [value] * 5) for value in (1, 0))
    assert verdict(difference(right, wrong, resamples=10)).endswith("not resolved; so few questions resolve nothing.")
