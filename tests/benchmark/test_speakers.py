from collections.abc import Callable
from pathlib import Path

import pytest

from omnihuman.benchmark.base import Prediction
from omnihuman.benchmark.speakers import Speakers


def test_answers_are_compared_with_both_speakers(tmp_path: Path, answered: Callable[..., list[Prediction]]) -> None:
    benchmark = Speakers(str(tmp_path / "speakers"), num_clips=2)
    questions = benchmark.questions()
    assert [question.group for question in questions] == ["first", "second"] * 2
    answers = [f'The person said "{question.reference}."' for question in questions[:3]]
    answers.append(questions[3].meta["other_transcript"])
    predictions = answered(questions, answers)
    scores = {score.name: score.value for score in benchmark.scores(predictions)}
    assert scores["wrong_speaker"] == 25 and scores["wrong_speaker/second"] == 50 and scores["wer/first"] == 0
    assert 0 < scores["wer"] < scores["wer_other"]
    assert benchmark.parse(predictions[0]) == (f"{questions[0].reference}.", "lead-in removed")


def test_no_clip_is_refused() -> None:
    with pytest.raises(ValueError, match="num_clips=0"):
        Speakers(num_clips=0)
