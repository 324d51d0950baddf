"""Same or different: by hand, against scikit-learn, and against DeLong's variance."""

import math

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from omnihuman.metric.statistics import interval
from omnihuman.metric.verification import over_folds, parse_yes_no, verification_scores


@pytest.mark.parametrize(
    ("answer", "read"),
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
def test_what_counts_as_an_answer(answer: str | None, read: tuple[bool | None, str]) -> None:
    assert parse_yes_no(answer) == read


def test_folds_of_a_verification() -> None:
    truths, folds = [True, False, True, False, True, False], list("112223")
    parsed = [True, None, True, True, True, False]  # folds: 1/2, 2/3, 1/1
    mean, error = over_folds(truths, parsed, folds)
    accuracies = [50, 200 / 3, 100]
    assert mean == pytest.approx(np.mean(accuracies))
    assert error == pytest.approx(np.std(accuracies, ddof=1) / math.sqrt(3))
    score = verification_scores(list("abcdef"), truths, parsed, folds)[0]
    assert score.value == pytest.approx(mean) and score.strata == tuple(folds)
    assert verification_scores(list("abcdef"), truths, parsed)[0].value == pytest.approx(400 / 6)
    assert math.isnan(over_folds([True], [True], ["1"])[1])


def test_area_and_error_rate_by_hand() -> None:
    # same .9 .8 .3, different .7 .3 .1: of nine pairings seven are in order, one ties; at .7 each kind errs once
    truths, yes = [True] * 3 + [False] * 3, [0.9, 0.8, 0.3, 0.7, 0.3, 0.1]
    scores = {each.name: each for each in verification_scores(list("abcdef"), truths, truths, yes=yes)}
    assert scores["auc"].value == pytest.approx(100 * 7.5 / 9)
    assert scores["eer"].value == pytest.approx(100 / 3) and not scores["eer"].higher_is_better


def test_area_agrees_with_scikit_learn_and_its_spread_with_delong() -> None:
    rng = np.random.default_rng(0)
    truths = [*[True] * 120, *[False] * 80]
    yes = np.concatenate([rng.normal(1, 1, 120), rng.normal(0, 1, 80)]).round(1)  # with ties
    _, area, _ = verification_scores([str(k) for k in range(200)], truths, truths, yes=yes.tolist())
    assert area.value == pytest.approx(100 * roc_auc_score(truths, yes))
    order = np.sign(yes[:120, None] - yes[None, 120:]) / 2 + 0.5
    delong = order.mean(axis=1).var(ddof=1) / 120 + order.mean(axis=0).var(ddof=1) / 80
    low, high = interval(area)
    assert high - low == pytest.approx(2 * 1.96 * 100 * math.sqrt(delong), rel=0.03)


def test_a_perfect_and_a_useless_judge_of_faces() -> None:
    truths, ids = [True, True, False, False], list("abcd")
    perfect, useless = (verification_scores(ids, truths, truths, yes=yes) for yes in ([0.9, 0.8, 0.2, 0.1], [0.5] * 4))
    assert [each.value for each in perfect] == [100.0, 100.0, 0.0]
    assert [each.value for each in useless] == [100.0, 50.0, 50.0]


def test_one_kind_of_pairs_has_no_curve() -> None:
    scores = verification_scores(["a", "b"], [True, True], [True, None], yes=[0.9, 0.2])
    assert scores[0].value == 50.0 and math.isnan(scores[1].value) and math.isnan(scores[2].value)
