import pytest

from omnihuman.metric.events import autodq, first_number, overlap


def test_autodq_is_the_f1_of_the_means() -> None:
    precision, recall = [(3, 4), (0, 5), (2, 2)], [(1, 2), (1, 4), (0, 0)]
    f1, p, r = autodq(["1", "2", "3"], precision, recall)
    assert p.value == pytest.approx((0.75 + 0 + 1) / 3)  # of the samples' ratios, not 5 of 11
    assert r.value == pytest.approx((0.5 + 0.25 + 1) / 3)  # no event: 1
    assert f1.value == pytest.approx(2 * p.value * r.value / (p.value + r.value))
    mean_f1 = (2 * 0.75 * 0.5 / 1.25 + 0 + 1) / 3
    assert f1.value != pytest.approx(mean_f1)
    assert [score.name for score in (f1, p, r)] == ["autodq", "autodq_precision", "autodq_recall"]
    assert f1.coverage == 1


def test_failed_judgements_are_missing_and_not_zero() -> None:
    scores = autodq(["1", "2", "3", "4"], [(1, 2), None, (1, 1), (1, 1)], [(1, 2), (0, 1), None, (1, 1)])
    assert [score.ids for score in scores] == [("1", "4")] * 3
    assert [score.coverage for score in scores] == [0.5] * 3
    assert [score.value for score in scores] == [0.75] * 3
    assert autodq(["1"], [None], [None])[0].coverage == 0


def test_nothing_entailed_is_zero() -> None:
    assert [score.value for score in autodq(["1"], [(0, 2)], [(0, 3)])] == [0, 0, 0]


def test_counts_that_cannot_be() -> None:
    with pytest.raises(ValueError, match="b: 3 of 2 events"):
        autodq(["a", "b"], [(1, 1), (3, 2)], [(1, 1), (1, 1)])
    with pytest.raises(ValueError, match="zip"):
        autodq(["a"], [], [(1, 1)])


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("8-9", 8),
        ("7/10", 7),
        ("7.5", 7.5),
        ("Score: 10.", 10),
        ("得分：６", 6),
        ("8..5", 8.5),
        ("none", None),
        ("", None),
    ],
)
def test_the_first_number(text: str, number: float | None) -> None:
    assert first_number(text) == number


def test_overlap_counts_what_was_judged() -> None:
    score = overlap(["1", "2", "3"], [8.0, None, 7.0], "label_overlap", "judge x")
    assert (score.value, score.coverage, score.note) == (7.5, 2 / 3, "judge x")
    with pytest.raises(ValueError, match="clue_overlap: the judge gave \\['1'\\]"):
        overlap(["1"], [85.0], "clue_overlap")
