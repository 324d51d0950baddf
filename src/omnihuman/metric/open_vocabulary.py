"""Emotions in any words: sets of labels against sets of labels, with labels of one meaning as one."""

import ast
import csv
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from omnihuman.metric.score import Score

Groups = Sequence[Sequence[str]]
OURS = Path(__file__).with_name("wheels.json")
_SAID = r"(?:is|are|be|feels?|feeling|looks?|seems?|appears?|shows?|express(?:es)?|conveys?|includes?|contains?)"
_FILLER = r"(?:and|or|also|then|to be|a bit|a little|very|quite|slightly|somewhat|mainly|mostly|both|a|an|the)"


@dataclass(frozen=True)
class Wheels:
    """Emotion wheels: which words stand in one sector of a wheel, and which forms words have.

    Attributes:
        source: whose they are, for a table's foot.
        words: form of a word -> words of the wheels that it may stand for, in alphabetical order.
        levels: wheel -> word -> its sector, on the inner level and on the outer one.
    """

    source: str
    words: Mapping[str, tuple[str, ...]]
    levels: Mapping[str, tuple[Mapping[str, str], Mapping[str, str]]]

    def sector(self, label: str, wheel: str, level: int) -> str | None:
        """Where a label stands on a wheel; ``None`` where it does not.

        >>> [our_wheels().sector(label, "parrott", 2) for label in ("worried", "late")]
        ['fear / nervousness', None]
        """
        sectors = self.levels[wheel][level - 1]
        return next((sectors[word] for word in self.words.get(label, ()) if word in sectors), None)


@cache
def our_wheels() -> Wheels:
    """Five wheels of our own making, drawn from published models of emotion, with forms of their words.

    Reference: Plutchik 1980; Parrott 2001 (primary and secondary emotions); Russell 1980 (quadrants and eighths of the
    circumplex); Ekman (six families and their states); the Geneva Emotion Wheel (quadrants and twenty families).
    Differs from the official emotion wheels (``read_wheels``): other wheels, fewer words. Figures of the two, and
    published ones, do not compare.

    >>> list(our_wheels().levels)
    ['plutchik', 'parrott', 'russell', 'ekman', 'geneva']
    """
    raw = json.loads(OURS.read_text(encoding="utf-8"))
    forms = {form: (word,) for word, forms in raw["words"].items() for form in (word, *forms.split())}
    levels: dict[str, tuple[dict[str, str], dict[str, str]]] = {}
    for wheel, tree in raw["wheels"].items():
        leaves = [(top, leaf, words.split()) for top, below in tree.items() for leaf, words in below.items()]
        inner = {word: top for top, _, words in leaves for word in words}
        levels[wheel] = inner, {word: f"{top} / {leaf}" for top, leaf, words in leaves for word in words}
    return Wheels("ours", forms, levels)


def read_wheels(folder: Path) -> Wheels:
    """The official wheels, from the folder ``emotion_wheel`` of MERTools (MER2025 or MER2026).

    It holds ``wheel1.xlsx`` to ``wheel5.xlsx``, ``synonym.xlsx`` and ``format.csv``.
    Reference: ``wheel.py`` there. A form leads to words (``format.csv``), these to words of the wheels
    (``synonym.xlsx``, eight runs), these to a sector; the first in the alphabet that is on the wheel decides. On the
    outer level a word of the inner one stands for its first sector in the alphabet.

    Raises:
        ValueError: a file or a column is missing, or openpyxl is.
    """
    levels, known = {}, set()
    for number in range(1, 6):
        inner: dict[str, str] = {}
        outer: dict[str, str] = {}
        tree: dict[str, dict[str, list[str]]] = {}
        at = ["", "", ""]
        for row in _sheet(folder / f"wheel{number}.xlsx", ["level1", "level2", "level3"]):
            at = [cell or before for cell, before in zip(row, at, strict=True)]
            tree.setdefault(at[0], {}).setdefault(at[1], []).append(at[2])
        for top, below in tree.items():
            inner[top], outer[top] = top, min(below)
            for leaf, words in below.items():
                inner |= dict.fromkeys([leaf, *words], top)
                outer |= dict.fromkeys([leaf, *words], leaf)
        levels[f"wheel{number}"] = inner, outer
        known |= set(inner)
    runs = [f"{kind}_run{run}" for run in range(1, 9) for kind in ("word", "synonym")]
    means: dict[str, set[str]] = {}
    for row in _sheet(folder / "synonym.xlsx", runs):
        for word, others in zip(row[0::2], row[1::2], strict=True):
            for form in [word, *_items(others)]:
                means.setdefault(form, set()).add(word)
    forms: dict[str, set[str]] = {}
    for name, others in _sheet(folder / "format.csv", ["name", "format"]):
        for form in [name, *_items(others)]:
            forms.setdefault(form, set()).update(means.get(name, ()))
    candidates = {form: tuple(sorted(found & known)) for form, found in forms.items()}
    return Wheels(f"official ({folder.name})", candidates, levels)


