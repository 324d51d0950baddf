"""Answers with reasoning, and with denied labels."""

import pytest

from omnihuman.metric.answer import final_answer, says
from omnihuman.metric.choice import ChoiceAccuracy, parse_choice
from omnihuman.metric.emotion import FORMS, EmotionRecall, parse_label
from omnihuman.metric.verification import parse_yes_no

LABELS = ["happy", "sad", "angry", "surprise"]


@pytest.mark.parametrize(
    ("answer", "final"),
    [
        ("happy", "happy"),
        ("<think>sad, then angry</think>\n<answer>happy</answer>", "happy"),
        ("<THINK>sad</THINK><Answer> happy </Answer> indeed", "happy"),
        ("<think>a</think><think>b</think>happy", "happy"),
        ("sad?</think> happy", "happy"),  # the prompt holds the first tag
        ("<answer>sad</answer> no: <answer>happy</answer>", "happy"),
        ("<think>a</think><answer>happy", "happy"),
        ("<think>sad", None),
        ("<think>sad</think><think>angry", None),
        ("<think>sad</think>", None),
        ("<think>sad</think><answer>", None),
        ("a < b, and <happy>", "a < b, and <happy>"),
        ("", ""),
        (None, ""),
    ],
)
def test_the_final_answer_follows_the_reasoning(answer: str | None, final: str | None) -> None:
    assert final_answer(answer) == final


@pytest.mark.parametrize(
    ("answer", "parsed"),
    [
        ("<think>not sad, rather angry</think>\n<answer>happy</answer>", ("happy", "label")),
        ("<answer>Happiness.</answer>", ("happy", "form")),
        ("<think>sad", (None, "cut")),
        ("not happy", (None, "invalid")),
        ("He is not sad but happy.", ("happy", "label")),
        ("Not only happy", ("happy", "label")),
    ],
)
def test_labels_of_reasoning_answers(answer: str, parsed: tuple[str | None, str]) -> None:
    assert parse_label(answer, LABELS, FORMS) == parsed


@pytest.mark.parametrize(
    "text",
    [
        *("not happy", "not very happy", "isn't happy", "He doesn’t look happy", "not at all happy", "no happy face"),
        *(
            "neither sad nor happy",
            "sad rather than happy",
            "never happy",
            "She is hardly happy",
            "without a happy face",
        ),
    ],
)
def test_denied_words_do_not_count(text: str) -> None:
    assert not says(text, "happy")


@pytest.mark.parametrize(
    "text",
    [
        *(
            "happy",
            "_Happy_",
            "not sad, happy",
            "No, happy.",
            "He is not sad. Happy!",
            "no doubt happy",
            "She cannot hide a happy face",
        ),
        *("not sad but happy", "not happy at first; later happy", "He does not cry and looks happy"),
    ],
)
def test_words_that_are_not_denied_count(text: str) -> None:
    assert says(text, "happy")


def test_phrases_are_found_across_punctuation() -> None:
    assert says("She sits-down, slowly.", "sits down") and not says("She sits", "sits down") and not says("a", "?!")


def test_choices_and_yes_or_no_follow_the_reasoning() -> None:
    options = ["runs", "sits down"]
    assert parse_choice("<think>(A)?</think><answer>B</answer>", options) == (1, "letter")
    assert parse_choice("He is not sitting: he runs, he never sits down", options) == (0, "text")
    assert parse_choice("<think>(A)", options) == (None, "cut")
    assert parse_choice("<think>(A)", options, "humanomni") == (0, "letter"), "the official script has no such rule"
    assert parse_yes_no("<think>no</think>Yes.") == (True, "first") and parse_yes_no("<think>no") == (None, "cut")


def test_metrics_of_training_follow_the_reasoning() -> None:
    recall, accuracy = EmotionRecall(LABELS), ChoiceAccuracy()
    answers = ["<think>sad</think><answer>happy</answer>", "<think>sad"]
    recall.update(answers, ["happy", "sad"])
    accuracy.update(answers, ["happy", "sad"])
    assert recall.compute()["war"] == 50 and accuracy.compute()["accuracy"] == 50
