"""WAR and UAR, by hand and against the official habits."""

import pytest

from omnihuman.metric.emotion import EmotionRecall

LABELS = ["happy", "sad", "neutral"]


def test_by_hand() -> None:
    metric = EmotionRecall(LABELS)
    metric.update(["happy", "happy", "sad", "sad"], ["happy", "sad", "sad", "sad"])
    assert metric.compute() == pytest.approx({"war": 75.0, "uar": (100 + 200 / 3) / 2})


def test_a_stray_answer_is_wrong_but_no_class() -> None:
    metric = EmotionRecall(LABELS)
    metric.update(["confused", "happy", "sad"], ["happy", "happy", "sad"])
    assert metric.compute() == pytest.approx({"war": 200 / 3, "uar": 75.0})


@pytest.mark.parametrize(
    ("answer", "label"),
    [(" Happy.", "happy"), ("The man is sad", "sad"), ("happy or sad", None), ("unhappy", None), ("", None)],
)
def test_what_counts_as_an_answer(answer: str, label: str | None) -> None:
    assert EmotionRecall(LABELS).parse(answer) == label


def test_a_foreign_label_is_an_error() -> None:
    with pytest.raises(ValueError, match="contempt"):
        EmotionRecall(LABELS).update(["happy"], ["contempt"])
