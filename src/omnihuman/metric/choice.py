"""Multiple choice: option parsing and accuracy."""

import re
from collections.abc import Sequence
from string import ascii_uppercase

import numpy as np
import torch
from torchmetrics import MeanMetric

from omnihuman.metric.answer import CUT, final_answer, says, tagged_answer
from omnihuman.metric.chinese import HAN, to_half_width
from omnihuman.metric.score import Array, Score, equal, group_positions, one_hot, select

PARSERS = ("strict", "humanomni", "official", "lmms_eval", "answer_tag")
"""Parsers of answers: ours, HumanOmni's, the one in MVBench's notebook, lmms-eval's, R1-Omni's."""

_LETTER = re.compile(
    rf"(?:(?:正确|最佳)?(?:答案|选项)(?:应该?)?[是为]?\s*:?|(?:应该?)?选择?)?\s*\(?([A-Z])\)?(?=[\s.:)、{HAN}]|$)"
)
"""A letter at the beginning: ``B.``, ``(B) runs``, ``答案是B``."""

Choice = tuple[int | None, str]
"""The index of an option (``None``: invalid) and the rule that parsed it."""


class ChoiceAccuracy:
    """Answers and reference options -> accuracy in percent.

    An answer is correct if it equals the reference option, without regard to case and punctuation.

    >>> metric = ChoiceAccuracy()
    >>> metric.update(["Blond.", "red or gray"], ["blond", "gray"])
    >>> metric.compute()
    {'accuracy': 50.0}
    """

    scores = ("accuracy",)

    def __init__(self) -> None:
        self.counts = MeanMetric()

    def update(self, answers: Sequence[str], references: Sequence[str]) -> None:
        """Add a batch of answers."""
        final = [_normalize(final_answer(answer) or "") for answer in answers]
        correct = equal(final, [*map(_normalize, references)])
        self.counts.update(torch.tensor(correct, device=self.counts.device))

    def compute(self) -> dict[str, float]:
        """Return the accuracy over all batches and ranks."""
        return {"accuracy": 100 * float(self.counts.compute())}


def parse_choice(
    answer: str | None, options: Sequence[str], parser: str = "strict", reference: int | None = None
) -> Choice:
    """Parse the option that an answer names, and the rule that matched; ``(None, "invalid")`` without a match.

    Reference: ``humanomni``, ``official``, ``lmms_eval`` parse as the evaluation scripts of HumanOmni, MVBench and
    lmms-eval do, quirks included; the three disagree with each other.
    Differs from them: ``strict`` requires the letter at the start, or the text of exactly one option, which the answer
    does not deny, behind its reasoning (``<think>``); an answer that ends within its reasoning is ``cut``.
    ``answer_tag`` reads the text in ``<answer>`` as R1-Omni's reward does, and then as ``strict``.

    Args:
        answer: of the model; ``None`` where generation failed.
        options: texts of (A), (B) ...
        parser: one of ``PARSERS``.
        reference: index of the correct option. ``official`` tests only whether an answer matches it, and a bare ``(``
            matches every option; without a reference it returns the first match.

    Raises:
        ValueError: the parser is unknown.

    >>> [parse_choice("Best option: (A) sits", ["sits", "runs"], parser) for parser in ("strict", "humanomni")]
    [(0, 'text'), (1, 'letter')]
    """
    if parser not in PARSERS:
        raise ValueError(f"parser={parser!r}: choose from {', '.join(PARSERS)}.")
    if answer is None:
        return None, "invalid"
    if parser == "official":
        return _parse_official(answer, options, reference)
    if parser == "answer_tag":
        is_cut = final_answer(answer) is None
        return CUT if is_cut else _parse_strict(tagged_answer(answer), options)
    return {"strict": _parse_strict, "humanomni": _parse_humanomni, "lmms_eval": _parse_lmms_eval}[parser](
        answer, options
    )


def _parse_strict(answer: str, options: Sequence[str]) -> Choice:
    final = final_answer(answer)
    if final is None:
        return CUT
    letter = _LETTER.match(to_half_width(final))
    if letter:
        index = ascii_uppercase.index(letter[1])
        if index < len(options):
            return index, "letter"
    text = _normalize(final)
    equal, contained = [], []
    for index, option in enumerate(map(_normalize, options)):
        if option == text:
            equal.append(index)
        if says(final, option):
            contained.append(index)
    for matches in (equal, contained):
        if len(matches) == 1:
            return matches[0], "text"
    return None, "invalid"


