"""Means and differences over seeds: exact cases, and how often the test calls a difference significant."""

import math
from collections.abc import Mapping

import numpy as np
import pytest
from scipy.stats import t, ttest_1samp

from omnihuman.metric.hierarchical import SeedEstimate, estimate_difference, estimate_mean
from omnihuman.metric.score import Array, Score
from omnihuman.metric.statistics import difference

NUM_QUESTIONS = 40


def build_scores(values: Array, offset: int = 0) -> dict[int, Score]:
    """Return one score per seed from the values of its questions ``[S Q]``."""
    ids = [f"q{number}" for number in range(values.shape[1])]
    return {offset + seed: Score.mean("war", ids, list(row)) for seed, row in enumerate(values)}


def compare(first: Array, second: Array, resamples: int = 300) -> SeedEstimate:
    return estimate_difference(build_scores(first), build_scores(second), resamples=resamples)


def test_equal_questions_leave_the_t_test_over_seeds() -> None:
    """Without any spread over questions, the test is Student's over the seeds."""
    first = np.tile([[0.5], [0.6], [0.9]], (1, 50))
    estimate = compare(first, np.full((3, 50), 0.4))
    expected = ttest_1samp([10.0, 20.0, 50.0], 0.0)
    assert estimate.values == pytest.approx((10.0, 20.0, 50.0)) and estimate.value == pytest.approx(80 / 3)
    assert estimate.deviation == pytest.approx(np.std([10, 20, 50], ddof=1))
    assert estimate.p == pytest.approx(expected.pvalue)
    assert (estimate.low, estimate.high) == pytest.approx(tuple(expected.confidence_interval(0.95)))


def test_equal_seeds_leave_the_bootstrap_over_questions() -> None:
    """Without any spread over seeds, the error is that of the mean over questions."""
    row = np.asarray([1.0] * 60 + [0.0] * 20)
    estimate = estimate_mean(build_scores(np.stack([row] * 3)), resamples=20_000)
    error = 100 * row.std() / math.sqrt(80)
    quantile = t.ppf(0.975, 79)
    assert estimate.deviation == 0 and estimate.value == 75
    assert estimate.low == pytest.approx(75 - quantile * error, abs=0.2)
    assert estimate.high == pytest.approx(75 + quantile * error, abs=0.2)


def test_identical_systems_have_no_spread() -> None:
    values = np.asarray([[1.0, 0.0, 1.0], [0.0, 1.0, 1.0]])
    estimate = compare(values, values)
    assert (estimate.value, estimate.low, estimate.high, estimate.p) == (0, 0, 0, 1) and math.isnan(estimate.detectable)


def test_p_is_never_below_that_of_a_sign_test() -> None:
    assert compare(np.ones((3, 4)), np.zeros((3, 4))).p == 2 * 0.5**4


def test_seeds_pair_where_both_systems_have_the_same() -> None:
    """A spread that both systems share cancels seed by seed, and not between the means of other seeds."""
    first = np.tile([[0.3], [0.6], [0.9]], (1, 40))
    second = first - np.asarray([[0.10], [0.11], [0.12]])
    paired = compare(first, second)
    unpaired = estimate_difference(build_scores(first), build_scores(second, offset=7), resamples=300)
    assert paired.value == pytest.approx(unpaired.value) and paired.p < 0.01 < 0.5 < unpaired.p
    assert len(paired.values) == 3 and unpaired.values == () and math.isnan(unpaired.deviation)


def test_questions_pair_by_their_ids() -> None:
    ids = [f"q{number}" for number in range(40)]
    easy = [float(number % 4 > 0) for number in range(40)]
    first = {seed: Score.mean("war", ids, easy) for seed in range(3)}
    second = {seed: Score.mean("war", ids[::-1], easy[::-1]) for seed in range(3)}
    assert estimate_difference(first, second, resamples=100).p == 1


