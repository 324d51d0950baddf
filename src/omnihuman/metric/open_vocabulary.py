"""Open-vocabulary emotions: sets of labels, compared by groups of synonyms or by emotion wheels."""

import ast
import csv
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from omnihuman.metric.chinese import HAN, count_words
from omnihuman.metric.score import Score

Groups = Sequence[Sequence[str]]
BUILT_IN_WHEELS = Path(__file__).with_name("wheels.json")
_VERB = r"(?:is|are|be|feels?|feeling|looks?|seems?|appears?|shows?|express(?:es)?|conveys?|includes?|contains?)"
_SEPARATOR = re.compile(
    rf"""[,;、，；\n.。!！]|\band\b|\bor\b|&
    |(?<=[{HAN}]{{2}})(?:以及|还有|与|或|(?<![温平缓柔祥])和(?![善蔼谐与]))(?=[{HAN}]{{2}})""",
    re.IGNORECASE | re.VERBOSE,
)
_CHINESE_FILLER = re.compile(
    r"^(?:.*(?:感到|觉得|显得|看起来|表现出|流露出|情绪[是为有]|情感[是为有]|包括)|有点|有些|略显|非常|十分|比较|还|也|又|很)+"
)
_FILLER = r"(?:and|or|also|then|to be|a bit|a little|very|quite|slightly|somewhat|mainly|mostly|both|a|an|the)"


@dataclass(frozen=True)
class Wheels:
    """Emotion wheels: the sectors of words, and the words of word forms.

    Attributes:
        source: origin of the wheels, for a footnote.
        words: word form -> words of the wheels, in alphabetical order.
        levels: wheel -> (word -> inner sector, word -> outer sector).
    """

    source: str
    words: Mapping[str, tuple[str, ...]]
    levels: Mapping[str, tuple[Mapping[str, str], Mapping[str, str]]]

    def sector(self, label: str, wheel: str, level: int) -> str | None:
        """Return the sector of a label; ``None`` if it is not on the wheel.

        >>> [built_in_wheels().sector(label, "parrott", 2) for label in ("worried", "late")]
        ['fear / nervousness', None]
        """
        sectors = self.levels[wheel][level - 1]
        for word in self.words.get(label, ()):
            if word in sectors:
                return sectors[word]
        return None

    def sectors(self, labels: Iterable[str], wheel: str, level: int) -> set[str]:
        """Return the sectors of all labels that are on the wheel."""
        sectors = {self.sector(_normalize(label), wheel, level) for label in labels}
        return {sector for sector in sectors if sector is not None}


@cache
def built_in_wheels() -> Wheels:
    """Load the five built-in wheels, drawn from published models of emotion, with their word forms.

    Reference: Plutchik 1980; Parrott 2001 (primary and secondary emotions); Russell 1980 (quadrants and octants of the
    circumplex); Ekman (six families and their states); the Geneva Emotion Wheel (quadrants and twenty families).
    Differs from the official emotion wheels (``read_wheels``): other wheels, fewer words. Scores on the two, and
    published scores, are not comparable.

    >>> list(built_in_wheels().levels)
    ['plutchik', 'parrott', 'russell', 'ekman', 'geneva']
    """
    raw = json.loads(BUILT_IN_WHEELS.read_text(encoding="utf-8"))
    words: dict[str, tuple[str, ...]] = {}
    for word, forms in raw["words"].items():
        words |= dict.fromkeys((word, *forms.split()), (word,))
    levels: dict[str, tuple[dict[str, str], dict[str, str]]] = {}
    for wheel, tree in raw["wheels"].items():
        inner: dict[str, str] = {}
        outer: dict[str, str] = {}
        for top, leaves in tree.items():
            for leaf, members in leaves.items():
                inner |= dict.fromkeys(members.split(), top)
                outer |= dict.fromkeys(members.split(), f"{top} / {leaf}")
        levels[wheel] = inner, outer
    return Wheels("ours", words, levels)


def read_wheels(folder: Path) -> Wheels:
    """Read the official wheels from the folder ``emotion_wheel`` of MERTools (MER2025 or MER2026).

    It contains ``wheel1.xlsx`` to ``wheel5.xlsx``, ``synonym.xlsx`` and ``format.csv``.
    Reference: ``wheel.py`` there. ``format.csv`` maps a form to words, ``synonym.xlsx`` (eight runs) maps these to
    words of the wheels, and these have sectors; the first word in alphabetical order that is on the wheel decides. On
    the outer level a word of the inner level has its first sector in alphabetical order.

    Raises:
        ValueError: a file or a column is missing, or openpyxl is not installed.
    """
    levels = {f"wheel{number}": _read_wheel(folder / f"wheel{number}.xlsx") for number in range(1, 6)}
    known = set(chain.from_iterable(inner for inner, _ in levels.values()))
    columns = []
    for run in range(1, 9):
        columns += [f"word_run{run}", f"synonym_run{run}"]
    words: dict[str, set[str]] = {}
    for row in _read_columns(folder / "synonym.xlsx", columns):
        for word, synonyms in zip(row[0::2], row[1::2], strict=True):
            for form in [word, *_split_items(synonyms)]:
                words.setdefault(form, set()).add(word)
    candidates: dict[str, set[str]] = {}
    for name, forms in _read_columns(folder / "format.csv", ["name", "format"]):
        for form in [name, *_split_items(forms)]:
            candidates.setdefault(form, set()).update(words.get(name, ()))
    sorted_words = {form: tuple(sorted(matches & known)) for form, matches in candidates.items()}
    return Wheels(f"official ({folder.name})", sorted_words, levels)


