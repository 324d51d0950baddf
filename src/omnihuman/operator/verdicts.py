"""Verdicts of people on rows: a file that only grows, and what the verdicts of several people amount to."""

import fcntl
import hashlib
import json
import math
import os
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from difflib import SequenceMatcher
from pathlib import Path
from typing import Any

VERDICTS = ("accept", "edit", "reject", "unsure")
FOLDER = "reviews"
"""Folder of the files below ``out``, one for each operator that asks people."""

Patch = Sequence[tuple[int, int, str]]
"""Replacements in a text: first and last character, and what is there instead."""

TOKEN = re.compile(r"\w+|\s+|[^\w\s]")


@dataclass(frozen=True)
class Verdict:
    """A line of the file.

    Attributes:
        key: fingerprint of the row's content; a row that is made anew with another content has no verdict.
        id: of the row.
        reviewer: name of the person.
        verdict: one of ``VERDICTS``.
        edits: column -> changes of its text.
        time: of the verdict, ISO 8601 in UTC.
        seconds: that the person has looked at it.
        revised: the person had given one before, and has seen the columns that are hidden until then.
    """

    key: str
    id: str
    reviewer: str
    verdict: str
    edits: Mapping[str, Patch] = field(default_factory=dict)
    time: str = ""
    seconds: float | None = None
    revised: bool = False


def find_file(out: Path, name: str) -> Path:
    """Return the file of the verdicts of an operator, by the name of its columns."""
    return out / FOLDER / f"{name}.jsonl"


def read_verdicts(file: Path) -> tuple[list[Verdict], list[str]]:
    """Return the verdicts of a file in their order, and a message for each line that is none, as kills may leave."""
    verdicts, problems = [], []
    content = file.read_bytes() if file.is_file() else b""
    for number, line in enumerate(content.split(b"\n"), start=1):
        if not line.strip():
            continue
        try:
            verdicts.append(_parse(json.loads(line)))
        except (ValueError, TypeError, KeyError, AttributeError):
            problems.append(f"{file}: line {number} is no verdict, and is passed over: {line[:60]!r}")
    return verdicts, problems


def _parse(raw: Mapping[str, Any]) -> Verdict:
    edits = {column: _parse_patch(patch) for column, patch in raw["edits"].items()}
    verdict = Verdict(**{**raw, "edits": edits})
    if verdict.verdict not in VERDICTS or not isinstance(verdict.key, str) or not isinstance(verdict.reviewer, str):
        raise ValueError(verdict)
    return verdict


def _parse_patch(raw: Sequence[Any]) -> Patch:
    return [(int(begin), int(end), str(text)) for begin, end, text in raw]


def append_verdicts(file: Path, verdicts: Iterable[Verdict]) -> None:
    """Append verdicts to a file, and return once they are on the disk; a line that a kill has cut off stays alone."""
    file.parent.mkdir(parents=True, exist_ok=True)
    text = "".join(json.dumps(asdict(verdict), ensure_ascii=False) + "\n" for verdict in verdicts)
    with file.open("ab+") as content:
        fcntl.flock(content, fcntl.LOCK_EX)
        if content.seek(0, os.SEEK_END):
            content.seek(-1, os.SEEK_END)
            if content.read(1) != b"\n":
                text = f"\n{text}"
        content.write(text.encode())
        content.flush()
        os.fsync(content.fileno())


def group_latest(verdicts: Iterable[Verdict]) -> dict[str, dict[str, Verdict]]:
    """Return the last verdict of each reviewer on each row, by the row's key, in the order of these verdicts."""
    groups: dict[str, dict[str, Verdict]] = {}
    for verdict in verdicts:
        people = groups.setdefault(verdict.key, {})
        people.pop(verdict.reviewer, None)
        people[verdict.reviewer] = verdict
    return groups


def count_people(key: str, share: float) -> int:
    """Return the number of people who judge a row: two for a share of the rows, which the keys draw."""
    draw = int(hashlib.sha256(key.encode()).hexdigest()[:8], 16) / 2**32
    return 2 if draw < share else 1


