"""Emotion recognition: label parsing, weighted and unweighted average recall, confusion counts."""

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torchmetrics.classification import MulticlassConfusionMatrix

from omnihuman.metric.answer import CUT, final_answer, fold, says, tagged_answer
from omnihuman.metric.score import Score, equal, group_positions, one_hot, select

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
"""HumanOmni's labels for DFEW and MAFW -> their other word forms, including MAFW's nouns."""

PARSERS = ("strict", "official", "answer_tag")


class EmotionRecall:
    """Answers and reference labels -> WAR and UAR in percent.

    Reference: WAR and UAR as in DFEW; WAR is the accuracy, UAR the mean recall of the classes that occur.
    Differs from HumanOmni's ``eval_mafw_dfew.py``: an answer without a label is wrong, it is not a class of its own
    that lowers the UAR; punctuation and case are ignored.

    Args:
        labels: the classes.

    >>> metric = EmotionRecall(["sad", "happy"])
    >>> metric.update(["Sad.", "angry", "happy"], ["sad", "sad", "happy"])
    >>> {name: round(value, 1) for name, value in metric.compute().items()}
    {'war': 66.7, 'uar': 75.0}
    """

    scores = ("uar", "war")  # the headline first: a model that answers one class only has a good WAR

    def __init__(self, labels: Sequence[str]) -> None:
        self.labels = list(labels)
        self.counts = MulticlassConfusionMatrix(num_classes=len(self.labels) + 1)  # the last class: invalid

    def update(self, answers: Sequence[str], references: Sequence[str]) -> None:
        """Add a batch of answers.

        Raises:
            ValueError: a reference label is not one of the classes.
        """
        true = _label_indices(references, self.labels, "references")
        predicted = _label_indices([self.parse(answer) for answer in answers], self.labels, "answers")
        device = self.counts.device
        self.counts.update(torch.tensor(predicted, device=device), torch.tensor(true, device=device))

    def compute(self) -> dict[str, float]:
        """Return WAR and UAR over all batches and ranks."""
        matrix = self.counts.compute().double()
        support, correct = matrix.sum(dim=1), matrix.diagonal()
        occurs = support > 0
        return {
            "war": 100 * float(correct.sum() / support.sum()),
            "uar": 100 * float((correct[occurs] / support[occurs]).mean()),
        }

    def floors(self) -> dict[str, float]:
        """Return WAR and UAR of the best constant answer: the share of the largest class, and that of one class."""
        support = self.counts.compute().double().sum(dim=1)
        return {"war": 100 * float(support.max() / support.sum()), "uar": 100 / int((support > 0).sum())}

    def parse(self, answer: str) -> str | None:
        """Parse the label of an answer; ``None`` if it names no label or several."""
        return parse_label(answer, self.labels)[0]