def _read_wheel(file: Path) -> tuple[dict[str, str], dict[str, str]]:
    """Read one official wheel: word -> inner sector, word -> outer sector."""
    tree: dict[str, dict[str, list[str]]] = {}
    path = ["", "", ""]
    for row in _read_columns(file, ["level1", "level2", "level3"]):
        path = [cell or previous for cell, previous in zip(row, path, strict=True)]  # merged cells are empty
        top, leaf, word = path
        tree.setdefault(top, {}).setdefault(leaf, []).append(word)
    inner: dict[str, str] = {}
    outer: dict[str, str] = {}
    for top, leaves in tree.items():
        inner[top], outer[top] = top, min(leaves)
        for leaf, words in leaves.items():
            inner |= dict.fromkeys([leaf, *words], top)
            outer |= dict.fromkeys([leaf, *words], leaf)
    return inner, outer


def score_label_sets(
    ids: Sequence[str],
    references: Sequence[Sequence[str]],
    answers: Sequence[Sequence[str]],
    groups: Sequence[Groups | None],
    note: str = "",
) -> list[Score]:
    """Label sets and groups of synonyms -> EMER-OV's average, accuracy and recall in percent.

    Each label is replaced by the first label of its group; a label without a group stays, one in two groups takes the
    last. The accuracy of a sample is the share of predicted labels that are references, the recall the share of
    reference labels that are predicted; both are 0 without predicted labels. The average is that of the two means, no
    F1.
    Reference: MERTools, MER2024's overlap rates.

    Args:
        ids: of the questions.
        references: reference labels, at least one per question.
        answers: predicted labels.
        groups: of the labels of each question; ``None`` where the judge failed: the sample is missing, not 0.
        note: footnote of the table: the judge.

    Raises:
        ValueError: the lists differ in length, or a question has no reference label.

    >>> scores = score_label_sets(["1"], [["happy", "sad"]], [["joyful"]], [[["happy", "joyful"], ["sad"]]])
    >>> [score.value for score in scores]
    [75.0, 100.0, 50.0]
    """
    names, shares = [], []
    for name, reference, answer, group in zip(ids, references, answers, groups, strict=True):
        if group is None:
            continue
        true, predicted = _merge_synonyms(reference, group), _merge_synonyms(answer, group)
        if not true:
            raise ValueError(f"{name}: there is no reference label; expected at least one: drop the sample.")
        names.append(name)
        shares.append(_overlap(true, predicted))
    table = np.asarray(shares, dtype=np.float64).reshape(len(shares), 2)
    size = len(ids)
    return [
        Score("ov_avg", tuple(names), table, np.ones_like(table), num_questions=size, note=note),
        Score.mean("ov_accuracy", names, table[:, 0].tolist(), num_questions=size, note=note),
        Score.mean("ov_recall", names, table[:, 1].tolist(), num_questions=size, note=note),
    ]


def _merge_synonyms(labels: Sequence[str], groups: Groups) -> set[str]:
    first: dict[str, str] = {}
    for group in groups:
        for label in group:
            first[_normalize(label)] = _normalize(group[0])
    return {first.get(_normalize(label), _normalize(label)) for label in labels}


def score_on_wheels(
    ids: Sequence[str],
    references: Sequence[Sequence[str]],
    answers: Sequence[Sequence[str]],
    wheels: Wheels | None = None,
) -> list[Score]:
    """Label sets -> agreement on emotion wheels in percent, on the inner and on the outer level; without a judge.

    Labels are mapped to sectors of a wheel. Labels that are not on it are dropped on both sides, and samples without
    reference sectors are excluded for that wheel. The score is the mean over the wheels of the F1 of mean precision and
    mean recall.
    Reference: MER2025 and AffectGPT (EW), with their wheels (``read_wheels``).

    Args:
        ids: of the questions.
        references: reference labels.
        answers: predicted labels.
        wheels: ``None``: the built-in ones, whose scores are not comparable with published ones.

    Raises:
        ValueError: the lists differ in length.

    >>> [score.value for score in score_on_wheels(["1"], [["happy", "neutral"]], [["joyful"]])]
    [100.0, 100.0]
    """
    wheels = wheels or built_in_wheels()
    rows = list(zip(ids, references, answers, strict=True))
    labels = list(chain.from_iterable([*reference, *answer] for _, reference, answer in rows))
    num_known = sum(bool(wheels.words.get(_normalize(label))) for label in labels)
    note = f"wheels: {wheels.source}; {num_known} of {len(labels)} labels are on them"
    scores = []
    for level in (1, 2):
        above = np.zeros((len(rows), 2 * len(wheels.levels)))
        below = np.zeros_like(above)
        for k, wheel in enumerate(wheels.levels):
            columns = slice(2 * k, 2 * k + 2)
            for index, (_, reference, answer) in enumerate(rows):
                true = wheels.sectors(reference, wheel, level)
                if true:
                    above[index, columns] = _overlap(true, wheels.sectors(answer, wheel, level))
                    below[index, columns] = 1
        scores.append(Score(f"ew_level{level}", tuple(ids), above, below, "harmonic", note=note))
    return scores


