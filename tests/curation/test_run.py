"""Partitions: the same rows in any partition, batch, process and slice, each once, whatever fails or is killed."""

import os
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from omnihuman.curation import store
from omnihuman.curation.folder import read_state, remove_old, retry, write_state
from omnihuman.curation.pipeline import Pipeline
from omnihuman.curation.run import apply_batches
from omnihuman.operator.base import Dropped, Failed, Operator, Outcome, Row, columns
from tests.curation.conftest import NUM_CLIPS, build_on, compose_operator, read_rows, run_here

COLUMNS = ("short_side", "keyframes", "subset", "num_records")


def list_nodes(**options: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return a pipeline that drops, fails, decides on all rows and writes; options are those of operators."""
    nodes = {
        "probe": compose_operator("probe"),
        "small": compose_operator("filter", conditions=[{"column": "height", "most": 64, "why": "too_large"}]),
        "faces": compose_operator("faces", boxes="truth"),
        "sample": compose_operator("sample", size=2, strata=["short_side"]),
        "write": compose_operator("write"),
    }
    return {name: {**node, **options.get(name, {})} for name, node in nodes.items()}


def count_ends(rows: Sequence[Row]) -> Counter[tuple[str, str | None, str | None]]:
    return Counter((row["status"], row["operator"], row["why"]) for row in rows)


@pytest.fixture(scope="module")
def expected(clips: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Row]:
    return read_rows(run_here(build_on(clips, list_nodes(), tmp_path_factory.mktemp("one") / "out", 100)), *COLUMNS)


def test_every_row_is_live_dropped_or_failed(expected: list[Row]) -> None:
    ends = count_ends(expected)
    assert sum(ends.values()) == NUM_CLIPS
    assert ends["failed", "probe", "unreadable"] == 1
    assert ends["dropped", "small", "too_large"] == 1
    assert ends["live", None, None] == 4


def test_equal_files_have_equal_ids(expected: list[Row]) -> None:
    ids = {row["source"]: row["id"] for row in expected}
    assert ids["0.mp4"] == ids["5.mp4"] and len(set(ids.values())) == NUM_CLIPS - 1


@pytest.mark.parametrize(("partition_size", "batch_size"), [(1, 16), (4, 1)])
def test_partitions_and_batches_do_not_matter(
    clips: Path, tmp_path: Path, expected: list[Row], partition_size: int, batch_size: int
) -> None:
    pipeline = build_on(clips, list_nodes(), tmp_path / "out", partition_size, batch_size=batch_size)
    assert read_rows(run_here(pipeline), *COLUMNS) == expected


def test_slices_give_the_same_rows(clips: Path, tmp_path: Path, expected: list[Row]) -> None:
    pipeline = build_on(clips, list_nodes(), tmp_path / "out", 2)
    with pytest.raises(ValueError, match=r"sample .* 1 of them.*wait="):
        run_here(pipeline, [0, 2])
    with pytest.raises(ValueError, match=r"write .* 2 of them"):
        run_here(pipeline, [1])
    run_here(pipeline, [0, 2])
    run_here(pipeline, [1])
    assert read_rows(pipeline, *COLUMNS) == expected


def run_slowly(pipeline: Pipeline) -> None:
    """Run a pipeline in a process that takes its time for every file, so that a kill comes in between."""

    def wait(path: Path, content: Any) -> None:
        time.sleep(0.05)
        write(path, content)

    write = store.write_whole
    store.write_whole = wait
    run_here(pipeline)


def test_a_killed_run_goes_on_with_every_row_once(clips: Path, tmp_path: Path, expected: list[Row]) -> None:
    pipeline = build_on(clips, list_nodes(), tmp_path / "out", 2)
    num_files = []
    for number in range(4):
        process = get_context("fork").Process(target=run_slowly, args=(pipeline,))
        process.start()
        process.join(0.15 + 0.1 * number)
        process.kill()
        process.join()
        num_files.append(len(list((tmp_path / "out").rglob("part-*.parquet"))))
    assert num_files == sorted(num_files)
    assert read_rows(run_here(pipeline), *COLUMNS) == expected


def test_finished_partitions_are_not_written_again(clips: Path, tmp_path: Path) -> None:
    pipeline = run_here(build_on(clips, list_nodes(), tmp_path / "out"))
    times = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("part-*")}
    run_here(pipeline)
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("part-*")} == times


def test_a_changed_option_computes_what_follows(clips: Path, tmp_path: Path) -> None:
    first = run_here(build_on(clips, list_nodes(), tmp_path / "out"))
    second = build_on(clips, list_nodes(faces={"max_gap": 2.0}), tmp_path / "out")
    names = [level.folder.name for level in first.levels]
    changed = [level.name for level, name in zip(second.levels, names, strict=True) if level.folder.name != name]
    assert set(changed) == {"faces", "sample", "write"}
    run_here(second)
    write_state(second, ["out=x"])
    assert set(remove_old(tmp_path / "out")) == {
        name for name in names if name.partition("-")[2][:5] in "faces sampl write"
    }
    assert len(read_rows(second)) == NUM_CLIPS


def test_failed_rows_are_taken_up_again(clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pipeline = build_on(clips, list_nodes(), tmp_path / "out", 2)
    write_state(pipeline, ["out=x"])
    probe = type(pipeline.levels[1].operator)
    monkeypatch.setattr(probe, "_probe", lambda operator, row: Failed("timeout"))
    assert count_ends(read_rows(run_here(pipeline)))["failed", "probe", "timeout"] == NUM_CLIPS
    monkeypatch.undo()
    with pytest.raises(ValueError, match=r"why=nothing.*timeout"):
        retry(tmp_path / "out", "nothing")
    assert retry(tmp_path / "out", "timeout") == NUM_CLIPS
    assert read_state(tmp_path / "out").files(0) and not read_state(tmp_path / "out").files(1)
    assert count_ends(read_rows(run_here(pipeline)))["live", None, None] == 4


def test_too_many_failures_stop_with_reasons(clips: Path, tmp_path: Path) -> None:
    pipeline = build_on(clips, list_nodes(), tmp_path / "out", 100, max_failed=0.1)
    with pytest.raises(ValueError, match=r"probe .* 1 of 6 .*max_failed=0.1.*4\.mp4"):
        run_here(pipeline)
    assert not pipeline.levels[1].file(0).exists()


def test_a_full_disk_is_one_line(clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    pipeline = build_on(clips, list_nodes(), tmp_path / "out")
    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(ValueError, match=r"listing\.parquet: .*disk is full"):
        run_here(pipeline)
    assert not list((tmp_path / "out").rglob("*part*"))


class Halves(Operator):
    """Makes two rows of a row, none of the second, and fails on the third in every way."""

    writes = columns(track=pa.int64())

    def __init__(self, handle: Callable[[Row], Outcome] | None = None) -> None:
        self.handle = handle

    def apply(self, rows: Sequence[Row]) -> Iterable[Outcome]:
        for row in rows:
            if row["number"] == 2:
                raise KeyError("a")
            yield [{"track": number} for number in range(2 - row["number"])]


def test_an_error_of_a_batch_is_one_failed_row() -> None:
    outcomes = apply_batches(Halves(), [{"number": number} for number in range(3)], 16)
    assert outcomes[0] == [{"track": 0}, {"track": 1}] and outcomes[1] == [{"track": 0}]
    assert outcomes[2] == Failed("unexpected_error", "KeyError: 'a'")
    assert apply_batches(Halves(), [{"number": 2}], 1) == outcomes[2:]
    assert Dropped("a") != Failed("a")
