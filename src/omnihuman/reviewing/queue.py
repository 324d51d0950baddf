"""The rows of a pipeline that wait for people, and the order in which people get them."""

import hashlib
import re
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from omnihuman.build import build, compose_config
from omnihuman.curation.folder import State, read_state, remove_from
from omnihuman.curation.pipeline import select_operators
from omnihuman.curation.store import read_partition
from omnihuman.operator.base import Row
from omnihuman.operator.review import Review
from omnihuman.operator.rows import locate
from omnihuman.operator.verdicts import (
    VERDICTS,
    Verdict,
    append_verdicts,
    count_people,
    find_file,
    group_latest,
    make_patch,
    read_verdicts,
    summarize,
    write_text,
)

NAME = re.compile(r"\w[\w .-]{0,39}")
"""Name of a person."""

LEASE_SECONDS = 600.0
"""Time for which a row that a person looks at is not given to the next one."""


@dataclass(frozen=True)
class Item:
    """A row that people judge.

    Attributes:
        key: its fingerprint.
        row: with the columns that people see, and its file.
    """

    key: str
    row: Row


@dataclass(frozen=True)
class Waiting:
    """The rows that have come to an operator.

    Attributes:
        state: of the folder.
        name: of the operator in the pipeline.
        review: the operator.
        items: one for each content, in the order in which people get them, which the keys draw.
        num_missing: partitions that have not come to it yet.
    """

    state: State
    name: str
    review: Review
    items: Sequence[Item]
    num_missing: int


def load_waiting(out: Path, name: str | None = None) -> Waiting:
    """Return the rows that people judge.

    Args:
        out: folder of the pipeline.
        name: of the operator; ``None``: the only one.

    Raises:
        ValueError: the pipeline has no such operator, or skips it, or no row has come to it yet.
    """
    state = read_state(out)
    nodes = select_operators(compose_config([*state.command], "curate").pipeline)
    names = [key for key, node in nodes.items() if node["_target_"].endswith(".Review")]
    if name is None and len(names) == 1:
        name = names[0]
    if name not in names:
        choices = f"choose {', '.join(names)}" if names else "no operator of it asks people"
        raise ValueError(f"operator={name}: {state.pipeline} in {out}: {choices}.")
    review = build({"pipeline": {"operators": {name: nodes[name]}}})["pipeline"]["operators"][name]
    if review.mode == "skip":
        raise ValueError(f"{out}: the last run has skipped {name}; give its command again with review=wait first.")
    items, num_missing = _read_items(state, find_level(state, name), review)
    if not items:
        command = " ".join(state.command)
        raise ValueError(f"{out}: no row has come to {name} yet; run omnihuman curate {command} first.")
    return Waiting(state, name, review, items, num_missing)


def find_level(state: State, name: str) -> int:
    """Return the number of the first level of an operator."""
    return next(number for number, level in enumerate(state.levels) if level[0] == name)


def _read_items(state: State, number: int, review: Review) -> tuple[list[Item], int]:
    """Return the rows, and the number of partitions that are not there."""
    items: dict[str, Item] = {}
    folders = [state.out / folder for _, folder, _ in state.levels[:number]]
    parts = [file.name for file in state.files(number - 1)]
    for part in parts:
        table = read_partition([folder / part for folder in folders], list(review.reads))
        for row in table.to_pylist():
            if row["status"] == "live" and review.asks_about(row):
                key = review.identify(row)
                items.setdefault(key, Item(key, locate(row, state.root, state.out)))
    ordered = sorted(items.values(), key=lambda item: hashlib.sha256(f"order {item.key}".encode()).digest())
    return ordered, state.num_parts - len(parts)


