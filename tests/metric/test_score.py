"""The arithmetic of scores, by hand."""

import math

import numpy as np
import pytest

from omnihuman.metric.score import Score

EDITS = Score("wer", ("a", "b"), np.array([[1.0], [4.0]]), np.array([[10.0], [5.0]]))


def test_a_ratio_of_sums_is_no_mean_of_ratios() -> None:
    assert EDITS.value == pytest.approx(100 * 5 / 15)


def test_weights_repeat_questions() -> None:
    twice = Score("wer", ("a", "b", "c"), np.array([[1.0], [4.0], [4.0]]), np.array([[10.0], [5.0], [5.0]]))
    assert EDITS.of(np.array([[1.0, 2.0], [1.0, 0.0]])) == pytest.approx([twice.value, 10.0])


def test_a_class_that_is_drawn_by_nobody_does_not_count() -> None:
    score = Score.macro("uar", ["a", "b", "c"], [1, 0, 1], ["sad", "sad", "happy"])
    assert score.strata == ("sad", "sad", "happy")
    assert score.of(np.array([[1.0, 1.0, 1.0], [1.0, 1.0, 0.0]])) == pytest.approx([75.0, 50.0])
    assert math.isnan(score.of(np.zeros((1, 3)))[0])


def test_f1_of_means_is_no_mean_of_f1() -> None:
    # precisions 1 and 0.5, recalls 0.2 and 0.6: F1 of .75 and .4
    above, below = np.array([[1.0, 1.0], [1.0, 3.0]]), np.array([[1.0, 5.0], [2.0, 5.0]])
    pooled = Score("f1", ("a", "b"), above, below, combine="harmonic", scale=1.0)
    precision, recall = 2 / 3, 4 / 10
    assert pooled.value == pytest.approx(2 * precision * recall / (precision + recall))
    means = Score("f1", ("a", "b"), above / below, np.ones((2, 2)), combine="harmonic", scale=1.0)
    assert means.value == pytest.approx(2 * 0.75 * 0.4 / 1.15)


def test_nothing_found_is_zero_and_nothing_asked_is_nothing() -> None:
    ones = np.ones((1, 4))
    assert Score("f1", ("a",), np.zeros((1, 4)), ones, combine="harmonic").value == 0.0
    half = np.array([[1.0, 1.0, 0.0, 0.0]])  # the second pair of columns was never asked
    assert Score("f1", ("a",), half, half, combine="harmonic").value == 100.0
    empty: list[float] = []
    assert math.isnan(Score.mean("war", [], empty).value) and math.isnan(Score.macro("uar", [], empty, []).value)


def test_coverage_is_of_what_should_have_been_scored() -> None:
    assert Score.mean("judge", ["a"], [4.5], scale=1.0, asked=4).coverage == 0.25
    assert Score.mean("judge", ["a"], [4.5], scale=1.0).coverage == 1.0


def test_a_question_counts_once() -> None:
    with pytest.raises(ValueError, match=r"war: 1 questions are there twice, 'b' among them"):
        Score.mean("war", ["a", "b", "b"], [1, 0, 0])


def test_what_is_no_number_is_named() -> None:
    with pytest.raises(ValueError, match=r"judge: what 'b' adds is no number"):
        Score.macro("judge", ["a", "b"], [1.0, math.nan], ["x", "y"])
