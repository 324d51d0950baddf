from pathlib import Path
from typing import Any

import pytest

from omnihuman.data.record import BadSample, Record
from omnihuman.metric.choice import ChoiceAccuracy
from omnihuman.metric.emotion import EmotionRecall
from omnihuman.training.option_metrics import build_option_metrics


def build_record(answer: str, options: Any, task: str | None = "mood") -> Record:
    messages = (("user", "Which one?"), ("assistant", answer))
    meta = {} if options is None else {"meta": {"options": options}}
    return Record("1", Path("a.mp4"), "video", messages, (), task=task, location="x.json[3] (1)", meta=meta)


def test_same_options_are_classes_and_others_are_choices() -> None:
    entries = [
        build_record("joy", ["joy", "anger"]),
        build_record("anger ", ["anger", "joy"]),
        build_record("red", ["red", "green"], "colour"),
        build_record("blue", ["red", "blue"], "colour"),
        build_record("A dog barks.", None, "caption"),
        build_record("joy", ["joy", "anger"], None),
        ("7", BadSample("missing_file", "x.json[7]")),
    ]
    metrics = build_option_metrics(entries)
    assert sorted(metrics) == ["colour", "mood"]
    assert isinstance(metrics["mood"], EmotionRecall) and metrics["mood"].labels == ["joy", "anger"]
    assert isinstance(metrics["colour"], ChoiceAccuracy)


@pytest.mark.parametrize(
    ("answer", "options", "reason"), [("rage", ["joy", "anger"], "'rage'"), ("joy", "joy, anger", "two texts")]
)
def test_record_with_another_answer_raises(answer: str, options: Any, reason: str) -> None:
    with pytest.raises(ValueError, match=rf"x\.json\[3\].*{reason}"):
        build_option_metrics([build_record(answer, options)])
