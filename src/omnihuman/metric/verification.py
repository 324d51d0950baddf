"""Same or different: whether two clips show one person."""

import re
from collections.abc import Sequence
from statistics import fmean, stdev

import numpy as np

from omnihuman.metric.score import Score


def parse_yes_no(answer: str | None) -> tuple[bool | None, str]:
    """What an answer says, and the rule it was read by: ``first``, ``word`` or ``invalid``.

    The first word decides; else it is the only one of yes and no that is named.

    >>> parse_yes_no("Yes, no doubt."), parse_yes_no("I say no"), parse_yes_no("yes or no?")[0]
    ((True, 'first'), (False, 'word'), True)
    """
    named = re.findall(r"\b(yes|no)\b", (answer or "").lower())
    if re.match(r"\W*(yes|no)\b", (answer or "").lower()):
        return named[0] == "yes", "first"
    return (named[0] == "yes", "word") if len(set(named)) == 1 else (None, "invalid")


def verification_scores(
    ids: Sequence[str],
    truths: Sequence[bool],
    parsed: Sequence[bool | None],
    folds: Sequence[str] | None = None,
    yes: Sequence[float] | None = None,
    note: str = "",
) -> list[Score]:
    """Pairs -> accuracy, and with P(Yes) the area under the ROC curve and the equal error rate.

    ``accuracy`` is the mean over folds where there are folds, its note says their standard error, and
    ``accuracy/<fold>`` come last; an invalid answer is wrong. Resampling keeps the sizes of the folds, and of both
    kinds of pairs.

    Args:
        ids: of the pairs.
        truths: whether both show the same person.
        parsed: what the answers say; ``None`` where they say nothing.
        folds: of the pairs.
        yes: P(Yes) of the pairs, or anything that grows with it.
        note: for the table's foot.

    >>> scores = verification_scores(["a", "b"], [True, False], [True, None], yes=[0.9, 0.2])
    >>> {score.name: score.value for score in scores}
    {'accuracy': 50.0, 'auc': 100.0, 'eer': 0.0}
    """
    right = [float(one == other) for one, other in zip(parsed, truths, strict=True)]
    curve = [] if yes is None else [_auc(ids, truths, yes, note), _eer(ids, truths, yes, note)]
    if folds is None:
        return [Score.mean("accuracy", ids, right, note=note), *curve]
    names = list(dict.fromkeys(folds))
    said = f"mean of {len(names)} folds, standard error {over_folds(truths, parsed, folds)[1]:.2f}"
    parts = []
    for name in names:
        some = [row for row, fold in enumerate(folds) if fold == name]
        parts.append(
            Score.mean(f"accuracy/{name}", [ids[row] for row in some], [right[row] for row in some], note=note)
        )
    whole = Score.macro("accuracy", ids, right, folds, note=f"{note}; {said}" if note else said)
    return [whole, *curve, *parts]


def over_folds(truths: Sequence[bool], parsed: Sequence[bool | None], folds: Sequence[str]) -> tuple[float, float]:
    """Pairs -> mean accuracy of the folds and its standard error, in percent; NaN where there is one fold only.

    Reference: Labelled Faces in the Wild, from which YouTube Faces takes its protocol: the standard deviation of the
    folds' accuracies, over the root of their number.

    >>> over_folds([True, False, True, True], [True, True, True, True], ["1", "1", "2", "2"])
    (75.0, 25.0)
    """
    right: dict[str, list[float]] = {}
    for truth, said, fold in zip(truths, parsed, folds, strict=True):
        right.setdefault(fold, []).append(100 * float(said == truth))
    means = [fmean(some) for some in right.values()]
    return fmean(means), stdev(means) / len(means) ** 0.5 if len(means) > 1 else float("nan")


def _auc(ids: Sequence[str], truths: Sequence[bool], yes: Sequence[float], note: str) -> Score:
    """The area under the curve as a sum over pairs.

    It is the mean over same pairs of the share of different ones that lie below, and as much the mean over different
    pairs of the share of same ones above. Each pair brings twice its share less half the area, so that resampling
    both kinds gives the spread that DeLong's formula gives.
    """
    from sklearn.metrics import roc_auc_score

    same, values = np.asarray(truths, dtype=bool), np.asarray(yes, dtype=np.float64)
    kinds = np.stack([same, ~same], axis=1).astype(np.float64)
    strata = tuple(str(truth) for truth in same)
    if same.all() or not same.any():  # there is no curve
        return Score("auc", tuple(ids), np.zeros_like(kinds), np.zeros_like(kinds), strata=strata, note=note)
    area = float(roc_auc_score(same, values))
    shares = np.empty(len(values))
    for mine, others, sign in ((same, values[~same], 1), (~same, values[same], -1)):
        ordered = np.sort(sign * others)
        low, high = (np.searchsorted(ordered, sign * values[mine], side=side) for side in ("left", "right"))
        shares[mine] = (low + high) / 2 / len(others)
    return Score("auc", tuple(ids), kinds * (2 * shares - area)[:, None], kinds, strata=strata, note=note)


def _eer(ids: Sequence[str], truths: Sequence[bool], yes: Sequence[float], note: str) -> Score:
    """The mean of both error rates at the threshold where they lie nearest to each other; resampling keeps it."""
    from sklearn.metrics import roc_curve

    same, values = np.asarray(truths, dtype=bool), np.asarray(yes, dtype=np.float64)
    kinds = np.stack([same, ~same], axis=1).astype(np.float64)
    if same.all() or not same.any():
        kinds = np.zeros_like(kinds)
        wrong = np.zeros(len(same))
    else:
        accepted, found, thresholds = roc_curve(same, values, drop_intermediate=False)
        threshold = thresholds[np.argmin(np.abs(accepted - (1 - found)))]
        wrong = ((values >= threshold) != same).astype(np.float64)
    strata = tuple(str(truth) for truth in same)
    above = kinds * wrong[:, None]
    return Score("eer", tuple(ids), above, kinds, higher_is_better=False, strata=strata, note=note)
