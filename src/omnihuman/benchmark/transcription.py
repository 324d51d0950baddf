"""What the speech benchmarks share: the prompt, how an answer is read, and one figure for each of their parts."""

from collections.abc import Callable, Sequence
from dataclasses import replace

from omnihuman.benchmark.base import Prediction
from omnihuman.metric.score import Score
from omnihuman.metric.speech import strip_lead_in

PROMPT = "Recognize the speech and give me the transcription."
"""Omni-Emotion's supplement, a training template; no paper says what it asks at evaluation."""

Measure = Callable[[Sequence[str], Sequence[str], Sequence[str]], Score]
"""ids, references, answers -> a figure."""


def transcript(asked: Prediction) -> tuple[str | None, str]:
    """What an answer says was said, and whether words before it ("The speech says") were taken away.

    >>> transcript(Prediction("librispeech", "1", "", "", "go", "GO"))
    ('GO', 'text')
    """
    text = (asked.answer or "").strip()
    bare = strip_lead_in(text).strip()
    if not bare:
        return None, "invalid"
    return bare, "text" if bare == text else "lead-in removed"


def figures(name: str, predictions: Sequence[Prediction], groups: Sequence[str], measure: Measure) -> list[Score]:
    """One figure for each of the groups that was asked, in their order: ``wer/test-clean``.

    An answer that says nothing has every word of its reference wrong.
    """
    scores = []
    for group in groups:
        some = [each for each in predictions if each.group == group]
        if some:
            answers = [transcript(each)[0] or "" for each in some]
            score = measure([each.id for each in some], [str(each.truth) for each in some], answers)
            scores.append(replace(score, name=f"{name}/{group}"))
    return scores
