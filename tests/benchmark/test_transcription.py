import numpy as np

from omnihuman.benchmark.base import Prediction
from omnihuman.benchmark.transcription import parse_transcript, score_groups
from omnihuman.metric.score import Score


def predict(name: str, group: str, answer: str | None) -> Prediction:
    return Prediction("librispeech", name, group, "", "one two three four", answer)


def test_lead_ins_are_stripped() -> None:
    assert parse_transcript(predict("a", "", "GO DO YOU HEAR")) == ("GO DO YOU HEAR", "text")
    assert parse_transcript(predict("a", "", 'The speech says: "go do you hear"'))[1] == "lead-in removed"
    assert "speech" not in str(parse_transcript(predict("a", "", 'The speech says: "go do you hear"'))[0])


def test_an_empty_answer_is_invalid() -> None:
    assert parse_transcript(predict("a", "", None)) == parse_transcript(predict("a", "", " \n")) == (None, "invalid")


def test_one_score_per_group_with_predictions_in_order() -> None:
    calls = []

    def metric(ids: list[str], references: list[str], answers: list[str], speakers: list[str]) -> Score:
        calls.append((tuple(ids), tuple(references), tuple(answers), tuple(speakers)))
        return Score("any", tuple(ids), np.zeros((len(ids), 1)), np.ones((len(ids), 1)), higher_is_better=False)

    predictions = [predict("a", "other", "one"), predict("b", "clean", None), predict("c", "other", "two")]
    scores = score_groups(
        "wer", predictions, ("clean", "dev", "other"), metric, lambda prediction: f"speaker {prediction.id}"
    )
    assert [score.name for score in scores] == ["wer/clean", "wer/other"]
    assert not scores[0].higher_is_better
    assert calls[0] == (("b",), ("one two three four",), ("",), ("speaker b",)) and calls[1][0] == ("a", "c")
