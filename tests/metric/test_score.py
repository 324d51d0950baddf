"""Arithmetic of scores, by hand."""

import math

import numpy as np
import pytest

from omnihuman.metric.score import Score

EDITS = Score("wer", ("a", "b"), np.array([[1.0], [4.0]]), np.array([[10.0], [5.0]]))


def test_value_is_the_ratio_of_sums() -> None:
    assert EDITS.value == pytest.approx(100 * 5 / 15)


def test_weights_count_questions_several_times() -> None:
    twice = Score("wer", ("a", "b", "c"), np.array([[1.0], [4.0], [4.0]]), np.array([[10.0], [5.0], [5.0]]))
    assert EDITS.weighted(np.array([[1.0, 2.0], [1.0, 0.0]])) == pytest.approx([twice.value, 10.0])


def test_a_class_with_zero_weight_is_ignored() -> None:
    score = Score.macro("uar", ["a", "b", "c"], [1, 0, 1], ["sad", "sad", "happy"])
    assert score.strata == ("sad", "sad", "happy")
    assert score.weighted(np.array([[1.0, 1.0, 1.0], [1.0, 1.0, 0.0]])) == pytest.approx([75.0, 50.0])
    assert math.isnan(score.weighted(np.zeros((1, 3)))[0])


def test_harmonic_combines_the_sums() -> None:
    # precisions 1 and 0.5, recalls 0.2 and 0.6: F1 of .75 and .4
    above, below = np.array([[1.0, 1.0], [1.0, 3.0]]), np.array([[1.0, 5.0], [2.0, 5.0]])
    pooled = Score("f1", ("a", "b"), above, below, combine="harmonic", scale=1.0)
    precision, recall = 2 / 3, 4 / 10
    assert pooled.value == pytest.approx(2 * precision * recall / (precision + recall))
    means = Score("f1", ("a", "b"), above / below, np.ones((2, 2)), combine="harmonic", scale=1.0)
    assert means.value == pytest.approx(2 * 0.75 * 0.4 / 1.15)


def test_zero_numerators_give_zero_and_zero_denominators_are_ignored() -> None:
    ones = np.ones((1, 4))
    assert Score("f1", ("a",), np.zeros((1, 4)), ones, combine="harmonic").value == 0.0
    half = np.array([[1.0, 1.0, 0.0, 0.0]])  # the second pair of columns has no denominator
    assert Score("f1", ("a",), half, half, combine="harmonic").value == 100.0
    empty: list[float] = []
    assert math.isnan(Score.mean("war", [], empty).value) and math.isnan(Score.macro("uar", [], empty, []).value)


def test_coverage_is_relative_to_all_questions() -> None:
    assert Score.mean("judge", ["a"], [4.5], scale=1.0, num_questions=4).coverage == 0.25
    assert Score.mean("judge", ["a"], [4.5], scale=1.0).coverage == 1.0


def test_duplicate_ids_raise() -> None:
    with pytest.raises(ValueError, match=r"war: 1 .*duplicated.*'b'"):
        Score.mean("war", ["a", "b", "b"], [1, 0, 0])


def test_a_nan_contribution_raises() -> None:
    with pytest.raises(ValueError, match=r"judge: .*'b'.*NaN"):
        Score.macro("judge", ["a", "b"], [1.0, math.nan], ["x", "y"])
