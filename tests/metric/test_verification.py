"""Verification scores: by hand, against scikit-learn, and against DeLong's variance."""

import math

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from omnihuman.metric.statistics import interval
from omnihuman.metric.verification import accuracy_over_folds, parse_yes_no, score_verification


@pytest.mark.parametrize(
    ("answer", "parsed"),
    [
        ("Yes", (True, "first")),
        ("**No.** They are not; yes, the hats match.", (False, "first")),
        ("They are the same, yes.", (True, "word")),
        ("maybe yes, maybe no", (None, "invalid")),
        ("Nobody knows", (None, "invalid")),
        ("", (None, "invalid")),
        (None, (None, "invalid")),
    ],
)
def test_parse_yes_no(answer: str | None, parsed: tuple[bool | None, str]) -> None:
    assert parse_yes_no(answer) == parsed


def test_mean_over_folds_and_its_standard_error() -> None:
    references, folds = [True, False, True, False, True, False], list("112223")
    parsed = [True, None, True, True, True, False]  # folds: 1/2, 2/3, 1/1
    mean, error = accuracy_over_folds(references, parsed, folds)
    accuracies = [50, 200 / 3, 100]
    assert mean == pytest.approx(np.mean(accuracies))
    assert error == pytest.approx(np.std(accuracies, ddof=1) / math.sqrt(3))
    score = score_verification(list("abcdef"), references, parsed, folds)[0]
    assert score.value == pytest.approx(mean) and score.strata == tuple(folds)
    assert score_verification(list("abcdef"), references, parsed)[0].value == pytest.approx(400 / 6)
    assert math.isnan(accuracy_over_folds([True], [True], ["1"])[1])


def test_auc_and_eer_by_hand() -> None:
    # positive .9 .8 .3, negative .7 .3 .1: seven of nine pairings are in order, one is a tie; at .7 each kind has an
    # error
    references, yes = [True] * 3 + [False] * 3, [0.9, 0.8, 0.3, 0.7, 0.3, 0.1]
    scores = {score.name: score for score in score_verification(list("abcdef"), references, references, yes_scores=yes)}
    assert scores["auc"].value == pytest.approx(100 * 7.5 / 9)
    assert scores["eer"].value == pytest.approx(100 / 3) and not scores["eer"].higher_is_better


def test_auc_equals_scikit_learn_and_its_interval_matches_delong() -> None:
    rng = np.random.default_rng(0)
    references = [*[True] * 120, *[False] * 80]
    yes = np.concatenate([rng.normal(1, 1, 120), rng.normal(0, 1, 80)]).round(1)  # with ties
    _, area, _ = score_verification([str(k) for k in range(200)], references, references, yes_scores=yes.tolist())
    assert area.value == pytest.approx(100 * roc_auc_score(references, yes))
    order = np.sign(yes[:120, None] - yes[None, 120:]) / 2 + 0.5
    delong = order.mean(axis=1).var(ddof=1) / 120 + order.mean(axis=0).var(ddof=1) / 80
    low, high = interval(area)
    assert high - low == pytest.approx(2 * 1.96 * 100 * math.sqrt(delong), rel=0.03)


def test_a_perfect_and_a_constant_classifier() -> None:
    references, ids = [True, True, False, False], list("abcd")
    for yes, values in (([0.9, 0.8, 0.2, 0.1], [100.0, 100.0, 0.0]), ([0.5] * 4, [100.0, 50.0, 50.0])):
        scores = score_verification(ids, references, references, yes_scores=yes)
        assert [score.value for score in scores] == values


def test_one_kind_of_pairs_has_no_auc() -> None:
    scores = score_verification(["a", "b"], [True, True], [True, None], yes_scores=[0.9, 0.2])
    assert scores[0].value == 50.0 and math.isnan(scores[1].value) and math.isnan(scores[2].value)