def _parse_humanomni(answer: str, options: Sequence[str]) -> Choice:
    text = answer.replace("answer", "").replace("Answer", "")
    last = ascii_uppercase[len(options) - 1]
    capital = re.search(rf"[(, ]*([A-{last}])[), ]*", text)
    if capital:
        # The official pattern also captures a neighbouring comma, or a space inside the brackets. Such a match is
        # not equal to a letter in the script's next comparison, so it falls through to the default (C).
        is_letter = capital[0].strip().strip("()") == capital[1]
        return (ascii_uppercase.index(capital[1]), "letter") if is_letter else (2, "default")
    for index, option in enumerate(options):
        if option.lower() in text.lower():
            return index, "text"
    return 2, "default"


def _parse_official(answer: str, options: Sequence[str], reference: int | None) -> Choice:
    """Match the first word of an answer: it contains ``(a)``, or ``(a)`` contains it."""
    word = answer.strip().split("\n")[0].lower().split(" ")[0]
    matches = []
    for index in range(len(options)):
        letter = f"({ascii_uppercase[index].lower()})"
        if word.replace(".", "") in letter or letter in word:
            matches.append(index)
    if not matches:
        return None, "invalid"
    index = reference if reference in matches else matches[0]
    return index, "letter" if len(matches) == 1 else "any"


def _parse_lmms_eval(answer: str, options: Sequence[str]) -> Choice:
    if answer == "":
        return None, "dropped"
    letter = re.search(r"^([A-E])\.\s*.+$", answer.strip(), re.IGNORECASE)
    if not letter:
        text = plain = answer.replace("\n", " ").replace("\t", " ").strip()
        for mark in ';/[]"{}()=+\\_-><@`,?!':
            is_removed = f"{mark} " in text or f" {mark}" in text or re.search(r"\d,\d", text)
            plain = plain.replace(mark, "" if is_removed else " ")
        plain = re.sub(r"\.(?!\d)", "", plain, count=32)  # lmms-eval passes flags where re.sub expects the count
        letter = re.search(r"\b([A-E])\b", plain, re.IGNORECASE)
    if not letter:
        return None, "invalid"
    index = ascii_uppercase.index(letter[1].upper())
    return (index, "letter") if index < len(options) else (None, "invalid")


def score_choices(
    ids: Sequence[str],
    references: Sequence[int],
    parsed: Sequence[Choice],
    tasks: Sequence[str],
    clusters: Sequence[str] | None = None,
    note: str = "",
) -> list[Score]:
    """Reference options and the results of ``parse_choice`` -> ``avg``, the mean over tasks, then each task.

    Invalid answers are wrong; answers that lmms-eval drops are excluded.

    Args:
        ids: of the questions.
        references: indices of the correct options.
        parsed: index and rule of each answer.
        tasks: of the questions; the names of the scores.
        clusters: the video of each question.
        note: footnote of the table.

    >>> parsed = [(0, "letter"), (1, "letter"), (1, "text")]
    >>> scores = score_choices(["a", "b", "c"], [0, 0, 1], parsed, ["x", "x", "y"])
    >>> {score.name: score.value for score in scores}
    {'avg': 75.0, 'x': 50.0, 'y': 100.0}
    """
    groups = group_positions(tasks)
    names = list(groups)
    counted = np.asarray([float(rule != "dropped") for _, rule in parsed])
    correct = np.asarray(equal([index for index, _ in parsed], references))
    below = one_hot(tasks, names) * counted[:, None]
    videos = None if clusters is None else tuple(clusters)
    average = Score(
        "avg", tuple(ids), below * correct[:, None], below, clusters=videos, columns=tuple(names), note=note
    )
    scores = [average]
    for name, positions in groups.items():
        scores.append(_score_task(name, positions, ids, correct, counted, videos, note))
    return scores


def _score_task(
    name: str,
    positions: list[int],
    ids: Sequence[str],
    correct: Array,
    counted: Array,
    videos: tuple[str, ...] | None,
    note: str,
) -> Score:
    clusters = None if videos is None else tuple(select(videos, positions))
    above, below = (correct * counted)[positions, None], counted[positions, None]
    return Score(name, tuple(select(ids, positions)), above, below, clusters=clusters, note=note)


def _normalize(text: str) -> str:
    return " ".join(re.findall(r"\w+", to_half_width(text).lower()))