def test_ends_stay_within_the_scale() -> None:
    values = np.ones((3, 20))
    values[0, :2] = 0
    estimate = estimate_mean(build_scores(values), resamples=300)
    assert estimate.high == 100 and estimate.low < 96


def test_classes_count_equally_in_every_resample() -> None:
    classes = ["happy"] * 90 + ["sad"] * 10
    ids = [f"q{number}" for number in range(100)]
    scores = {}
    for seed, num_right in enumerate((0, 5, 10)):
        scores[seed] = Score.macro("uar", ids, [1] * 90 + [1] * num_right + [0] * (10 - num_right), classes)
    assert estimate_mean(scores, resamples=200).values == pytest.approx((50, 75, 100))


@pytest.mark.parametrize("num_seeds", [0, 1])
def test_fewer_than_two_seeds_raise(num_seeds: int) -> None:
    scores = build_scores(np.ones((num_seeds, 4)))
    with pytest.raises(ValueError, match="two seeds"):
        estimate_mean(scores)


def simulate(rng: np.random.Generator, spread: Mapping[str, float], num_seeds: int) -> Array:
    """Return differences ``[S Q]`` with a mean of 0: spread of questions, of seeds, and of both together."""
    questions = rng.normal(0, spread["questions"], (1, NUM_QUESTIONS))
    seeds = rng.normal(0, spread["seeds"], (num_seeds, 1))
    return questions + seeds + rng.normal(0, spread["both"], (num_seeds, NUM_QUESTIONS))


def measure_rejections(spread: Mapping[str, float], num_seeds: int, repeats: int) -> float:
    rng = np.random.default_rng(num_seeds)
    rejections = 0
    for _ in range(repeats):
        values = simulate(rng, spread, num_seeds)
        rejections += compare(values, np.zeros_like(values), resamples=100).p < 0.05
    return rejections / repeats


@pytest.mark.parametrize(
    ("questions", "seeds", "both", "low", "high"),
    [
        pytest.param(1.0, 0.0, 0.01, 0.01, 0.09, marks=pytest.mark.slow),
        (0.0, 1.0, 0.01, 0.01, 0.09),
        (1.0, 0.3, 0.3, 0.01, 0.11),
        pytest.param(0.0, 0.0, 1.0, 0.0, 0.05, marks=pytest.mark.slow),  # in both variances: conservative
    ],
    ids=["questions", "seeds", "all", "interaction"],
)
def test_true_nulls_are_rejected_as_often_as_promised(
    questions: float, seeds: float, both: float, low: float, high: float
) -> None:
    rate = measure_rejections({"questions": questions, "seeds": seeds, "both": both}, num_seeds=3, repeats=200)
    assert low <= rate <= high


def test_a_test_over_questions_alone_rejects_most_true_nulls_where_seeds_decide() -> None:
    """A seed shifts all questions: one training of each system is enough for p < 0.05, and says nothing."""
    rng = np.random.default_rng(0)
    rejections = {"one seed": 0, "three seeds": 0}
    for _ in range(100):
        rates = np.clip(rng.normal(0.5, 0.2, (2, 3, 1)), 0.05, 0.95)  # the same distribution for both systems
        first, second = (rng.random((2, 3, 80)) < rates).astype(np.float64)
        one = difference(build_scores(first)[0], build_scores(second)[0], resamples=100)
        rejections["one seed"] += one.p < 0.05
        rejections["three seeds"] += compare(first, second, resamples=100).p < 0.05
    assert rejections["one seed"] > 45 and rejections["three seeds"] <= 12


def test_a_large_difference_is_significant_with_three_seeds() -> None:
    rng = np.random.default_rng(0)
    rates = rng.normal(0, 0.02, (2, 3, 1)) + np.asarray([0.9, 0.4])[:, None, None]
    first, second = (rng.random((2, 3, NUM_QUESTIONS)) < rates).astype(np.float64)
    estimate = compare(first, second)
    assert estimate.p < 0.05 and estimate.low > 0 and estimate.detectable < estimate.value
