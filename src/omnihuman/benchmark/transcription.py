"""Shared parts of speech benchmarks: the prompt, parsing of transcripts, and a score per split."""

from collections.abc import Callable, Sequence
from dataclasses import replace

from omnihuman.benchmark.base import Prediction, unzip
from omnihuman.metric.answer import CUT, final_answer
from omnihuman.metric.score import Score
from omnihuman.metric.speech import strip_lead_in

PROMPT = "Recognize the speech and give me the transcription."
"""A training template in Omni-Emotion's supplement; no paper prints its evaluation prompt."""

OTHER = "other_transcript"
"""Key in ``meta`` of a record and of a question about one of two speakers: the words of the other one."""

Metric = Callable[..., Score]
"""ids, references, answers, ``speakers`` -> a score: ``wer``, ``cer`` or ``mer`` with its options."""


def parse_transcript(prediction: Prediction) -> tuple[str | None, str]:
    """Parse a transcript; the rule tells if a lead-in ("The speech says") was stripped.

    >>> parse_transcript(Prediction("librispeech", "1", "", "", "go", "GO"))
    ('GO', 'text')
    """
    text = final_answer(prediction.answer)
    if text is None:
        return CUT
    transcript = strip_lead_in(text, speaker=OTHER in prediction.meta).strip()
    if not transcript:
        return None, "invalid"
    return transcript, "text" if transcript == text else "lead-in removed"


def score_groups(
    name: str,
    predictions: Sequence[Prediction],
    groups: Sequence[str],
    metric: Metric,
    cluster: Callable[[Prediction], str],
) -> list[Score]:
    """Compute one score per group that has predictions, in the order of the groups: ``wer/test-clean``.

    An invalid answer counts as an empty transcript. ``cluster`` returns the unit of resampling, such as the speaker.
    """
    scores = []
    for group in groups:
        members = [prediction for prediction in predictions if prediction.group == group]
        if members:
            ids, references, _ = unzip(members)
            transcripts = [parse_transcript(prediction)[0] or "" for prediction in members]
            score = metric(ids, references, transcripts, speakers=[*map(cluster, members)])
            scores.append(replace(score, name=f"{name}/{group}"))
    return scores
