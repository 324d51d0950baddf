import pytest

from omnihuman.metric.events import score_autodq, score_overlap


def test_autodq_is_the_f1_of_the_means() -> None:
    precision, recall = [(3, 4), (0, 5), (2, 2)], [(1, 2), (1, 4), (0, 0)]
    f1, p, r = score_autodq(["1", "2", "3"], precision, recall)
    assert p.value == pytest.approx((0.75 + 0 + 1) / 3)  # of the samples' ratios, not 5 of 11
    assert r.value == pytest.approx((0.5 + 0.25 + 1) / 3)  # no event: 1
    assert f1.value == pytest.approx(2 * p.value * r.value / (p.value + r.value))
    mean_f1 = (2 * 0.75 * 0.5 / 1.25 + 0 + 1) / 3
    assert f1.value != pytest.approx(mean_f1)
    assert [score.name for score in (f1, p, r)] == ["autodq", "autodq_precision", "autodq_recall"]
    assert f1.coverage == 1


def test_failed_judgements_are_missing_not_zero() -> None:
    scores = score_autodq(["1", "2", "3", "4"], [(1, 2), None, (1, 1), (1, 1)], [(1, 2), (0, 1), None, (1, 1)])
    assert [score.ids for score in scores] == [("1", "4")] * 3
    assert [score.coverage for score in scores] == [0.5] * 3
    assert [score.value for score in scores] == [0.75] * 3
    assert score_autodq(["1"], [None], [None])[0].coverage == 0


def test_no_entailed_event_is_zero() -> None:
    assert [score.value for score in score_autodq(["1"], [(0, 2)], [(0, 3)])] == [0, 0, 0]


def test_more_entailed_than_all_events_raises() -> None:
    with pytest.raises(ValueError, match=r"b: 3 .*\b2 events"):
        score_autodq(["a", "b"], [(1, 1), (3, 2)], [(1, 1), (1, 1)])
    with pytest.raises(ValueError, match="zip"):
        score_autodq(["a"], [], [(1, 1)])


def test_overlap_is_the_mean_over_judged_questions() -> None:
    score = score_overlap(["1", "2", "3"], [8.0, None, 7.0], "label_overlap", "judge x")
    assert (score.value, score.coverage, score.note) == (7.5, 2 / 3, "judge x")
    with pytest.raises(ValueError, match=r"clue_overlap: .*'1' .*85\.0;.* 0 to 10\b"):
        score_overlap(["1"], [85.0], "clue_overlap")
