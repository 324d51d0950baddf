"""Splits by name and by assignment."""

from collections import Counter
from typing import Any

import pytest

from omnihuman.source.annotation import AnnotatedRecord, Annotation
from omnihuman.source.splits import assign_splits, check_people, parse_fractions, parse_splits

FRACTIONS = (0.8, 0.1, 0.1)


def build_item(file: str, label: str = "joy", person: str | None = None, *, is_class: bool = True) -> AnnotatedRecord:
    raw = {"video": file} | ({"meta": {"options": ["joy", "anger"]}} if is_class else {})
    return AnnotatedRecord(Annotation(f"row of {file}", label, person=person), raw)


def test_names_of_splits_are_ours() -> None:
    assert parse_splits(["TRAIN", "training", "dev", "Validation", "test"]) == ["train", "train", "val", "val", "test"]
    with pytest.raises(ValueError, match=r"fold1 \(2\), 2 \(1\); .*train, .*fractions"):
        parse_splits(["fold1", "train", "2", "fold1"])


def test_a_person_in_two_splits_is_named_with_both_places() -> None:
    items = [build_item("a", person="Ann"), build_item("b", person="Bob"), build_item("c", person="Ann")]
    check_people(items, ["train", "test", "train"])
    with pytest.raises(ValueError, match=r"1 people .*Ann .*train \(row of a\) and test \(row of c\)"):
        check_people(items, ["train", "train", "test"])
    check_people([build_item("a"), build_item("b")], ["train", "test"])


def test_labels_have_their_shares_in_every_split() -> None:
    labels = ["joy"] * 70 + ["anger"] * 20 + ["calm"] * 10
    items = [build_item(f"{number}.mp4", label) for number, label in enumerate(labels)]
    counts = Counter(zip(labels, assign_splits(items, FRACTIONS, 0), strict=True))
    for label, numbers in {"joy": (56, 7, 7), "anger": (16, 2, 2), "calm": (8, 1, 1)}.items():
        assert tuple(counts[label, split] for split in ("train", "val", "test")) == numbers


def test_the_seed_decides_and_nothing_else() -> None:
    items = [build_item(f"{number}.mp4") for number in range(30)]
    splits = [assign_splits(items, FRACTIONS, seed) for seed in (0, 0, 1)]
    assert splits[0] == splits[1] != splits[2] and Counter(splits[0]) == {"train": 24, "val": 3, "test": 3}


def test_records_of_a_file_or_a_person_are_together() -> None:
    items = []
    for number in range(60):
        items.append(build_item(f"{number // 2}.mp4", ["joy", "anger"][number % 2], f"person {number // 5}"))
    splits = assign_splits(items, (0.5, 0.3, 0.2), 0)
    for key in (lambda item: item.files, lambda item: item.annotation.person):
        pairs = {(key(item), split) for item, split in zip(items, splits, strict=True)}
        assert len(pairs) == len({name for name, _ in pairs})
    # people 0 and 1 share a file, and so on: six groups of ten
    assert Counter(splits) == {"train": 30, "val": 20, "test": 10}


def test_a_split_without_a_share_is_empty() -> None:
    items = [build_item(f"{number}.mp4", is_class=False, label=str(number)) for number in range(7)]
    assert set(assign_splits(items, (0.0, 0.0, 1.0), 0)) == {"test"}
    assert Counter(assign_splits(items, (0.7, 0.3, 0.0), 0)) == {"train": 5, "val": 2}


@pytest.mark.parametrize("fractions", [[0.8, 0.2], [0.8, 0.1, 0.2], [1.5, -0.5, 0], "0.8", ["a", 0, 1], 0.8])
def test_fractions_must_be_three_shares(fractions: Any) -> None:
    with pytest.raises(ValueError, match=r"fractions="):
        parse_fractions(fractions)
