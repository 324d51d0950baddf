from collections.abc import Sequence

import numpy as np

from omnihuman.benchmark.base import Prediction
from omnihuman.benchmark.transcription import figures, transcript
from omnihuman.metric.score import Score


def said(name: str, group: str, answer: str | None) -> Prediction:
    return Prediction("librispeech", name, group, "", "one two three four", answer)


def test_words_before_the_transcript_are_taken_away() -> None:
    assert transcript(said("a", "", "GO DO YOU HEAR")) == ("GO DO YOU HEAR", "text")
    assert transcript(said("a", "", 'The speech says: "go do you hear"'))[1] == "lead-in removed"
    assert "speech" not in str(transcript(said("a", "", 'The speech says: "go do you hear"'))[0])


def test_what_says_nothing_is_invalid() -> None:
    assert transcript(said("a", "", None)) == transcript(said("a", "", " \n")) == (None, "invalid")


def test_one_figure_for_each_group_that_was_asked_in_the_given_order() -> None:
    seen = []

    def measure(ids: Sequence[str], references: Sequence[str], answers: Sequence[str]) -> Score:
        seen.append((tuple(ids), tuple(references), tuple(answers)))
        return Score("any", tuple(ids), np.zeros((len(ids), 1)), np.ones((len(ids), 1)), higher_is_better=False)

    asked = [said("a", "other", "one"), said("b", "clean", None), said("c", "other", "two")]
    scores = figures("wer", asked, ("clean", "dev", "other"), measure)
    assert [score.name for score in scores] == ["wer/clean", "wer/other"]
    assert not scores[0].higher_is_better
    assert seen[0] == (("b",), ("one two three four",), ("",)) and seen[1][0] == ("a", "c")