def parse_label(
    answer: str | None,
    labels: Sequence[str],
    forms: Mapping[str, Sequence[str]] | None = None,
    parser: str = "strict",
) -> tuple[str | None, str]:
    """Parse a label from an answer, and the rule that matched: ``label``, ``form``, ``invalid`` or ``cut``.

    Reference: ``official`` is HumanOmni's ``eval_mafw_dfew.py``: leading whitespace is stripped, the rest must equal a
    label, so that ``Happy`` and ``happy.`` are wrong. ``answer_tag`` is R1-Omni's: the text in ``<answer>`` is a label.
    Differs from it: ``strict`` (ours) searches for complete words, without regard to case and punctuation; an answer
    that names several labels is invalid, unless it equals one, which may contain another (``very happy``). Reasoning
    (``<think>``) and denied labels ("not happy") do not count; an answer that ends within its reasoning is ``cut``.
    ``answer_tag`` takes a label in another case, with a full stop, or in another word form.

    Args:
        answer: of the model; ``None`` where generation failed.
        labels: the classes.
        forms: label -> other word forms (``FORMS``); not for ``official``.
        parser: ``strict``, ``official`` or ``answer_tag``.

    Raises:
        ValueError: the parser is unknown.

    >>> parse_label(" Happiness.", ["happy", "sad"], FORMS), parse_label("happy or sad", ["happy", "sad"])
    (('happy', 'form'), (None, 'invalid'))
    """
    if parser not in PARSERS:
        raise ValueError(f"parser={parser!r}: choose from {', '.join(PARSERS)}.")
    if parser == "official":
        exact = (answer or "").lstrip()
        return (exact, "label") if exact in labels else (None, "invalid")
    text = final_answer(answer)
    if text is None:
        return CUT
    if parser == "answer_tag":
        return match_label(tagged_answer(answer or ""), labels, forms) or (None, "invalid")
    match = match_label(text, labels, forms)
    if match is not None:
        return match
    rules: dict[str, str] = {}
    for label in labels:
        if says(text, label):
            rules[label] = "label"
        elif any(says(text, form) for form in (forms or {}).get(label, ())):
            rules[label] = "form"
    if len(rules) != 1:
        return None, "invalid"
    return rules.popitem()


def match_label(
    text: str, labels: Sequence[str], forms: Mapping[str, Sequence[str]] | None = None
) -> tuple[str, str] | None:
    """Return the label that a text equals, and the rule, ``label`` or ``form``; ``None`` if it equals none.

    >>> match_label("Very happy.", ["happy", "very happy"]), match_label("She is happy", ["happy"])
    (('very happy', 'label'), None)
    """
    exact = fold(text)
    for label in labels:
        if exact == fold(label):
            return label, "label"
    for label in labels:
        if exact in map(fold, (forms or {}).get(label, ())):
            return label, "form"
    return None


def score_labels(
    ids: Sequence[str],
    references: Sequence[str],
    parsed: Sequence[str | None],
    labels: Sequence[str],
    folds: Sequence[str] | None = None,
    note: str = "",
) -> list[Score]:
    """Labels -> WAR and UAR over the reference classes; ``None`` (invalid) is wrong.

    With folds, ``war`` and ``uar`` are the unweighted means over folds, as in MAE-DFER and others; ``war_pooled`` and
    ``uar_pooled`` are over all clips, followed by ``war/<fold>`` and ``uar/<fold>``. Resampling keeps the sizes of
    classes (UAR) and folds.

    Args:
        ids: of the questions.
        references: reference labels.
        parsed: labels of the answers; ``None``: invalid.
        labels: the classes.
        folds: names of the questions' folds: ``fold_1``.
        note: footnote of the table.

    Raises:
        ValueError: a label is not one of the classes.

    >>> [score.value for score in score_labels(["a", "b", "c"], ["sad", "sad", "happy"], ["sad", None, "happy"],
    ...  ["happy", "sad"])]
    [66.66666666666666, 75.0]
    """
    _label_indices(references, labels, "references")
    _label_indices(parsed, labels, "answers")
    correct = equal(parsed, references)
    if folds is None:
        return [Score.mean("war", ids, correct, note=note), Score.macro("uar", ids, correct, references, note=note)]
    scores = [
        _mean_over_folds("war", ids, correct, [""] * len(correct), folds, note),
        _mean_over_folds("uar", ids, correct, references, folds, note),
        Score.mean("war_pooled", ids, correct, strata=tuple(folds), note=note),
        Score.macro("uar_pooled", ids, correct, references, note=note),
    ]
    for name, positions in sorted(group_positions(folds).items()):
        fold_ids, fold_correct = select(ids, positions), select(correct, positions)
        classes = select(references, positions)
        scores.append(Score.mean(f"war/{name}", fold_ids, fold_correct, note=note))
        scores.append(Score.macro(f"uar/{name}", fold_ids, fold_correct, classes, note=note))
    return scores


