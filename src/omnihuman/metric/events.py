"""What a judge found in two descriptions: events that entail each other, and the number that it gave."""

import math
import re
from collections.abc import Sequence

import numpy as np

from omnihuman.metric.score import Score

Counts = tuple[int, int]
"""Events of one text that the other entails, and all events of it."""


def autodq(
    ids: Sequence[str],
    precision_counts: Sequence[Counts | None],
    recall_counts: Sequence[Counts | None],
    note: str = "",
) -> list[Score]:
    """Judged events -> AutoDQ: the F1 of mean precision and mean recall, then both of them, from 0 to 1.

    A sample's precision is the share of its predicted events that the reference entails, its recall the share of the
    reference's events that the prediction entails; without any event it is 1. Ratios are averaged over samples, events
    are not pooled; the F1 is that of the averages, not the average of F1s.
    Reference: Tarsier's `evaluate_dream_gpt.py`, where neutral events count for neither side.

    Args:
        ids: of the questions.
        precision_counts: of each prediction; ``None`` where the judge failed: the sample is missing, not 0.
        recall_counts: of each reference.
        note: the judge, for a table's foot.

    Raises:
        ValueError: the lists differ in length, or more events are entailed than there are.

    >>> [round(score.value, 3) for score in autodq(["1", "2"], [(2, 4), (1, 1)], [(1, 4), (0, 2)])]
    [0.214, 0.75, 0.125]
    """
    rows = list(zip(ids, precision_counts, recall_counts, strict=True))
    found = [(key, _share(key, mine), _share(key, theirs)) for key, mine, theirs in rows if mine and theirs]
    names = tuple(key for key, _, _ in found)
    both = np.asarray([shares for _, *shares in found], dtype=np.float64).reshape(len(found), 2)
    f1 = Score("autodq", names, both, np.ones_like(both), "harmonic", scale=1.0, asked=len(rows), note=note)
    parts = ("autodq_precision", both[:, 0].tolist()), ("autodq_recall", both[:, 1].tolist())
    return [f1, *(Score.mean(name, names, part, scale=1.0, asked=len(rows), note=note) for name, part in parts)]


def first_number(text: str) -> float | None:
    r"""The first number that a judge names, ``None`` where it names none: ``8-9`` is 8, ``7/10`` is 7.

    Reference: AffectGPT's ``evaluation.py`` (clue and label overlap of EMER), which takes ``[\d][.]*[\d]*``.

    >>> first_number("Score: 8-9 of 10"), first_number("7.5/10"), first_number("none")
    (8.0, 7.5, None)
    """
    found = re.search(r"\d\.*\d*", text)
    return None if found is None else float(re.sub(r"\.+", ".", found[0]))


def overlap(ids: Sequence[str], values: Sequence[float | None], name: str, note: str = "") -> Score:
    """Overlaps of clues or of labels that a judge gave, from 1 to 10 -> their mean; ``None`` where it gave none.

    >>> score = overlap(["1", "2"], [8.0, None], "clue_overlap")
    >>> score.value, score.coverage
    (8.0, 0.5)
    """
    given = [(key, value) for key, value in zip(ids, values, strict=True) if value is not None]
    if wrong := [key for key, value in given if not (math.isfinite(value) and 0 <= value <= 10)]:
        raise ValueError(f"{name}: the judge gave {wrong[:5]} more or less than 0 to 10; read its answers again.")
    kept, scores = [key for key, _ in given], [float(value) for _, value in given]
    return Score.mean(name, kept, scores, scale=1.0, asked=len(ids), note=note)


def _share(key: str, counts: Counts) -> float:
    entailed, events = counts
    if not 0 <= entailed <= events:
        raise ValueError(f"{key}: {entailed} of {events} events are entailed; a judge can say so of all at most.")
    return entailed / events if events else 1.0