def conclude(verdicts: Mapping[str, Verdict]) -> str:
    """Return what the verdicts of people on a row amount to: a row stays if all of them accept or edit it.

    >>> conclude({"a": Verdict("k", "i", "a", "accept"), "b": Verdict("k", "i", "b", "reject")})
    'disputed'
    """
    kinds = {verdict.verdict for verdict in verdicts.values()}
    if kinds <= {"accept", "edit"}:
        return "edited" if "edit" in kinds else "accepted"
    if len(kinds) > 1:
        return "disputed"
    return "rejected" if kinds == {"reject"} else "unsure"


def make_key(row_id: str, values: Mapping[str, Any]) -> str:
    """Return the fingerprint of a row, by its id and the columns that people see."""
    content = json.dumps([row_id, dict(values)], sort_keys=True, default=str)
    return hashlib.sha256(content.encode()).hexdigest()[:20]


def make_patch(old: str, new: str) -> list[tuple[int, int, str]]:
    """Return the changes from a text to another, whole words at a time.

    >>> make_patch("she smiles a lot", "she cries a lot")
    [(4, 10, 'cries')]
    """
    before, after = TOKEN.findall(old), TOKEN.findall(new)
    places = [0]
    for token in before:
        places.append(places[-1] + len(token))
    patch = []
    for kind, first, last, begin, end in SequenceMatcher(None, before, after, autojunk=False).get_opcodes():
        if kind != "equal":
            patch.append((places[first], places[last], "".join(after[begin:end])))
    return patch


def apply_patch(old: str, patch: Patch) -> str:
    """Return the changed text.

    >>> apply_patch("she smiles a lot", [(4, 10, "cries")])
    'she cries a lot'
    """
    text = old
    for begin, end, replacement in reversed(patch):
        text = text[:begin] + replacement + text[end:]
    return text


def write_text(value: Any) -> str:
    """Return the text of a column's value, which changes are made to: a text itself, other values as JSON."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, indent=1)


def edit_value(old: Any, patch: Patch) -> Any:
    """Return the changed value of a column."""
    text = apply_patch(write_text(old), patch)
    return text if isinstance(old, str) else json.loads(text)


def summarize(verdicts: Sequence[Verdict]) -> dict[str, Any]:
    """Return how many rows people have judged, how, and how far two of them agree.

    Of a row that was made anew only the verdicts on its last content count. ``kappa`` is Cohen's, of the first verdicts
    of two people on a row, before they saw what is hidden; ``None`` where it is not defined.
    """
    current = {verdict.id: verdict.key for verdict in verdicts}
    valid = [verdict for verdict in verdicts if current[verdict.id] == verdict.key]
    groups = group_latest(valid)
    first = group_latest(reversed(valid))  # the latest from the end
    ends = Counter(conclude(people) for people in groups.values())
    people = Counter[str]()
    pairs = []
    for key, judged in first.items():
        people.update(groups[key].keys())
        if len(judged) > 1:
            pairs.append([judged[name].verdict for name in sorted(judged)[:2]])
    return {
        "verdicts": len(valid),
        "rows": len(groups),
        **{end: ends[end] for end in ("accepted", "edited", "rejected", "unsure", "disputed")},
        "people": dict(sorted(people.items())),
        "judged_twice": len(pairs),
        "kappa": compute_kappa(pairs),
    }


def compute_kappa(pairs: Sequence[Sequence[str]]) -> float | None:
    """Return Cohen's kappa of two verdicts on each row; ``None`` without rows, or where chance alone agrees on all.

    >>> compute_kappa([("accept", "accept"), ("accept", "reject"), ("reject", "reject"), ("reject", "reject")])
    0.5
    """
    if not pairs:
        return None
    import torch
    from torchmetrics.functional.classification import multiclass_cohen_kappa

    first, second = (torch.tensor(list(map(VERDICTS.index, judged))) for judged in zip(*pairs, strict=True))
    kappa = float(multiclass_cohen_kappa(first, second, num_classes=len(VERDICTS)))
    return round(kappa, 4) if math.isfinite(kappa) else None