def _mean_over_folds(
    name: str, ids: Sequence[str], correct: Sequence[float], classes: Sequence[str], folds: Sequence[str], note: str
) -> Score:
    """Return the mean over folds, with a column for each class of each fold."""
    cells = list(zip(folds, classes, strict=True))
    columns = sorted(set(cells))
    membership = one_hot(cells, columns)
    # A fold that lacks a class has fewer columns. Its columns get more weight, so that all folds count equally.
    num_columns = Counter(fold for fold, _ in columns)
    column_weights = np.asarray([len(columns) / (len(num_columns) * num_columns[fold]) for fold, _ in columns])
    above = membership * np.asarray(correct)[:, None] * column_weights
    strata = tuple(map("/".join, cells))
    names = tuple(map("/".join, columns))
    return Score(name, tuple(ids), above, membership, strata=strata, columns=names, note=note)


def official_union_recall(references: Sequence[str], answers: Sequence[str | None]) -> float:
    """Return the UAR in percent as HumanOmni computes it, from labels and raw answers.

    Reference: HumanOmni's ``eval_mafw_dfew.py``: the mean recall over the union of the strings in references and
    answers, so that every distinct answer that is not a label adds a class with recall 0.

    >>> official_union_recall(["sad", "happy"], ["sad", "happy."])  # recalls 1 (sad), 0 (happy), 0 (happy.)
    33.33333333333333
    """
    from sklearn.metrics import recall_score

    predicted = [(answer or "").lstrip() for answer in answers]
    return 100 * float(recall_score(list(references), predicted, average="macro", zero_division=0))


def confusion_counts(
    references: Sequence[str], parsed: Sequence[str | None], labels: Sequence[str]
) -> NDArray[np.int64]:
    """Count labels, ``[K K+1]``: a row for each reference class, a column for each predicted one, the last: invalid.

    Raises:
        ValueError: a label is not one of the classes.

    >>> confusion_counts(["sad", "happy"], ["happy", None], ["happy", "sad"]).tolist()
    [[0, 0, 1], [1, 0, 0]]
    """
    counts = np.zeros((len(labels), len(labels) + 1), dtype=np.int64)
    true = _label_indices(references, labels, "references")
    np.add.at(counts, (true, _label_indices(parsed, labels, "answers")), 1)
    return counts


def recall_per_class(
    references: Sequence[str], parsed: Sequence[str | None], labels: Sequence[str]
) -> dict[str, tuple[float, int]]:
    """Return class -> its recall in percent (NaN if it does not occur) and its support.

    Raises:
        ValueError: a label is not one of the classes.

    >>> recall_per_class(["sad", "sad"], ["sad", None], ["happy", "sad"])
    {'happy': (nan, 0), 'sad': (50.0, 2)}
    """
    counts = confusion_counts(references, parsed, labels)
    recalls = {}
    for index, label in enumerate(labels):
        support = int(counts[index].sum())
        recalls[label] = (100 * counts[index, index].item() / support if support else float("nan"), support)
    return recalls


def majority_baseline(references: Sequence[str]) -> dict[str, float]:
    """Return WAR and UAR in percent of always answering the most frequent label.

    >>> majority_baseline(["sad", "sad", "happy", "fear"])
    {'war': 50.0, 'uar': 33.333333333333336}
    """
    counts = Counter(references)
    return {"war": 100 * max(counts.values()) / len(references), "uar": 100 / len(counts)}


def _label_indices(values: Sequence[str | None], labels: Sequence[str], argument: str) -> list[int]:
    """Return the class index of each label; ``None`` has the index after the last class."""
    index: dict[str | None, int] = {label: k for k, label in enumerate(labels)}
    index[None] = len(labels)
    unknown = sorted(str(label) for label in set(values) - set(index))
    if unknown:
        raise ValueError(f"{argument}: unknown labels {unknown}; expected one of {list(labels)} or None.")
    return [index[label] for label in values]
