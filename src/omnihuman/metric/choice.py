"""Choice questions: which option an answer names, and how often it is the right one."""

import re
from collections.abc import Sequence
from string import ascii_uppercase

import numpy as np
import torch
from torchmetrics import MeanMetric

from omnihuman.metric.score import Score

HABITS = ("strict", "humanomni", "official", "lmms_eval")
"""Whose habit of reading answers: ours, HumanOmni's, MVBench's own notebook, lmms-eval."""


class ChoiceAccuracy:
    """Answers and true options -> accuracy in percent.

    An answer is right where it is the true option and nothing else; case and punctuation do not matter.

    >>> metric = ChoiceAccuracy()
    >>> metric.update(["Blond.", "red or gray"], ["blond", "gray"])
    >>> metric.compute()
    {'accuracy': 50.0}
    """

    def __init__(self) -> None:
        self.counts = MeanMetric()

    def update(self, answers: Sequence[str], truths: Sequence[str]) -> None:
        """Count a few answers."""
        right = [float(_plain(answer) == _plain(truth)) for answer, truth in zip(answers, truths, strict=True)]
        self.counts.update(torch.tensor(right, device=self.counts.device))

    def compute(self) -> dict[str, float]:
        """The share of right answers over everything counted, on all ranks."""
        return {"accuracy": 100 * float(self.counts.compute())}


def parse(
    answer: str | None, options: Sequence[str], how: str = "strict", truth: int | None = None
) -> tuple[int | None, str]:
    """The option that an answer names, and the rule it was read by; ``(None, "invalid")`` where it names none.

    Reference: ``humanomni``, ``official``, ``lmms_eval`` read as the evaluation scripts of HumanOmni, MVBench and
    lmms-eval do, quirks included; the three do not agree with each other.
    Differs from them: ``strict`` wants the letter in front, or the words of exactly one option.

    Args:
        answer: the model's words; ``None`` where it could not be asked.
        options: texts of (A), (B) ...
        how: whose habit, one of ``HABITS``.
        truth: the right option. ``official`` asks only whether an answer may pass for it, and a bare ``(`` passes for
            any; without a truth it names the first that the answer may pass for.

    Raises:
        ValueError: ``how`` is unknown.

    >>> [parse("Best option: (A) sits", ["sits", "runs"], how) for how in ("strict", "humanomni")]
    [(0, 'text'), (1, 'letter')]
    """
    if how not in HABITS:
        raise ValueError(f"parser {how!r}: choose from {', '.join(HABITS)}.")
    if answer is None:
        return None, "invalid"
    if how == "official":
        may = _official(answer, options)
        if not may:
            return None, "invalid"
        return (truth if truth in may else may[0]), ("letter" if len(may) == 1 else "any")
    return {"strict": _strict, "humanomni": _humanomni, "lmms_eval": _lmms_eval}[how](answer, options)


def _strict(answer: str, options: Sequence[str]) -> tuple[int | None, str]:
    text = answer.strip()
    if letter := re.search(r"^\(?([A-Z])\)?(?=[\s.:)]|$)", text):
        index = ascii_uppercase.index(letter[1])
        if index < len(options):
            return index, "letter"
    plain, plains = _plain(text), [_plain(option) for option in options]
    same = [k for k, option in enumerate(plains) if option == plain]
    within = [k for k, option in enumerate(plains) if option and f" {option} " in f" {plain} "]
    for found in (same, within):
        if len(found) == 1:
            return found[0], "text"
    return None, "invalid"


def _humanomni(answer: str, options: Sequence[str]) -> tuple[int | None, str]:
    text = answer.replace("answer", "").replace("Answer", "")
    last = ascii_uppercase[len(options) - 1]
    if capital := re.search(rf"[(, ]*([A-{last}])[), ]*", text):
        # what stands round it is taken along: a comma, or a blank within the brackets, and it is no letter any more
        bare = capital[0].strip().strip("()") == capital[1]
        return (ascii_uppercase.index(capital[1]), "letter") if bare else (2, "default")
    for index, option in enumerate(options):
        if option.lower() in text.lower():
            return index, "text"
    return 2, "default"


def _official(answer: str, options: Sequence[str]) -> list[int]:
    """All options that the first word of an answer may pass for: it is a part of ``(a)``, or the other way round."""
    word = answer.strip().split("\n")[0].lower().split(" ")[0]
    letters = [f"({ascii_uppercase[k].lower()})" for k in range(len(options))]
    return [k for k, letter in enumerate(letters) if word.replace(".", "") in letter or letter in word]


def _lmms_eval(answer: str, options: Sequence[str]) -> tuple[int | None, str]:
    if answer == "":
        return None, "dropped"
    letter = re.search(r"^([A-E])\.\s*.+$", answer.strip(), re.IGNORECASE)
    if not letter:
        text = plain = answer.replace("\n", " ").replace("\t", " ").strip()
        for mark in ';/[]"{}()=+\\_-><@`,?!':
            gone = f"{mark} " in text or f" {mark}" in text or re.search(r"\d,\d", text)
            plain = plain.replace(mark, "" if gone else " ")
        plain = re.sub(r"\.(?!\d)", "", plain, count=32)  # their flags stand where the count belongs
        letter = re.search(r"\b([A-E])\b", plain, re.IGNORECASE)
    index = ascii_uppercase.index(letter[1].upper()) if letter else len(options)
    return (index, "letter") if index < len(options) else (None, "invalid")


def choice_scores(
    ids: Sequence[str],
    truths: Sequence[int],
    parsed: Sequence[tuple[int | None, str]],
    tasks: Sequence[str],
    clusters: Sequence[str] | None = None,
    note: str = "",
) -> list[Score]:
    """True options and what ``parse`` made of the answers -> ``avg``, the plain mean over tasks, then each task's.

    Invalid answers are wrong; what lmms-eval drops is not counted at all.

    Args:
        ids: of the questions.
        truths: index of the right option.
        parsed: index and rule.
        tasks: of the questions; their names are the scores'.
        clusters: the video of each question.
        note: for the table's foot.

    >>> scores = choice_scores(["a", "b", "c"], [0, 0, 1], [(0, "letter"), (1, "letter"), (1, "text")], ["x", "x", "y"])
    >>> {score.name: score.value for score in scores}
    {'avg': 75.0, 'x': 50.0, 'y': 100.0}
    """
    names = list(dict.fromkeys(tasks))
    counted = np.asarray([float(rule != "dropped") for _, rule in parsed])
    right = np.asarray([float(index == truth) for (index, _), truth in zip(parsed, truths, strict=True)])
    member = np.asarray([[float(task == name) for name in names] for task in tasks]).reshape(len(tasks), len(names))
    below = member * counted[:, None]
    videos = None if clusters is None else tuple(clusters)
    scores = [Score("avg", tuple(ids), below * right[:, None], below, clusters=videos, columns=tuple(names), note=note)]
    for name in names:
        some = [row for row, task in enumerate(tasks) if task == name]
        part = None if videos is None else tuple(videos[row] for row in some)
        above, base = (right * counted)[some, None], counted[some, None]
        scores.append(Score(name, tuple(ids[row] for row in some), above, base, clusters=part, note=note))
    return scores


def _plain(text: str) -> str:
    return " ".join(re.findall(r"\w+", text.lower()))
