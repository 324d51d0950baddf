"""Five parsers of multiple-choice answers, and accuracy over tasks."""

import pytest

from omnihuman.metric.choice import PARSERS, ChoiceAccuracy, parse_choice, score_choices

OPTIONS = ["Sit on the chair.", "Open the door.", "Take the cup.", "Close the door."]


def test_accuracy_requires_the_exact_option() -> None:
    metric = ChoiceAccuracy()
    metric.update(["Blond", " no hat! ", "the red one", ""], ["blond", "no hat", "red", "black"])
    assert metric.compute() == {"accuracy": 50.0}
    metric.counts.reset()
    metric.update(["yes"], ["no"])
    assert metric.compute() == {"accuracy": 0.0}


def test_a_missing_reference_raises() -> None:
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
        ("b", None, 2, 1, 1),  # lower case: no letter for two parsers
        ("Answer: D", None, 3, None, 3),
        ("Best option: (A) Sit on the chair.", 0, 1, None, 0),  # the B of Best
        ("Open the door.", 1, 1, None, None),
        ("open the door", 1, 2, None, None),  # HumanOmni requires the full stop of the option
        ("A man opens a door", 0, 0, 0, 0),
        ("I think he takes the cup", None, 2, None, None),
        ("He will take the cup", 2, 2, None, None),
        ("B, Open the door", 1, 2, None, 1),  # after a comma HumanOmni finds no letter
        ("E", None, 2, None, None),  # not offered
        ("none of them", None, 2, None, None),
        ("sit on the chair. or take the cup.", None, 0, None, None),
        ("B.D", 1, 1, None, 1),
        ("(", None, 2, 0, None),  # without a reference: the first match
    ],
)
def test_the_parsers_differ(
    answer: str, strict: int | None, humanomni: int, official: int | None, lmms_eval: int | None
) -> None:
    parsed = [parse_choice(answer, OPTIONS, parser)[0] for parser in PARSERS]
    assert parsed == [strict, humanomni, official, lmms_eval, strict], "without a tag, the whole answer counts"


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("<think>Not (A).</think>\n<answer>B</answer>", (1, "letter")),
        ("<think>Not (A).</think>\n<answer> open the door </answer> or A", (1, "text")),
        ("<answer>B</answer><answer>C</answer>", (1, "letter")),  # R1-Omni's reward takes the first
        ("<think>It is B", (None, "cut")),
        ("<think>B</think><answer>", (None, "cut")),
    ],
)
def test_answer_tag_reads_the_tag(answer: str, expected: tuple[int | None, str]) -> None:
    assert parse_choice(answer, OPTIONS, "answer_tag") == expected


def test_official_parser_accepts_a_bare_bracket_for_any_reference() -> None:
    for reference in range(4):
        for answer in ("(", "", "(\nbecause", ". "):
            assert parse_choice(answer, OPTIONS, "official", reference) == (reference, "any")
        assert parse_choice("C", OPTIONS, "official", reference) == (2, "letter")
    assert parse_choice("(", OPTIONS, "strict") == (None, "invalid")
    assert parse_choice("(", OPTIONS, "humanomni") == (2, "default")


def test_a_failed_generation_is_invalid_for_every_parser() -> None:
    assert [parse_choice(None, OPTIONS, parser, 0) for parser in PARSERS] == [(None, "invalid")] * len(PARSERS)


def test_strict_parser_rejects_ambiguous_options() -> None:
    assert parse_choice("sits", ["sits", "sits down"]) == (0, "text")
    assert parse_choice("He sits down", ["sits", "sits down"]) == (None, "invalid")
    assert parse_choice("He rests", ["sit", "rest"]) == (None, "invalid")  # whole words
    assert parse_choice("sits", ["sits", "Sits."]) == (None, "invalid")


def test_an_unknown_parser_raises() -> None:
    with pytest.raises(ValueError, match=r"parser='lenient'.*strict, humanomni, official, lmms_eval"):
        parse_choice("A", OPTIONS, "lenient")


def test_average_is_the_mean_over_tasks() -> None:
    parsed = [(0, "letter"), (1, "letter"), (None, "invalid"), (2, "text")]
    scores = score_choices(list("abcd"), [0, 0, 0, 2], parsed, ["sequence"] * 3 + ["count"], ["v1", "v1", "v2", "v3"])
    assert {score.name: score.value for score in scores} == pytest.approx(
        {"avg": (100 / 3 + 100) / 2, "sequence": 100 / 3, "count": 100.0}
    )
    assert scores[0].clusters == ("v1", "v1", "v2", "v3") and scores[2].clusters == ("v3",)


def test_humanomni_average_in_table_4() -> None:
    accuracies = [70.0, 78.0, 92.5, 80.5, 65.5, 49.0]
    tasks, parsed = [], []
    for k, accuracy in enumerate(accuracies):
        tasks += [f"task {k}"] * 200
        parsed += [(int(n >= 2 * accuracy), "letter") for n in range(200)]
    scores = score_choices([str(k) for k in range(1200)], [0] * 1200, parsed, tasks)
    assert [score.value for score in scores[1:]] == pytest.approx(accuracies)
    assert round(scores[0].value, 3) == 72.583


def test_lmms_eval_drops_empty_answers() -> None:
    answers = ["A", "", "B"]
    for parser, value in (("lmms_eval", 50.0), ("strict", 100 / 3)):
        parsed = [parse_choice(answer, OPTIONS, parser) for answer in answers]
        scores = score_choices(list("abc"), [0, 0, 0], parsed, ["x"] * 3)
        assert [score.value for score in scores] == pytest.approx([value, value])
