"""The folder of features: its limit, what makes room, and what is removed."""

import os
import time
from pathlib import Path

import pytest
import torch

from omnihuman.data.feature_store import NOTES, FeatureStore
from omnihuman.types import Features

KEYS = [f"{number:064x}" for number in range(6)]
FEATURES = Features(torch.zeros(1, 1, 4, 64), torch.ones(1, 1, 4, dtype=torch.bool))


@pytest.fixture
def size(tmp_path: Path) -> int:
    """Return the bytes of an entry."""
    store = FeatureStore(tmp_path / "other")
    store.save(KEYS[0], FEATURES, [])
    (entry,) = store.list_entries()
    return entry.size


def fill(folder: Path, *keys: str) -> None:
    """Save entries, the first one used least recently, long ago."""
    store = FeatureStore(folder)
    for number, key in enumerate(keys):
        store.save(key, FEATURES, [])
        os.utime(store._path(key), (1000.0 + number, 1000.0))


def list_keys(store: FeatureStore) -> set[str]:
    return {entry.path.name for entry in store.list_entries()}


def test_features_that_were_used_least_recently_make_room(tmp_path: Path, size: int) -> None:
    fill(tmp_path, *KEYS[:3])
    store = FeatureStore(tmp_path, 3.5 * size)
    assert store.load(KEYS[0]) is not None
    assert store.save(KEYS[3], FEATURES, [])
    assert list_keys(store) == {KEYS[0], KEYS[2], KEYS[3]}
    assert store.has(KEYS[2]) and store.save(KEYS[4], FEATURES, []) is False
    assert list_keys(store) == {KEYS[0], KEYS[2], KEYS[3]}, "all of them were used since the store was opened"


def test_a_lower_limit_is_reached_at_once(tmp_path: Path, size: int) -> None:
    fill(tmp_path, *KEYS[:5])
    store = FeatureStore(tmp_path, 2 * size)
    assert store.save(KEYS[5], FEATURES, [])
    assert list_keys(store) == {KEYS[4], KEYS[5]}


def test_entries_of_other_processes_count(tmp_path: Path, size: int) -> None:
    first, second = FeatureStore(tmp_path, 3 * size), FeatureStore(tmp_path, 3 * size)
    assert first.save(KEYS[0], FEATURES, []) and second.save(KEYS[1], FEATURES, [])
    assert second.save(KEYS[2], FEATURES, []) and not second.save(KEYS[3], FEATURES, [])


def test_without_a_limit_nothing_is_removed(tmp_path: Path) -> None:
    fill(tmp_path, *KEYS)
    assert list_keys(FeatureStore(tmp_path)) == set(KEYS)


def test_the_time_of_writing_stays_when_features_are_used(tmp_path: Path) -> None:
    fill(tmp_path, KEYS[0])
    store = FeatureStore(tmp_path)
    store.has(KEYS[0])
    stat = store._path(KEYS[0]).stat()
    assert stat.st_mtime == 1000 and stat.st_atime > time.time() - 100


def test_removal_spares_other_files(tmp_path: Path, size: int) -> None:
    folder, media = tmp_path / "features", tmp_path / "clip.mp4"
    fill(folder, *KEYS[:3])
    store = FeatureStore(folder)
    media.write_bytes(b"clip")
    store.hash_content(media)
    (folder / "00" / "notes.txt").write_text("mine")
    (folder / "00" / f"{KEYS[0]}.1.partial").touch()
    assert store.remove(unused_since=1001.5) == (2, 2 * size)
    assert list_keys(store) == {KEYS[2]} and list(folder.glob(f"{NOTES}/??/*"))
    assert store.remove() == (1, size) and not list_keys(store)
    assert [path.name for path in folder.rglob("*") if path.is_file()] == ["notes.txt"] and media.is_file()
