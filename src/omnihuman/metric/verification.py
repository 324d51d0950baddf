"""Face verification: accuracy, area under the ROC curve and equal error rate."""

import re
from collections.abc import Sequence
from statistics import fmean, stdev

import numpy as np

from omnihuman.metric.answer import CUT, final_answer
from omnihuman.metric.score import Array, Score, equal, group_positions, select


def parse_yes_no(answer: str | None) -> tuple[bool | None, str]:
    """Parse yes or no from an answer, and the rule that matched: ``first``, ``word``, ``invalid`` or ``cut``.

    The first word decides; otherwise the answer must contain only one of yes and no.

    >>> parse_yes_no("Yes, no doubt."), parse_yes_no("I say no"), parse_yes_no("yes or no?")[0]
    ((True, 'first'), (False, 'word'), True)
    """
    text = final_answer(answer)
    if text is None:
        return CUT
    text = text.lower()
    words = re.findall(r"\b(yes|no)\b", text)
    if re.match(r"\W*(yes|no)\b", text):
        return words[0] == "yes", "first"
    if len(set(words)) == 1:
        return words[0] == "yes", "word"
    return None, "invalid"


def score_verification(
    ids: Sequence[str],
    references: Sequence[bool],
    parsed: Sequence[bool | None],
    folds: Sequence[str] | None = None,
    yes_scores: Sequence[float] | None = None,
    note: str = "",
) -> list[Score]:
    """Pairs -> accuracy, and with P(Yes) the area under the ROC curve and the equal error rate.

    With folds, ``accuracy`` is the mean over folds, with the standard error in its note, and ``accuracy/<fold>`` come
    last. An invalid answer is wrong. Resampling keeps the sizes of the folds and of both kinds of pairs.

    Args:
        ids: of the pairs.
        references: True where both clips show the same person.
        parsed: parsed answers; ``None``: invalid.
        folds: of the pairs.
        yes_scores: P(Yes) of the pairs, or any monotonic function of it.
        note: footnote of the table.

    >>> scores = score_verification(["a", "b"], [True, False], [True, None], yes_scores=[0.9, 0.2])
    >>> {score.name: score.value for score in scores}
    {'accuracy': 50.0, 'auc': 100.0, 'eer': 0.0}
    """
    correct = equal(parsed, references)
    curve = []
    if yes_scores is not None:
        curve = [_score_auc(ids, references, yes_scores, note), _score_eer(ids, references, yes_scores, note)]
    if folds is None:
        return [Score.mean("accuracy", ids, correct, note=note), *curve]
    positions = group_positions(folds)
    _, standard_error = accuracy_over_folds(references, parsed, folds)
    fold_note = f"mean of {len(positions)} folds, standard error {standard_error:.2f}"
    mean = Score.macro("accuracy", ids, correct, folds, note=f"{note}; {fold_note}" if note else fold_note)
    fold_scores = []
    for fold, members in positions.items():
        values = select(correct, members)
        fold_scores.append(Score.mean(f"accuracy/{fold}", select(ids, members), values, note=note))
    return [mean, *curve, *fold_scores]


def accuracy_over_folds(
    references: Sequence[bool], parsed: Sequence[bool | None], folds: Sequence[str]
) -> tuple[float, float]:
    """Return the mean accuracy over folds and its standard error, in percent; NaN for a single fold.

    Reference: Labelled Faces in the Wild, whose protocol YouTube Faces follows: the standard deviation of the folds'
    accuracies, divided by the square root of their number.

    >>> accuracy_over_folds([True, False, True, True], [True, True, True, True], ["1", "1", "2", "2"])
    (75.0, 25.0)
    """
    correct: dict[str, list[float]] = {}
    for reference, answer, fold in zip(references, parsed, folds, strict=True):
        correct.setdefault(fold, []).append(100 * float(answer == reference))
    means = list(map(fmean, correct.values()))
    if len(means) == 1:
        return means[0], float("nan")
    return fmean(means), stdev(means) / len(means) ** 0.5


def _score_auc(ids: Sequence[str], references: Sequence[bool], yes_scores: Sequence[float], note: str) -> Score:
    """Return the area under the ROC curve as a sum over pairs.

    The area is the mean over positive pairs of the share of negative pairs with a lower score, and equally the mean
    over negative pairs of the share of positive pairs with a higher one. Each pair contributes twice its share minus
    half the area, so that resampling both kinds of pairs gives the spread of DeLong's formula.
    """
    from sklearn.metrics import roc_auc_score

    is_same, values = np.asarray(references, dtype=bool), np.asarray(yes_scores, dtype=np.float64)
    kinds, strata = _split_kinds(is_same)
    if is_same.all() or not is_same.any():  # one kind of pairs has no curve
        return Score("auc", tuple(ids), np.zeros_like(kinds), np.zeros_like(kinds), strata=strata, note=note)
    area = float(roc_auc_score(is_same, values))
    shares = np.empty(len(values))
    shares[is_same] = _share_below(values[is_same], values[~is_same])
    shares[~is_same] = _share_below(-values[~is_same], -values[is_same])
    return Score("auc", tuple(ids), kinds * (2 * shares - area)[:, None], kinds, strata=strata, note=note)


def _share_below(values: Array, population: Array) -> Array:
    """Return the share of the population below each value; ties count half."""
    ordered = np.sort(population)
    low, high = np.searchsorted(ordered, values, side="left"), np.searchsorted(ordered, values, side="right")
    shares: Array = (low + high) / 2 / len(population)
    return shares


def _score_eer(ids: Sequence[str], references: Sequence[bool], yes_scores: Sequence[float], note: str) -> Score:
    """Return the mean of both error rates at the threshold where they are closest; resampling keeps the threshold."""
    from sklearn.metrics import roc_curve

    is_same, values = np.asarray(references, dtype=bool), np.asarray(yes_scores, dtype=np.float64)
    kinds, strata = _split_kinds(is_same)
    if is_same.all() or not is_same.any():
        empty = np.zeros_like(kinds)
        return Score("eer", tuple(ids), empty, empty, higher_is_better=False, strata=strata, note=note)
    false_rates, true_rates, thresholds = roc_curve(is_same, values, drop_intermediate=False)
    threshold = thresholds[np.argmin(np.abs(false_rates - (1 - true_rates)))]
    wrong = ((values >= threshold) != is_same).astype(np.float64)
    above = kinds * wrong[:, None]
    return Score("eer", tuple(ids), above, kinds, higher_is_better=False, strata=strata, note=note)


def _split_kinds(is_same: np.ndarray) -> tuple[Array, tuple[str, ...]]:
    """Return a column for positive and one for negative pairs ``[n 2]``, and the strata ``[n]``."""
    kinds = np.stack([is_same, ~is_same], axis=1).astype(np.float64)
    return kinds, tuple(map(str, is_same))
