"""Intervals and paired tests: by hand, against scipy and statsmodels, and by simulation."""

import math

import numpy as np
import pytest
from scipy.stats import binomtest, bootstrap, norm, permutation_test, spearmanr
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.proportion import proportion_confint

from omnihuman.metric import statistics
from omnihuman.metric.choice import choice_scores
from omnihuman.metric.emotion import label_scores
from omnihuman.metric.score import Score
from omnihuman.metric.statistics import (
    Comparison,
    agreement,
    difference,
    holm,
    interval,
    krippendorff_alpha,
    resolvable,
    verdict,
    wilson,
)


def ids(n: int) -> list[str]:
    return [str(k) for k in range(n)]


def shares(*right: int, n: int = 200) -> list[Score]:
    """Scores of systems that are right on the first so many questions."""
    return [Score.mean("war", ids(n), [int(k < each) for k in range(n)]) for each in right]


def test_interval_is_the_binomial_one() -> None:
    low, high = interval(shares(160)[0])
    assert (low, high) == pytest.approx(binomial_ends(160, 200), abs=0.51)
    assert interval(shares(160)[0]) == (low, high) != interval(shares(160)[0], seed=1, resamples=100)
    narrow = interval(shares(160)[0], confidence=0.5)
    assert low < narrow[0] < 80 < narrow[1] < high


def binomial_ends(k: int, n: int) -> list[float]:
    from scipy.stats import binom

    return [100 * float(binom.ppf(q, n, k / n)) / n for q in (0.025, 0.975)]


@pytest.mark.parametrize(("share", "n", "half"), [(0.82, 2341, 1.6), (0.68, 1839, 2.1), (0.7, 200, 6.4)])
def test_half_widths_to_expect(share: float, n: int, half: float) -> None:
    low, high = interval(shares(round(share * n), n=n)[0])
    assert (high - low) / 2 == pytest.approx(half, abs=0.2)  # 200 questions move in steps of half a point


def test_half_width_of_an_average_of_six_tasks() -> None:
    tasks = [f"task {k}" for k in range(6) for _ in range(200)]
    parsed = [(int(k % 200 >= 140), "letter") for k in range(1200)]
    average = choice_scores(ids(1200), [0] * 1200, parsed, tasks)[0]
    low, high = interval(average)
    assert average.value == 70.0 and (high - low) / 2 == pytest.approx(2.5, abs=0.15)


def test_interval_of_a_ratio_agrees_with_scipy() -> None:
    rng = np.random.default_rng(0)
    words = rng.integers(1, 30, 150).astype(float)
    edits = rng.binomial(words.astype(int), 0.2).astype(float)
    ours = interval(Score("wer", tuple(ids(150)), edits[:, None], words[:, None]))
    theirs = bootstrap(
        (edits, words),
        lambda e, w, axis: 100 * e.sum(axis=axis) / w.sum(axis=axis),
        paired=True,
        method="percentile",
        n_resamples=4000,
        rng=1,
    ).confidence_interval
    assert ours == pytest.approx(tuple(theirs), abs=0.25)


def test_strata_keep_their_sizes() -> None:
    # two clips of a class, both right, 98 of another, half right: the recall of the rare class cannot move
    classes, right = ["rare"] * 2 + ["often"] * 98, [1] * 2 + [0, 1] * 49
    uar = Score.macro("uar", ids(100), right, classes)
    low, high = interval(uar)
    assert (high - low) / 2 == pytest.approx(196 * math.sqrt(0.25 / 98) / 2, abs=0.3)
    assert low > 66  # never loses the rare class


