"""Scores from a judge's comparison of two descriptions: entailed events and overlap."""

import math
from collections.abc import Sequence

import numpy as np

from omnihuman.metric.score import Score

Counts = tuple[int, int]
"""Events of a text that the other text entails, and the number of its events."""


def score_autodq(
    ids: Sequence[str],
    precision_counts: Sequence[Counts | None],
    recall_counts: Sequence[Counts | None],
    note: str = "",
) -> list[Score]:
    """Judged events -> AutoDQ: the F1 of mean precision and mean recall, then both means, from 0 to 1.

    The precision of a sample is the share of predicted events that the reference entails, its recall the share of
    reference events that the prediction entails; both are 1 without events. Ratios are averaged over samples, events
    are not pooled; the F1 is that of the averages, not the average of F1s.
    Reference: Tarsier's `evaluate_dream_gpt.py`, where neutral events count for neither side.

    Args:
        ids: of the questions.
        precision_counts: of the predictions; ``None`` where the judge failed: the sample is missing, not 0.
        recall_counts: of the references.
        note: footnote of the table: the judge.

    Raises:
        ValueError: the lists differ in length, or more events are entailed than exist.

    >>> [round(score.value, 3) for score in score_autodq(["1", "2"], [(2, 4), (1, 1)], [(1, 4), (0, 2)])]
    [0.214, 0.75, 0.125]
    """
    names, shares = [], []
    for name, precision, recall in zip(ids, precision_counts, recall_counts, strict=True):
        if precision and recall:
            names.append(name)
            shares.append((_share(name, precision), _share(name, recall)))
    table = np.asarray(shares, dtype=np.float64).reshape(len(shares), 2)
    size = len(ids)
    return [
        Score("autodq", tuple(names), table, np.ones_like(table), "harmonic", scale=1.0, num_questions=size, note=note),
        Score.mean("autodq_precision", names, table[:, 0].tolist(), scale=1.0, num_questions=size, note=note),
        Score.mean("autodq_recall", names, table[:, 1].tolist(), scale=1.0, num_questions=size, note=note),
    ]


def score_overlap(ids: Sequence[str], values: Sequence[float | None], name: str, note: str = "") -> Score:
    """A judge's overlaps of clues or labels, from 1 to 10 -> their mean; ``None`` where the judge failed.

    >>> score = score_overlap(["1", "2"], [8.0, None], "clue_overlap")
    >>> score.value, score.coverage
    (8.0, 0.5)
    """
    names, judged = [], []
    for key, value in zip(ids, values, strict=True):
        if value is None:
            continue
        if not (math.isfinite(value) and 0 <= value <= 10):
            raise ValueError(f"{name}: the overlap of {key!r} is {value}; expected 0 to 10: check the judge's replies.")
        names.append(key)
        judged.append(float(value))
    return Score.mean(name, names, judged, scale=1.0, num_questions=len(ids), note=note)


def _share(name: str, counts: Counts) -> float:
    entailed, events = counts
    if not 0 <= entailed <= events:
        raise ValueError(f"{name}: {entailed} of {events} events are entailed; expected at most {events}.")
    return entailed / events if events else 1.0
