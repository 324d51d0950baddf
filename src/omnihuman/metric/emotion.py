"""Emotion recognition: what an answer names, weighted and unweighted average recall, confusions."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torchmetrics.classification import MulticlassConfusionMatrix

from omnihuman.metric.score import Score

FORMS: dict[str, tuple[str, ...]] = {
    "happy": ("happiness", "happily"),
    "sad": ("sadness", "sadly"),
    "neutral": ("neutrality", "neutrally"),
    "angry": ("anger", "angrily"),
    "surprise": ("surprised", "surprising"),
    "disgust": ("disgusted", "disgusting"),
    "fear": ("fearful", "fearfully"),
    "contemptuous": ("contempt", "contemptuously"),
    "disappointed": ("disappointment", "disappointedly"),
    "helpless": ("helplessness", "helplessly"),
    "anxious": ("anxiety", "anxiously"),
}
"""HumanOmni's answer words for DFEW and MAFW -> other forms of them, MAFW's nouns among these."""


class EmotionRecall:
    """Answers and true labels -> WAR and UAR in percent.

    Reference: WAR and UAR as in DFEW; WAR is the accuracy, UAR the mean recall of the classes that occur.
    Differs from HumanOmni's ``eval_mafw_dfew.py``: a stray answer is wrong, it does not become a class of its own
    that drags the UAR down; punctuation and case do not matter.

    Args:
        labels: the classes.

    >>> metric = EmotionRecall(["sad", "happy"])
    >>> metric.update(["Sad.", "angry", "happy"], ["sad", "sad", "happy"])
    >>> {name: round(value, 1) for name, value in metric.compute().items()}
    {'war': 66.7, 'uar': 75.0}
    """

    def __init__(self, labels: Sequence[str]) -> None:
        self.labels = list(labels)
        self.counts = MulticlassConfusionMatrix(num_classes=len(self.labels) + 1)  # the last: no label at all

    def update(self, answers: Sequence[str], truths: Sequence[str]) -> None:
        """Count a few answers.

        Raises:
            ValueError: a true label is none of the classes.
        """
        right = _indices(truths, self.labels, "truths")
        given = _indices([self.parse(answer) for answer in answers], self.labels, "answers")
        self.counts.update(*(torch.tensor(some, device=self.counts.device) for some in (given, right)))

    def compute(self) -> dict[str, float]:
        """WAR and UAR over everything counted, on all ranks."""
        matrix = self.counts.compute().double()
        support, right = matrix.sum(dim=1), matrix.diagonal()
        seen = support > 0
        return {
            "war": 100 * float(right.sum() / support.sum()),
            "uar": 100 * float((right[seen] / support[seen]).mean()),
        }

    def parse(self, answer: str) -> str | None:
        """The one label that an answer names, ``None`` where it names none or several."""
        return parse_label(answer, self.labels)[0]


def parse_label(
    answer: str | None,
    labels: Sequence[str],
    words: Mapping[str, Sequence[str]] | None = None,
    how: str = "strict",
) -> tuple[str | None, str]:
    """The label that an answer means, and the rule it was read by: ``label``, ``form`` or ``invalid``.

    Reference: ``official`` is HumanOmni's ``eval_mafw_dfew.py``: leading blanks go, the rest has to equal a label, so
    that ``Happy`` and ``happy.`` are wrong.
    Differs from it: ``strict`` (ours) looks for whole words, whatever their case and the punctuation around them; an
    answer that names several different labels means none.

    Args:
        answer: the model's words; ``None`` where it could not be asked.
        labels: the classes.
        words: label -> other words for it (``FORMS``); only ``strict`` looks at them.
        how: ``strict`` or ``official``.

    Raises:
        ValueError: ``how`` is neither.

    >>> parse_label(" Happiness.", ["happy", "sad"], FORMS), parse_label("happy or sad", ["happy", "sad"])
    (('happy', 'form'), (None, 'invalid'))
    """
    if how not in ("strict", "official"):
        raise ValueError(f"parser {how!r}: choose strict or official.")
    text = answer or ""
    if how == "official":
        exact = text.lstrip()
        return (exact, "label") if exact in labels else (None, "invalid")
    text = text.casefold()
    named: dict[str, str] = {}
    for label in labels:
        for rule, forms in (("label", (label,)), ("form", (words or {}).get(label, ()))):
            # whole words; the underscores of _happy_ are punctuation
            if any(re.search(rf"(?<![^\W_]){re.escape(form.casefold())}(?![^\W_])", text) for form in forms):
                named.setdefault(label, rule)
    return next(iter(named.items())) if len(named) == 1 else (None, "invalid")


def label_scores(
    ids: Sequence[str],
    truths: Sequence[str],
    parsed: Sequence[str | None],
    labels: Sequence[str],
    groups: Sequence[str] | None = None,
    note: str = "",
) -> list[Score]:
    """Labels -> WAR and UAR, over true classes; ``None`` (invalid) is wrong.

    With folds, ``war`` and ``uar`` are the unweighted means over them, as in MAE-DFER and others; ``war_pooled`` and
    ``uar_pooled`` take all clips at once, and ``war/<fold>``, ``uar/<fold>`` follow for each. Resampling keeps the
    sizes of the classes (UAR) and folds.

    Args:
        ids: of the questions.
        truths: their labels.
        parsed: what the answers mean; ``None`` where they mean nothing.
        labels: the classes.
        groups: of the questions, as they are called: ``fold_1``.
        note: for the table's foot.

    Raises:
        ValueError: a label is none of the classes.

    >>> [score.value for score in label_scores(["a", "b", "c"], ["sad", "sad", "happy"], ["sad", None, "happy"],
    ...  ["happy", "sad"])]
    [66.66666666666666, 75.0]
    """
    _indices(truths, labels, "truths"), _indices(parsed, labels, "answers")
    right = [float(one == other) for one, other in zip(parsed, truths, strict=True)]
    if groups is None:
        return [Score.mean("war", ids, right, note=note), Score.macro("uar", ids, right, truths, note=note)]
    scores = [
        _over_folds("war", ids, right, truths, groups, note),
        _over_folds("uar", ids, right, truths, groups, note),
    ]
    scores.append(Score.mean("war_pooled", ids, right, strata=tuple(groups), note=note))
    scores.append(Score.macro("uar_pooled", ids, right, truths, note=note))
    for group in sorted(set(groups)):
        some = [row for row, other in enumerate(groups) if other == group]
        part, hits = [ids[row] for row in some], [right[row] for row in some]
        scores.append(Score.mean(f"war/{group}", part, hits, note=note))
        scores.append(Score.macro(f"uar/{group}", part, hits, [truths[row] for row in some], note=note))
    return scores


def _over_folds(
    name: str, ids: Sequence[str], right: Sequence[float], truths: Sequence[str], folds: Sequence[str], note: str
) -> Score:
    """A mean of folds: a column for each fold (WAR), for each class of each fold (UAR)."""
    cells = [(fold, truth if name == "uar" else "") for fold, truth in zip(folds, truths, strict=True)]
    columns = sorted(set(cells))
    place = {cell: k for k, cell in enumerate(columns)}
    ones = np.zeros((len(cells), len(columns)))
    ones[np.arange(len(cells)), [place[cell] for cell in cells]] = 1
    # a fold that lacks a class has fewer columns, each of which has to count more for the fold to count as much
    sizes = Counter(fold for fold, _ in columns)
    shares = np.asarray([len(columns) / (len(sizes) * sizes[fold]) for fold, _ in columns])
    above = ones * np.asarray(right)[:, None] * shares
    strata = tuple("/".join(cell) for cell in cells)
    named = tuple("/".join(cell) for cell in columns)
    return Score(name, tuple(ids), above, ones, strata=strata, columns=named, note=note)


def official_union(truths: Sequence[str], answers: Sequence[str | None]) -> float:
    """Labels and raw answers -> UAR in percent as HumanOmni computed it.

    Reference: HumanOmni's ``eval_mafw_dfew.py``: recall over the union of the strings in truths and answers, so that
    every different answer that is no label is one more class, with recall 0.

    >>> official_union(["sad", "happy"], ["sad", "happy."])  # recalls 1 (sad), 0 (happy), 0 (happy.)
    33.33333333333333
    """
    from sklearn.metrics import recall_score

    given = [(answer or "").lstrip() for answer in answers]
    return 100 * float(recall_score(list(truths), given, average="macro", zero_division=0))


def confusion(truths: Sequence[str], parsed: Sequence[str | None], labels: Sequence[str]) -> NDArray[np.int64]:
    """Labels -> counts ``[K K+1]``: a row for each true class, a column for each answered one, the last: invalid.

    Raises:
        ValueError: a label is none of the classes.

    >>> confusion(["sad", "happy"], ["happy", None], ["happy", "sad"]).tolist()
    [[0, 0, 1], [1, 0, 0]]
    """
    counts = np.zeros((len(labels), len(labels) + 1), dtype=np.int64)
    np.add.at(counts, (_indices(truths, labels, "truths"), _indices(parsed, labels, "answers")), 1)
    return counts


def per_class(
    truths: Sequence[str], parsed: Sequence[str | None], labels: Sequence[str]
) -> dict[str, tuple[float, int]]:
    """Labels -> class -> its recall in percent (NaN where it does not occur) and its support.

    Raises:
        ValueError: a label is none of the classes.

    >>> per_class(["sad", "sad"], ["sad", None], ["happy", "sad"])
    {'happy': (nan, 0), 'sad': (50.0, 2)}
    """
    counts = confusion(truths, parsed, labels)
    support = counts.sum(axis=1).tolist()
    return {
        label: (100 * counts[k, k].item() / support[k] if support[k] else float("nan"), support[k])
        for k, label in enumerate(labels)
    }


def majority(truths: Sequence[str]) -> dict[str, float]:
    """True labels -> WAR and UAR in percent of always answering the most frequent one.

    >>> majority(["sad", "sad", "happy", "fear"])
    {'war': 50.0, 'uar': 33.333333333333336}
    """
    counts = Counter(truths)
    return {"war": 100 * max(counts.values()) / len(truths), "uar": 100 / len(counts)}


def _indices(given: Sequence[str | None], labels: Sequence[str], what: str) -> list[int]:
    """Where labels stand among the classes; behind the last of them where there is none."""
    place: dict[str | None, int] = {label: k for k, label in enumerate(labels)}
    place[None] = len(labels)
    if foreign := sorted(str(label) for label in set(given) - set(place)):
        raise ValueError(f"{what}: {foreign} are none of the classes {list(labels)}; map them to these, or to none.")
    return [place[label] for label in given]
