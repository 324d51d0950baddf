"""Blocks of entries: in order for any number of processes, with their errors, and no process that is left."""

import gc
import multiprocessing
import os
from collections.abc import Iterator
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import pytest

from omnihuman.data.plan.blocks import map_blocks, read_blocks
from omnihuman.data.record import BadSample, Entry
from omnihuman.source.jsonl import JsonlSource
from tests.data.conftest import write_records

NUMBERS = [1, 2, 3, 7]


class Numbers:
    """A source without records of its own kind: errors with a number each."""

    location = "numbers"

    def records(self) -> Iterator[Entry]:
        yield from ((str(number), BadSample("bad", "")) for number in range(10))


def read_names(block: list[Any]) -> tuple[list[str], int]:
    return [entry[0] for entry in block], os.getpid()


@pytest.mark.parametrize("num_processes", NUMBERS)
def test_blocks_are_in_order(num_processes: int, tmp_path: Path) -> None:
    finished = tmp_path / "finished"
    finished.touch()

    def finish() -> None:
        with finished.open("a") as lines:
            lines.write("1\n")

    read = partial(read_blocks, Numbers(), 3)
    results = list(map_blocks(read, read_names, num_processes, finish))
    assert [names for names, _ in results] == [["0", "1", "2"], ["3", "4", "5"], ["6", "7", "8"], ["9"]]
    assert len({process for _, process in results}) == min(num_processes, 4)
    assert len(finished.read_text().split()) == num_processes
    assert not multiprocessing.active_children() and gc.get_threshold()[0] < 10**5


@pytest.mark.parametrize("num_processes", NUMBERS)
def test_the_first_error_counts(num_processes: int) -> None:
    def fail(block: list[Any]) -> str:
        if block[0][0] in "36":
            raise BadSample("late", f"block of {block[0][0]}")
        return "".join(name for name, _ in block)

    results = map_blocks(partial(read_blocks, Numbers(), 3), fail, num_processes, lambda: None)
    assert next(results) == "012"
    with pytest.raises(BadSample, match="block of 3"):
        next(results)
    assert not multiprocessing.active_children()


def test_a_process_that_ends_is_an_error() -> None:
    results = map_blocks(partial(read_blocks, Numbers(), 3), lambda block: os._exit(9), 2, lambda: None)
    with pytest.raises(ChildProcessError, match="choose fewer processes"):
        next(results)


def test_who_stops_reading_leaves_no_process() -> None:
    results = map_blocks(partial(read_blocks, Numbers(), 1), lambda block: b"0" * 10**6, 3, lambda: None)
    next(results)
    results.close()  # type: ignore[attr-defined]
    assert not multiprocessing.active_children()


def test_entries_between_blocks_are_not_parsed(
    media_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = JsonlSource(write_records(tmp_path / "a.jsonl", 9, broken=5), media_root)
    expected = list(source.records())
    parsed = list[str]()
    parse = JsonlSource.parse_raw
    monkeypatch.setattr(JsonlSource, "parse_raw", lambda self, raw: parsed.append(raw[0]) or parse(self, raw))
    blocks = list(read_blocks(source, 2, 1, 2))
    assert list(map(str, chain.from_iterable(blocks))) == [str(expected[number]) for number in (2, 3, 6, 7)]
    assert [place.rpartition(":")[2] for place in parsed] == ["3", "4", "7", "8"]