class Queue:
    """Gives rows to people and takes their verdicts; safe in threads.

    Args:
        waiting: the rows.

    Attributes:
        problems: a message for each line of the file that is no verdict.
    """

    def __init__(self, waiting: Waiting) -> None:
        self.waiting = waiting
        self.items = {item.key: item for item in waiting.items}
        self.file = find_file(waiting.state.out, waiting.review.name)
        self.verdicts, self.problems = read_verdicts(self.file)
        self.people = {key: judged for key, judged in group_latest(self.verdicts).items() if key in self.items}
        self._leases: dict[str, dict[str, float]] = {}
        self._lock = threading.Lock()

    def needs(self, key: str) -> int:
        """Return the number of people who judge a row."""
        return count_people(key, self.waiting.review.share)

    def next(self, reviewer: str) -> Item | None:
        """Return the next row for a person, ``None`` if there is none now.

        A row goes to as many people as it needs; one that somebody looks at counts for some time.
        """
        with self._lock:
            now = time.monotonic()
            for key, item in self.items.items():
                judged = self.people.get(key, {})
                leases = self._leases.setdefault(key, {})
                watching = [name for name, end in leases.items() if end > now and name not in (reviewer, *judged)]
                if reviewer not in judged and len(judged) + len(watching) < self.needs(key):
                    leases[reviewer] = now + LEASE_SECONDS
                    return item
            return None

    def judge(self, reviewer: str, key: str, verdict: str, values: Mapping[str, Any], seconds: float | None) -> Verdict:
        """Write a verdict to the file, and return it once it is on the disk.

        Args:
            reviewer: name of the person.
            key: of the row.
            verdict: one of ``VERDICTS``.
            values: column -> new value, of an edit.
            seconds: that the person has looked at it.

        Raises:
            ValueError: there is no such row or verdict, an edit changes nothing, or a value has another form.
        """
        if not isinstance(reviewer, str) or not NAME.fullmatch(reviewer):
            raise ValueError("Give your name: letters, digits, spaces, dots and hyphens, at most 40.")
        if key not in self.items or verdict not in VERDICTS:
            raise ValueError("There is no such row; reload the page.")
        item = self.items[key]
        edits = {}
        for column, value in values.items() if verdict == "edit" else ():
            old = item.row[column] if column in self.waiting.review.edit else None
            check_value(self.waiting.review.edit.get(column), column, value)
            if patch := make_patch(write_text(old), write_text(value)):
                edits[column] = patch
        if verdict == "edit" and not edits:
            raise ValueError("Nothing has changed: change a text, or accept the row as it is.")
        with self._lock:
            revised = reviewer in self.people.get(key, {})
            moment = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
            result = Verdict(key, item.row["id"], reviewer, verdict, edits, moment, seconds, revised)
            self.add([result])
            return result

    def add(self, verdicts: Sequence[Verdict]) -> None:
        """Append verdicts to the file; what the pipeline has made of earlier ones is removed."""
        append_verdicts(self.file, verdicts)
        state = read_state(self.waiting.state.out)  # of the last run, which may be a later one
        remove_from(state, find_level(state, self.waiting.name))
        self.verdicts += verdicts
        for verdict in verdicts:
            people = self.people.setdefault(verdict.key, {})
            people.pop(verdict.reviewer, None)
            people[verdict.reviewer] = verdict

    def count(self, reviewer: str = "") -> dict[str, Any]:
        """Return how many rows are judged by enough people, wait for a second person, and are judged by one."""
        done = second = mine = 0
        for key in self.items:
            judged = self.people.get(key, {})
            done += len(judged) >= self.needs(key)
            second += 0 < len(judged) < self.needs(key)
            mine += reviewer in judged
        return {"rows": len(self.items), "done": done, "second": second, "mine": mine}

    def summarize(self) -> dict[str, Any]:
        """Return the account of the verdicts on the rows that are there."""
        return summarize([verdict for verdict in self.verdicts if verdict.key in self.items])


def check_value(kind: str | None, column: str, value: Any) -> None:
    """Check the new value of a column.

    Raises:
        ValueError: it cannot be edited, is empty, or has another form.
    """
    is_text = isinstance(value, str) and bool(value.strip())
    is_list = isinstance(value, list) and bool(value)
    fits = {
        "text": is_text,
        "texts": is_list and all(isinstance(text, str) and text.strip() for text in value),
        "pairs": is_list and all(_is_pair(pair) for pair in value),
    }
    if not fits.get(str(kind), False):
        raise ValueError(f"{column}: a text is empty; reject the row if nothing in it is right.")


def _is_pair(pair: Any) -> bool:
    is_pair = isinstance(pair, dict) and set(pair) == {"question", "answer"}
    return is_pair and all(isinstance(text, str) and text.strip() for text in pair.values())
