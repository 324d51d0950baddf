"""Classes and free text among answers."""

from typing import Any

import pytest

from omnihuman.data.record import BadSample
from omnihuman.source.labels import MAX_LABELS, find_labels


def test_few_short_answers_that_repeat_are_classes() -> None:
    answers = ["sorrow", "joy", "", "Zorn über alles", "joy"]
    assert find_labels(answers).names == ("joy", "sorrow", "Zorn über alles")


@pytest.mark.parametrize(
    "answers",
    [
        ["He is glad of it.", "He is glad of it."],
        ["joy", "sorrow"],
        [f"label {number}" for number in range(MAX_LABELS + 1)] * 2,
    ],
)
def test_other_answers_are_free_text(answers: list[str]) -> None:
    labels = find_labels(answers)
    assert labels.names is None and labels.parse("Anything.") == "Anything."


def test_questions_of_their_own_make_free_text_unless_there_are_options() -> None:
    assert find_labels(["yes", "no", "yes"], is_question_fixed=False).names is None
    assert find_labels(["yes", "no", "yes"], ["yes", "no"], is_question_fixed=False).names == ("yes", "no")


def test_options_keep_their_order_and_refuse_other_answers() -> None:
    labels = find_labels(["joy"], ["sorrow", "joy", "anger"])
    assert labels.names == ("sorrow", "joy", "anger") and labels.parse("anger") == "anger"
    with pytest.raises(BadSample, match=r"'angr' .*'anger'") as caught:
        labels.parse("angr")
    assert caught.value.reason == "unknown_label"
    with pytest.raises(BadSample, match=r"'x' .*sorrow, joy, anger"):
        labels.parse("x")


def test_options_can_name_codes() -> None:
    labels = find_labels(["0", "1"], {0: "joy", 1: "anger", 2: "joy"})
    assert labels.names == ("joy", "anger") and labels.parse("2") == "joy"
    with pytest.raises(BadSample, match=r"'joy' .*0, 1, 2"):
        labels.parse("joy")


@pytest.mark.parametrize("options", ["open", None])
def test_an_empty_answer_is_an_error(options: str | None) -> None:
    with pytest.raises(BadSample, match="empty"):
        find_labels(["joy", "joy"], options).parse("")


@pytest.mark.parametrize("options", ["joy", 3, ["joy"], ["joy", "joy"], ["joy", ""], {0: "joy"}, []])
def test_invalid_options_raise(options: Any) -> None:
    with pytest.raises(ValueError, match=r"options="):
        find_labels(["joy"], options)


def test_classes_that_differ_by_case_raise() -> None:
    with pytest.raises(ValueError, match=r"'Joy' \(1\) and 'joy' \(2\)"):
        find_labels(["joy", "Joy", "joy", "sad"])
