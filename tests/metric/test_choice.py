"""What answers to choice questions mean, by four habits."""

import pytest

from omnihuman.metric.choice import HABITS, ChoiceAccuracy, choice_scores, parse

OPTIONS = ["Sit on the chair.", "Open the door.", "Take the cup.", "Close the door."]


def test_only_the_option_itself_counts() -> None:
    metric = ChoiceAccuracy()
    metric.update(["Blond", " no hat! ", "the red one", ""], ["blond", "no hat", "red", "black"])
    assert metric.compute() == {"accuracy": 50.0}
    metric.counts.reset()
    metric.update(["yes"], ["no"])
    assert metric.compute() == {"accuracy": 0.0}


def test_every_answer_has_a_truth() -> None:
    with pytest.raises(ValueError, match="zip"):
        ChoiceAccuracy().update(["yes"], [])


@pytest.mark.parametrize(
    ("answer", "strict", "humanomni", "official", "lmms_eval"),
    [
        ("B", 1, 1, 1, 1),
        ("(B) Open the door.", 1, 1, 1, 1),
        ("(B", 1, 1, 1, 1),
        ("B. Open the door.", 1, 1, 1, 1),
        ("B: Open the door.", 1, 1, None, 1),
        ("b", None, 2, 1, 1),  # lower case: no letter for two of them
        ("Answer: D", None, 3, None, 3),
        ("Best option: (A) Sit on the chair.", 0, 1, None, 0),  # the B of Best
        ("Open the door.", 1, 1, None, None),
        ("open the door", 1, 2, None, None),  # HumanOmni wants the full stop of the option
        ("A man opens a door", 0, 0, 0, 0),
        ("I think he takes the cup", None, 2, None, None),
        ("He will take the cup", 2, 2, None, None),
        ("B, Open the door", 1, 2, None, 1),  # a comma, and HumanOmni reads no letter
        ("E", None, 2, None, None),  # not offered
        ("none of them", None, 2, None, None),
        ("sit on the chair. or take the cup.", None, 0, None, None),
        ("B.D", 1, 1, None, 1),
        ("(", None, 2, 0, None),  # without a truth: the first it may pass for
    ],
)
def test_one_answer_four_readings(
    answer: str, strict: int | None, humanomni: int, official: int | None, lmms_eval: int | None
) -> None:
    assert [parse(answer, OPTIONS, how)[0] for how in HABITS] == [strict, humanomni, official, lmms_eval]


def test_a_bare_bracket_passes_for_every_truth() -> None:
    for truth in range(4):
        for answer in ("(", "", "(\nbecause", ". "):
            assert parse(answer, OPTIONS, "official", truth) == (truth, "any")
        assert parse("C", OPTIONS, "official", truth) == (2, "letter")
    assert parse("(", OPTIONS, "strict") == (None, "invalid")
    assert parse("(", OPTIONS, "humanomni") == (2, "default")


def test_what_could_not_be_asked_is_wrong_by_any_habit() -> None:
    assert [parse(None, OPTIONS, how, 0) for how in HABITS] == [(None, "invalid")] * 4


def test_equal_options_and_options_within_options() -> None:
    assert parse("sits", ["sits", "sits down"]) == (0, "text")
    assert parse("He sits down", ["sits", "sits down"]) == (None, "invalid")
    assert parse("He rests", ["sit", "rest"]) == (None, "invalid")  # whole words
    assert parse("sits", ["sits", "Sits."]) == (None, "invalid")


def test_an_unknown_habit() -> None:
    with pytest.raises(ValueError, match=r"parser 'lenient': choose from strict, humanomni, official, lmms_eval"):
        parse("A", OPTIONS, "lenient")


def test_the_average_is_over_tasks() -> None:
    parsed = [(0, "letter"), (1, "letter"), (None, "invalid"), (2, "text")]
    scores = choice_scores(list("abcd"), [0, 0, 0, 2], parsed, ["sequence"] * 3 + ["count"], ["v1", "v1", "v2", "v3"])
    assert {score.name: score.value for score in scores} == pytest.approx(
        {"avg": (100 / 3 + 100) / 2, "sequence": 100 / 3, "count": 100.0}
    )
    assert scores[0].clusters == ("v1", "v1", "v2", "v3") and scores[2].clusters == ("v3",)


def test_humanomni_row_of_table_4() -> None:
    figures = [70.0, 78.0, 92.5, 80.5, 65.5, 49.0]
    tasks = [f"task {k}" for k in range(6) for _ in range(200)]
    parsed = [(int(n >= 2 * figure), "letter") for figure in figures for n in range(200)]
    scores = choice_scores([str(k) for k in range(1200)], [0] * 1200, parsed, tasks)
    assert [score.value for score in scores[1:]] == pytest.approx(figures)
    assert round(scores[0].value, 3) == 72.583


def test_lmms_eval_does_not_count_an_empty_answer() -> None:
    answers = ["A", "", "B"]
    for how, value in (("lmms_eval", 50.0), ("strict", 100 / 3)):
        parsed = [parse(answer, OPTIONS, how) for answer in answers]
        scores = choice_scores(list("abc"), [0, 0, 0], parsed, ["x"] * 3)
        assert [score.value for score in scores] == pytest.approx([value, value])
