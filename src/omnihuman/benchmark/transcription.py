"""What the speech benchmarks share: the prompt, how an answer is read, and one figure for each of their parts."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from omnihuman.benchmark.base import Prediction
from omnihuman.metric.score import Score
from omnihuman.metric.speech import strip_lead_in

PROMPT = "Recognize the speech and give me the transcription."
"""Omni-Emotion's supplement, a training template; no paper says what it asks at evaluation."""

Measure = Callable[[Sequence[str], Sequence[str], Sequence[str]], Score]
"""ids, references, answers -> a figure."""


def chosen(key: str, given: str | Sequence[str], known: Sequence[str]) -> tuple[str, ...]:
    """Parts that are asked, checked; one may stand without brackets.

    Raises:
        ValueError: none is given, one is unknown or there twice.

    >>> chosen("splits", "test-clean", ("test-clean", "test-other"))
    ('test-clean',)
    """
    names = (given,) if isinstance(given, str) else tuple(given)
    if not names or set(names) - set(known) or len(set(names)) < len(names):
        raise ValueError(f"{key}={list(names)}: choose from {', '.join(known)}, each once.")
    return names


def lines(path: Path) -> Iterator[tuple[str, str]]:
    """The lines of a list that hold something, without their ends: place and text.

    Raises:
        ValueError: it is no UTF-8.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: save the file as UTF-8 ({error}).") from error
    every = ((f"{path}:{number}", line.rstrip("\r")) for number, line in enumerate(text.split("\n"), 1))
    return ((where, line) for where, line in every if line.strip())


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
