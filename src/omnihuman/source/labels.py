"""Labels: the classes among the answers of a data set, or free text."""

import itertools
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any

from omnihuman.data.record import BadSample
from omnihuman.metric.chinese import count_words

FREE_TEXT = "open"
"""Value of ``options`` for answers that are no classes."""

MAX_LABELS = 30
MAX_WORDS = 4
"""Most classes, and most words of one, that are recognised without ``options``."""


@dataclass(frozen=True, slots=True)
class Labels:
    """The classes of a data set.

    Attributes:
        names: of the classes, in the order of the question; ``None`` for free text.
        codes: what the data set writes -> the class, where they differ.
    """

    names: tuple[str, ...] | None
    codes: Mapping[str, str] = field(default_factory=dict)

    def parse(self, answer: str) -> str:
        """Return the class that an answer names, or the answer itself where it is free text.

        Raises:
            BadSample: it is empty, or no class.
        """
        if not answer:
            raise BadSample("empty_answer", "the answer is empty.")
        if self.codes:
            known, label = list(self.codes), self.codes.get(answer)
        else:
            known, label = list(self.names or ()), answer
        if self.names is not None and label not in self.names:
            near = get_close_matches(answer, known, 1, 0.6)
            cure = f"did you mean {near[0]!r}?" if near else f"the options are {', '.join(known)}."
            raise BadSample("unknown_label", f"the answer {answer!r:.80} is none of the options; {cure}")
        return str(label)


def find_labels(answers: Sequence[str], options: Any = None, *, is_question_fixed: bool = True) -> Labels:
    """Return the classes of a data set.

    Args:
        answers: of all its clips; empty ones do not count.
        options: a list of classes; a mapping from what the data set writes to the class; ``open`` for free text; or
            ``None``: the answers are classes if they are few and short, some repeat, and all belong to one question.
        is_question_fixed: all clips have the same question.

    Raises:
        ValueError: the options are of another type or repeat, or classes differ by upper and lower case alone.

    >>> find_labels(["sad", "joy", "sad"]).names, find_labels(["Dan is sad.", "Eve smiles."]).names
    (('joy', 'sad'), None)
    """
    if options == FREE_TEXT:
        return Labels(None)
    if options is not None:
        return _parse_options(options)
    counts = Counter(answer for answer in answers if answer)
    is_short = all(count_words(answer) <= MAX_WORDS for answer in counts)
    if not is_question_fixed or not is_short or len(counts) > MAX_LABELS or len(counts) == counts.total():
        return Labels(None)
    names = tuple(sorted(counts, key=lambda name: (name.casefold(), name)))
    for first, second in itertools.pairwise(names):
        if first.casefold() == second.casefold():
            raise ValueError(
                f"answer: {first!r} ({counts[first]}) and {second!r} ({counts[second]}) differ by case alone; write "
                f"them alike, or name both in options={{{first}: {second}, {second}: {second}, ...}}."
            )
    return Labels(names)


def _parse_options(options: Any) -> Labels:
    if isinstance(options, Mapping):
        codes = {str(code): str(label) for code, label in options.items()}
        labels = Labels(tuple(dict.fromkeys(codes.values())), codes)
    elif isinstance(options, Sequence) and not isinstance(options, str):
        labels = Labels(tuple(map(str, options)))
    else:
        raise ValueError(
            f"options={options}: expected a list, as [joy,anger]; codes with their classes, as {{0: joy, 1: anger}}; "
            f"{FREE_TEXT} for free text; or null."
        )
    names = labels.names or ()
    if len(names) < 2 or len(set(names)) < len(names) or not all(names):
        raise ValueError(f"options={options}: expected two or more different classes.")
    return labels