def set_scores(
    ids: Sequence[str],
    truths: Sequence[Sequence[str]],
    answers: Sequence[Sequence[str]],
    groups: Sequence[Groups | None],
    note: str = "",
) -> list[Score]:
    """Label sets and what means the same -> EMER-OV's average, accuracy and recall in percent.

    Each label becomes the first of its group; one in no group stays, one in two takes the last. The accuracy of a
    sample is the share of its answered labels that are true, the recall that of its true ones that are answered, both
    0 where nothing is answered; the average is that of the two means and no F1.
    Reference: MERTools, MER2024's overlap rates.

    Args:
        ids: of the questions.
        truths: labels of each, at least one.
        answers: labels of each.
        groups: of each; ``None`` where the judge failed: the sample is missing, not 0.
        note: the judge, for a table's foot.

    Raises:
        ValueError: the lists differ in length, or a sample has no true label.

    >>> scores = set_scores(["1"], [["happy", "sad"]], [["joyful"]], [[["happy", "joyful"], ["sad"]]])
    >>> [score.value for score in scores]
    [75.0, 100.0, 50.0]
    """
    rows = [row for row in zip(ids, truths, answers, groups, strict=True) if row[3] is not None]
    shares = []
    for key, truth, answer, group in rows:
        first = {_plain(label): _plain(one[0]) for one in group or () for label in one}
        true, given = ({first.get(_plain(label), _plain(label)) for label in labels} for labels in (truth, answer))
        if not true:
            raise ValueError(f"{key}: the truth has no label; leave the sample out.")
        shares.append(_overlap(true, given))
    names, both = tuple(row[0] for row in rows), np.asarray(shares, dtype=np.float64).reshape(len(shares), 2)
    average = Score("ov_avg", names, both, np.ones_like(both), asked=len(ids), note=note)
    parts = ("ov_accuracy", both[:, 0].tolist()), ("ov_recall", both[:, 1].tolist())
    return [average, *(Score.mean(name, names, part, asked=len(ids), note=note) for name, part in parts)]


def wheel_scores(
    ids: Sequence[str],
    truths: Sequence[Sequence[str]],
    answers: Sequence[Sequence[str]],
    wheels: Wheels | None = None,
) -> list[Score]:
    """Label sets -> how well they agree on emotion wheels, in percent, on the inner and on the outer level; no judge.

    Labels become sectors of a wheel; those that are on none are dropped on both sides, and samples whose truth is empty
    then do not count for that wheel. The figure is the mean over the wheels of the F of mean precision and mean recall.
    Reference: MER2025 and AffectGPT (EW), with their wheels (``read_wheels``).

    Args:
        ids: of the questions.
        truths: labels of each.
        answers: labels of each.
        wheels: ``None`` for our own, whose figures compare with no published ones.

    Raises:
        ValueError: the lists differ in length.

    >>> [score.value for score in wheel_scores(["1"], [["happy", "neutral"]], [["joyful"]])]
    [100.0, 100.0]
    """
    wheels = wheels or our_wheels()
    rows = list(zip(ids, truths, answers, strict=True))
    labels = [_plain(label) for _, *both in rows for some in both for label in some]
    on = sum(bool(wheels.words.get(label)) for label in labels)
    note = f"wheels: {wheels.source}; {on} of {len(labels)} labels are on them"
    scores = []
    for level in (1, 2):
        above = np.zeros((len(rows), 2 * len(wheels.levels)))
        below = np.zeros_like(above)
        for column, wheel in enumerate(wheels.levels):
            for row, (_, *both) in enumerate(rows):
                sectors = ({wheels.sector(_plain(label), wheel, level) for label in some} - {None} for some in both)
                true, given = sectors
                if true:
                    above[row, 2 * column : 2 * column + 2] = _overlap(true, given)
                    below[row, 2 * column : 2 * column + 2] = 1
        scores.append(Score(f"ew_level{level}", tuple(ids), above, below, "harmonic", note=note))
    return scores


