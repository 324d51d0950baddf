"""Splits of annotated clips: by name, or an assignment that balances labels and keeps people apart."""

import random
from collections import Counter
from collections.abc import Hashable, Iterable, Sequence
from typing import Any

from omnihuman.source.annotation import AnnotatedRecord
from omnihuman.source.root import SPLITS

SPLIT_NAMES = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "dev": "val",
    "devel": "val",
    "development": "val",
    "test": "test",
    "testing": "test",
}
"""Name of a split in a data set, in lower case -> ours."""


def parse_splits(names: Iterable[str | None]) -> list[str]:
    """Return our names of the splits of a data set.

    >>> parse_splits(["Train", "dev"])
    ['train', 'val']

    Raises:
        ValueError: a name is unknown.
    """
    texts = list(map(str, names))
    counts = Counter(texts)
    unknown = [f"{name} ({count})" for name, count in counts.items() if name.lower() not in SPLIT_NAMES]
    if unknown:
        raise ValueError(
            f"split: unknown names {', '.join(unknown[:8])}; expected {', '.join(SPLIT_NAMES)}. Rename them in the "
            "table, or leave split= out for an assignment by fractions."
        )
    return [SPLIT_NAMES[text.lower()] for text in texts]


def check_people(items: Sequence[AnnotatedRecord], splits: Sequence[str]) -> None:
    """Check that nobody is in two splits of a data set.

    Raises:
        ValueError: somebody is.
    """
    firsts: dict[str, tuple[str, str]] = {}
    shared = dict[str, str]()
    for item, split in zip(items, splits, strict=True):
        person, place = item.annotation.person, item.annotation.place
        if person is None:
            continue
        first, first_place = firsts.setdefault(person, (split, place))
        if split != first:
            shared.setdefault(person, f"{person} is in {first} ({first_place}) and {split} ({place})")
    if shared:
        raise ValueError(
            f"person: {len(shared)} people are in several splits: {'; '.join(list(shared.values())[:3])}. Correct the "
            "splits, or leave split= out: people are then kept apart."
        )


def parse_fractions(fractions: Any) -> list[float]:
    """Return the shares of train, val and test.

    Raises:
        ValueError: they are not three shares that sum to 1.
    """
    values = list(fractions) if isinstance(fractions, Sequence) and not isinstance(fractions, str) else []
    is_share = all(isinstance(value, int | float) and 0 <= value <= 1 for value in values)
    if len(values) != len(SPLITS) or not is_share or abs(sum(values) - 1) > 1e-6:
        raise ValueError(f"fractions={fractions}: expected the shares of train, val and test, as [0.8,0.1,0.1].")
    return [float(value) for value in values]


def assign_splits(items: Sequence[AnnotatedRecord], fractions: Sequence[float], seed: int) -> list[str]:
    """Return the split of every record; records of a file or a person are in the same one.

    Groups are assigned one by one, the largest first, to the split where they reduce most the squared distance to the
    number of records that each label should have there.

    Args:
        items: the records.
        fractions: shares of train, val and test.
        seed: of the order of equally large groups.
    """
    labels = [item.annotation.answer if _has_options(item) else "" for item in items]
    groups = _join_groups([_list_keys(item) for item in items])
    random.Random(seed).shuffle(groups)
    groups.sort(key=len, reverse=True)  # stable
    shares = {split: fraction for split, fraction in zip(SPLITS, fractions, strict=True) if fraction > 0}
    totals = Counter(labels)
    missing: dict[str, dict[str, float]] = {}
    for split, share in shares.items():
        missing[split] = {label: share * count for label, count in totals.items()}
    splits = [""] * len(items)
    for group in groups:
        counts = Counter(labels[index] for index in group)
        gains = dict[str, tuple[float, float]]()
        for split, numbers in missing.items():
            gain = sum(count * (2 * numbers[label] - count) for label, count in counts.items())
            gains[split] = (round(gain, 9), round(sum(numbers.values()), 9))  # of equal gains, the emptiest split
        best = max(gains, key=lambda split: gains[split])
        for label, count in counts.items():
            missing[best][label] -= count
        for index in group:
            splits[index] = best
    return splits


def _has_options(item: AnnotatedRecord) -> bool:
    return item.raw is not None and "options" in item.raw.get("meta", {})


def _list_keys(item: AnnotatedRecord) -> list[Hashable]:
    """Return what ties a record to others: its files and its person."""
    keys: list[Hashable] = [("file", file) for file in item.files]
    if item.annotation.person is not None:
        keys.append(("person", item.annotation.person))
    return keys


def _join_groups(keys: Sequence[Sequence[Hashable]]) -> list[list[int]]:
    """Return the indices of members that share a key, directly or through others, in the order of their first.

    >>> _join_groups([["a"], ["b"], ["b", "a"], ["c"]])
    [[0, 1, 2], [3]]
    """
    parents = list(range(len(keys)))

    def find(index: int) -> int:
        while parents[index] != index:
            index = parents[index]
        return index

    firsts: dict[Hashable, int] = {}
    for index, names in enumerate(keys):
        for name in names:
            first, other = sorted((find(firsts.setdefault(name, index)), find(index)))
            parents[other] = first
    groups: dict[int, list[int]] = {}
    for index in range(len(keys)):
        groups.setdefault(find(index), []).append(index)
    return list(groups.values())