def group_by_wheel(
    labels: Iterable[str], wheel: str = "parrott", level: int = 2, wheels: Wheels | None = None
) -> Groups:
    """Group labels by their sector on a wheel, or else by their word; sorted.

    Raises:
        ValueError: the wheel is unknown.

    >>> group_by_wheel(["worried", "happy", "anxious", "serious", "joyful"])
    [['anxious', 'worried'], ['happy', 'joyful'], ['serious']]
    """
    wheels = wheels or built_in_wheels()
    if wheel not in wheels.levels:
        raise ValueError(f"wheel={wheel!r}: choose from {', '.join(wheels.levels)} ({wheels.source}).")
    groups: dict[str, list[str]] = {}
    for label in sorted({_normalize(label) for label in labels}):
        words = wheels.words.get(label) or (label,)
        sector = wheels.sector(label, wheel, level) or f"word {words[0]}"
        groups.setdefault(sector, []).append(label)
    return list(groups.values())


def parse_labels(answer: str) -> list[str]:
    """Parse the labels that an answer lists, lower case, unique: a JSON or Python list, lines, or enumerated words.

    Phrases of more than three words, or six Chinese characters, are dropped. Emotions of a full description must be
    extracted by a judge.

    >>> parse_labels("She feels happy, surprised and a bit sad."), parse_labels("['Happy', 'worried']")
    (['happy', 'surprised', 'sad'], ['happy', 'worried'])
    >>> parse_labels("她感到高兴、惊讶和有点难过。")
    ['高兴', '惊讶', '难过']
    """
    brackets = re.search(r"\[[^\[\]]*\]", answer)
    if brackets:
        items = _parse_list(brackets[0])
    else:
        text = re.sub(r"^[^:：\n]*[:：]", "", answer.strip())
        items = _SEPARATOR.split(text)
    labels = []
    for item in items:
        *_, label = re.split(rf"\b{_VERB}\s", _normalize(item))
        label = re.sub(rf"^(?:[-*•\d.)\s]|{_FILLER}\s)+", "", label).strip(" .*\"'“”")
        label = _CHINESE_FILLER.sub("", label)
        if re.search(r"[^\W\d_]", label) and count_words(label) <= 3:
            labels.append(label)
    return list(dict.fromkeys(labels))


def _parse_list(text: str) -> list[str]:
    for parse in (json.loads, ast.literal_eval):
        try:
            return [item for item in parse(text) if isinstance(item, str)]
        except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
            continue
    return _split_items(text)


def _split_items(text: str) -> list[str]:
    """Split a list as the official files write it: with or without brackets and quotes."""
    inner = text.strip().removeprefix("[").removesuffix("]")
    return [_normalize(item) for item in re.split(r"['\",]", inner) if item.strip()]


def _normalize(label: str) -> str:
    return label.strip().lower()


def _overlap(true: set[str], predicted: set[str]) -> tuple[float, float]:
    """Return precision and recall of a predicted set."""
    if not predicted:
        return 0.0, 0.0
    common = len(true & predicted)
    return common / len(predicted), common / len(true)


def _read_columns(file: Path, columns: Sequence[str]) -> list[list[str]]:
    """Read columns of a first sheet or of a csv file, stripped, in lower case; an empty cell is ``""``."""
    if not file.is_file():
        raise ValueError(f"{file}: there is no such file; set the folder `emotion_wheel` of MERTools.")
    head, *rows = _read_rows(file) or [[]]
    missing = [name for name in columns if name not in head]
    if missing:
        raise ValueError(f"{file}: the columns {missing} are missing; there are {head}.")
    positions = [head.index(name) for name in columns]
    cells = []
    for row in rows:
        if any(row):
            cells.append([_normalize(str(row[position] or "")) for position in positions])
    return cells


def _read_rows(file: Path) -> list[list[Any]]:
    if file.suffix == ".csv":
        with file.open(encoding="utf-8-sig", newline="") as lines:
            return list(csv.reader(lines))
    from openpyxl import load_workbook

    return [list(row) for row in load_workbook(file).worksheets[0].iter_rows(values_only=True)]