def wheel_groups(labels: Iterable[str], wheel: str = "parrott", level: int = 2, wheels: Wheels | None = None) -> Groups:
    """Labels -> groups of one meaning: those in one sector of a wheel, or else forms of one word; sorted.

    Raises:
        ValueError: there is no such wheel.

    >>> wheel_groups(["worried", "happy", "anxious", "serious", "joyful"])
    [['anxious', 'worried'], ['happy', 'joyful'], ['serious']]
    """
    wheels = wheels or our_wheels()
    if wheel not in wheels.levels:
        raise ValueError(f"wheel={wheel!r}: the wheels ({wheels.source}) are {', '.join(wheels.levels)}.")
    found: dict[str, list[str]] = {}
    for label in sorted({_plain(label) for label in labels}):
        word = wheels.words.get(label) or (label,)
        found.setdefault(wheels.sector(label, wheel, level) or f"word {word[0]}", []).append(label)
    return list(found.values())


def parse_labels(answer: str) -> list[str]:
    """The labels that an answer lists, lower case, each once: a list in JSON or Python, lines, or a row of words.

    Phrases of more than three words are no labels. A whole description needs a judge to take its emotions out.

    >>> parse_labels("She feels happy, surprised and a bit sad."), parse_labels("['Happy', 'worried']")
    (['happy', 'surprised', 'sad'], ['happy', 'worried'])
    """
    if listed := re.search(r"\[[^\[\]]*\]", answer):
        items = _listed(listed[0])
    else:
        text = re.sub(r"^[^:：\n]*[:：]", "", answer.strip())
        items = re.split(r"[,;、，；\n.。!]|\band\b|\bor\b|&", text, flags=re.IGNORECASE)
    plain = (re.sub(rf"^(?:.*\b{_SAID}\s|[-*•\d.)\s]|{_FILLER}\s)+", "", _plain(item)) for item in items)
    labels = (each.strip(" .*\"'") for each in plain)
    return list(dict.fromkeys(each for each in labels if re.search(r"[^\W\d_]", each) and len(each.split()) <= 3))


def _listed(text: str) -> list[str]:
    """What stands between brackets."""
    for read in (json.loads, ast.literal_eval):
        try:
            return [item for item in read(text) if isinstance(item, str)]
        except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
            continue
    return _items(text)


def _items(text: str) -> list[str]:
    """The items of a list as the official files write it: with or without brackets and quotes."""
    inner = text.strip().removeprefix("[").removesuffix("]")
    return [_plain(item) for item in re.split(r"['\",]", inner) if item.strip()]


def _plain(label: str) -> str:
    return label.strip().lower()


def _overlap(true: set[Any], given: set[Any]) -> tuple[float, float]:
    common = len(true & given)
    return (common / len(given), common / len(true)) if given else (0.0, 0.0)


def _sheet(file: Path, columns: Sequence[str]) -> list[list[str]]:
    """Columns of a first sheet or of a csv file, trimmed and in lower case; nothing is ``""``."""
    if not file.is_file():
        raise ValueError(f"{file}: there is no such file; give the folder `emotion_wheel` of MERTools.")
    if file.suffix == ".csv":
        with file.open(encoding="utf-8-sig", newline="") as lines:
            head, *rows = list(csv.reader(lines)) or [[]]
    else:
        try:
            from openpyxl import load_workbook
        except ImportError as error:
            raise ValueError(f"{file}: reading it needs openpyxl: pip install openpyxl.") from error
        head, *rows = [list(row) for row in load_workbook(file).worksheets[0].iter_rows(values_only=True)] or [[]]
    if missing := [name for name in columns if name not in head]:
        raise ValueError(f"{file}: the columns {missing} are missing; it has {head}.")
    places = [head.index(name) for name in columns]
    return [[_plain(str(row[place] or "")) for place in places] for row in rows if any(row)]