def test_clusters_are_drawn_whole() -> None:
    # 50 videos of four questions each, answered alike: as sure as 50 questions
    right = [k // 4 % 2 for k in range(200)]
    videos = tuple(f"v{k // 4}" for k in range(200))
    alone, whole = (interval(Score.mean("acc", ids(200), right, clusters=some)) for some in (None, videos))
    assert (whole[1] - whole[0]) == pytest.approx(2 * (alone[1] - alone[0]), rel=0.05)
    fewer = Score.mean("acc", ids(50), right[::4])
    assert interval(fewer) == pytest.approx(whole, abs=0.01)
    with pytest.raises(ValueError, match="acc: cluster 'v0' has questions of several strata"):
        interval(Score.mean("acc", ids(200), right, clusters=videos, strata=tuple(str(k % 2) for k in range(200))))


def test_chunks_do_not_matter_to_the_result(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(3)
    score = Score.mean("cider", ids(60), rng.random(60).tolist())
    whole = interval(score, resamples=2000)
    monkeypatch.setattr(statistics, "CHUNK", 60 * 70)
    assert interval(score, resamples=2000) == pytest.approx(whole)


def test_nothing_asked_is_unknown() -> None:
    empty: list[float] = []
    assert all(map(math.isnan, interval(Score.mean("war", [], empty))))


def test_mcnemar_is_exact() -> None:
    # 12 questions only a has right, 3 only b, 20 both, 5 none
    a = Score.mean("war", ids(40), [1] * 12 + [0] * 3 + [1] * 20 + [0] * 5)
    b = Score.mean("war", ids(40), [0] * 12 + [1] * 3 + [1] * 20 + [0] * 5)
    found = difference(a, b)
    assert found.delta == pytest.approx(22.5) and found.n == 40 and found.test == "mcnemar"
    assert found.p == pytest.approx(2 * sum(math.comb(15, k) for k in range(4)) / 2**15)
    assert found.p == pytest.approx(mcnemar([[20, 12], [3, 5]], exact=True).pvalue)
    assert found.p == pytest.approx(binomtest(3, 15).pvalue)
    error = 100 * math.sqrt((15 / 40 - (9 / 40) ** 2) / 40)
    assert (found.high - found.low) / 2 == pytest.approx(1.96 * error, rel=0.06)
    back = difference(b, a)
    assert (back.delta, back.p) == pytest.approx((-found.delta, found.p))


def test_the_order_of_questions_does_not_matter() -> None:
    a, b = shares(30, 20, n=40)
    turned = Score.mean("war", b.ids[::-1], [float(k >= 20) for k in range(40)])
    assert turned.value == b.value and difference(a, turned) == difference(a, b)


def test_equal_systems_do_not_differ() -> None:
    a = shares(30, n=40)[0]
    found = difference(a, a)
    assert (found.delta, found.low, found.high, found.p) == (0.0, 0.0, 0.0, 1.0)
    marks = Score.mean("judge", ids(10), np.random.default_rng(0).random(10).tolist(), scale=1.0)
    assert difference(marks, marks).p == 1.0
    assert "do not differ at all" in verdict(difference(marks, marks))


def test_sign_flip_agrees_with_scipy() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(0.25, 1, 60)
    y = x - rng.normal(0.3, 1, 60)
    found = difference(Score.mean("m", ids(60), x.tolist(), scale=1.0), Score.mean("m", ids(60), y.tolist(), scale=1.0))
    theirs = permutation_test(
        (x, y),
        lambda one, other, axis: (one - other).mean(axis=axis),
        permutation_type="samples",
        vectorized=True,
        n_resamples=9999,
        rng=1,
    )
    assert found.test == "sign_flip" and found.p == pytest.approx(theirs.pvalue, abs=0.01)
    assert 0.001 < found.p < 0.2


def test_sign_flip_of_all_sixteen() -> None:
    # differences 1 2 3 4: only the observed signs and their mirror reach 10 in sum, 2 of 16
    a = Score.mean("m", ids(4), [1, 2, 3, 4], scale=1.0)
    b = Score.mean("m", ids(4), [0, 0, 0, 0], scale=1.0)
    assert difference(a, b, resamples=40_000).p == pytest.approx(2 / 16, abs=0.005)


def test_uar_is_taken_anew_for_each_swap() -> None:
    # the rare class decides: three of three clips only a has right, 100 others equal
    truths = ["rare"] * 3 + ["often"] * 100
    a = label_scores(ids(103), truths, truths, ["rare", "often"])[1]
    b = label_scores(ids(103), truths, [None] * 3 + ["often"] * 100, ["rare", "often"])[1]
    found = difference(a, b)
    assert found.delta == pytest.approx(50.0) and found.test == "sign_flip"
    assert found.p == pytest.approx(2 / 8, abs=0.02)
    assert (found.low, found.high) == (50.0, 50.0)


def test_swaps_of_ratios_take_numerator_and_denominator() -> None:
    # WER on one long utterance and many short ones; swapped by hand over all 2^3 cases
    a = Score("wer", tuple(ids(3)), np.array([[1.0], [2.0], [30.0]]), np.array([[10.0], [10.0], [100.0]]))
    b = Score("wer", tuple(ids(3)), np.array([[3.0], [2.0], [20.0]]), np.array([[10.0], [10.0], [100.0]]))
    deltas = [100 * (s * -2 + t * 10) / 120 for s in (1, -1) for t in (1, -1)]
    p = np.mean([abs(each) >= abs(a.value - b.value) - 1e-9 for each in deltas])
    assert difference(a, b, resamples=20_000).p == pytest.approx(p, abs=0.02)


def test_clusters_are_swapped_whole() -> None:
    right, videos = [1] * 8, ("v", "v", "v", "v", "w", "w", "w", "w")
    a = Score.mean("acc", ids(8), right, clusters=videos)
    b = Score.mean("acc", ids(8), [0] * 8, clusters=videos)
    found = difference(a, b)
    assert found.test == "sign_flip" and found.p == pytest.approx(0.5, abs=0.02)  # two coins, not eight


def test_a_true_null_is_rejected_as_often_as_promised() -> None:
    rng = np.random.default_rng(5)
    classes = ["a"] * 20 + ["b"] * 60
    ps = []
    for _ in range(200):
        one, other = (Score.macro("uar", ids(80), (rng.random(80) < 0.7).astype(int).tolist(), classes) for _ in "ab")
        ps.append(difference(one, other, resamples=400).p)
    assert 0.005 <= np.mean(np.asarray(ps) < 0.05) <= 0.09


def test_systems_that_were_asked_different_questions() -> None:
    a, b = shares(30, 20, n=40)
    fewer = Score.mean("war", ids(30), [1] * 20 + [0] * 10)
    with pytest.raises(ValueError, match="war: the systems have 30 questions in common, of 40 and 30"):
        difference(a, fewer)
    found = difference(a, fewer, partial=True)
    assert found.n == 30 and found.delta == pytest.approx(100 * 10 / 30)
    other = Score.mean("war", [f"x{k}" for k in range(40)], [1] * 40)
    with pytest.raises(ValueError, match="0 questions in common"):
        difference(a, other, partial=True)
    with pytest.raises(ValueError, match=r"war and uar are no pair: .* 1\) and .* 2\)"):
        difference(b, Score.macro("uar", ids(40), [1] * 40, ["x", "y"] * 20))


def test_holm_by_hand_and_as_statsmodels_does() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    ps = [0.2, 0.001, 0.04, 0.04, 0.9]
    assert holm(ps) == pytest.approx(list(multipletests(ps, method="holm")[1]))
    assert holm([]) == [] and holm([0.3]) == pytest.approx([0.3])


def test_wilson_by_hand_and_as_statsmodels_does() -> None:
    z, n, share = norm.ppf(0.975), 29, 20 / 29
    middle = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z * math.sqrt(share * (1 - share) / n + z**2 / (4 * n**2)) / (1 + z**2 / n)
    assert wilson(20, 29) == pytest.approx((100 * (middle - half), 100 * (middle + half)))
    theirs = proportion_confint(0, 29, alpha=0.1, method="wilson")
    assert wilson(0, 29, 0.9) == pytest.approx(tuple(100 * end for end in theirs))
    assert wilson(0, 0) == (0.0, 100.0)


def test_what_is_resolvable_has_the_power_it_promises() -> None:
    n, discordance = 2341, 0.2
    least = resolvable(discordance, n) / 100
    rng = np.random.default_rng(0)
    odds = [(discordance + least) / 2, (discordance - least) / 2, 1 - discordance]
    hits = [binomtest(int(one), int(one + other)).pvalue < 0.05 for one, other, _ in rng.multinomial(n, odds, 1000)]
    assert np.mean(hits) == pytest.approx(0.8, abs=0.04)


def test_six_questions_have_to_fall_to_one_side() -> None:
    assert resolvable(0.0, 200) == pytest.approx(3.0)
    a, b = shares(195, 190)
    assert difference(a, b).p > 0.05 and difference(a, b).resolvable >= 3.0
    a, b = shares(196, 190)
    assert difference(a, b).p == pytest.approx(2 / 2**6) and difference(a, b).delta == pytest.approx(3.0)
    assert math.isnan(resolvable(0.1, 0))


def test_the_gap_between_two_tables_of_humanomni_is_noise() -> None:
    # 82.46 and 81.82 on one fold, with one answer in ten decided differently
    rng = np.random.default_rng(0)
    first = (np.arange(2341) < 1930).astype(int)
    second = first.copy()
    second[rng.choice(1930, 127, replace=False)] = 0
    second[1930 + rng.choice(411, 112, replace=False)] = 1
    a, b = (Score.mean("war", ids(2341), each.tolist()) for each in (first, second))
    found = difference(a, b)
    assert found.delta == pytest.approx(0.64, abs=0.005) and found.p > 0.3
    assert "not resolved; at this size a difference of about 1.9 would be." in verdict(found)


def test_words_follow_the_corrected_p() -> None:
    found = Comparison(2.0, 0.1, 3.9, 0.03, "mcnemar", 500, 2.8)
    assert verdict(found) == "+2.00 [+0.10, +3.90], p = 0.030, n = 500: resolved."
    assert verdict(found, p=0.09).endswith(
        "p = 0.090, n = 500: not resolved; at this size a difference of about 2.8 would be."
    )
    assert "p < 0.001" in verdict(found, p=0.0001)


def test_alpha_of_a_published_table() -> None:
    # Krippendorff 2011, four observers, twelve units, some marks missing: interval alpha .849
    x = math.nan
    table = [
        [1, 2, 3, 3, 2, 1, 4, 1, 2, x, x, x],
        [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, x, 3],
        [x, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, x],
        [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, x],
    ]
    assert round(krippendorff_alpha(table), 3) == 0.849


def test_alpha_by_hand() -> None:
    # marks 1 1, 2 2, 3 4, 4 5: disagreement within 4/8, among all 2 (8 x 76 - 22^2) / (8 x 7)
    assert krippendorff_alpha([[1, 2, 3, 4], [1, 2, 4, 5]]) == pytest.approx(1 - 0.5 / (2 * (8 * 76 - 22**2) / 56))
    assert krippendorff_alpha([[1, 2], [2, 1]]) == pytest.approx(-0.5)
    assert math.isnan(krippendorff_alpha([[3, 3], [3, 3]])) and math.isnan(krippendorff_alpha([[1.0], [math.nan]]))


def test_two_judges() -> None:
    first, second = [1, 2, 3, 4, 5, 5], [2, 2, 3, 5, 4, 5]
    found = agreement(first, second)
    assert found["spearman"] == pytest.approx(spearmanr(first, second).statistic) and found["n"] == 6
    assert math.isnan(agreement([3, 3], [1, 2])["spearman"])
    with pytest.raises(ValueError, match="one judge gave 1 marks, the other 2"):
        agreement([1], [1, 2])


def test_classes_that_one_system_was_not_asked_do_not_shift_the_others() -> None:
    ids, right = [f"{k}" for k in range(40)], [k % 3 > 0 for k in range(40)]
    classes = ["fear", "happy", "sad", "sad"] * 10
    whole = Score.macro("uar", ids, right, classes)
    rows = [k for k in range(40) if classes[k] != "happy"]
    some = Score.macro("uar", [ids[k] for k in rows], [not right[k] for k in rows], [classes[k] for k in rows])
    same = Score.macro("uar", [ids[k] for k in rows], [right[k] for k in rows], [classes[k] for k in rows])
    expected, found = difference(same, some, resamples=500), difference(whole, some, resamples=500, partial=True)
    assert (found.delta, found.p, found.n) == (pytest.approx(expected.delta), expected.p, 30)


def test_a_handful_of_questions_resolves_nothing() -> None:
    right, wrong = (Score.mean("war", list("abcde"), [value] * 5) for value in (1, 0))
    assert verdict(difference(right, wrong, resamples=10)).endswith("not resolved; so few questions resolve nothing.")
