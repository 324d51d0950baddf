"""Tasks of records: how often each is used, and what is said about the others."""

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from omnihuman.data.tasks import TASK_NOT_LISTED, describe_unlisted_tasks
from omnihuman.training.dry_run import print_tasks

from .conftest import write_records


def test_the_weight_of_a_task_sets_how_often_its_records_are_used(build_data: Any, tmp_path: Path) -> None:
    """Records of a task without a weight are dropped; records without a task are used once."""
    files = [
        write_records(tmp_path / "a.jsonl", 4, "a", task="emotion"),
        write_records(tmp_path / "b.jsonl", 4, "b", task="face"),
        write_records(tmp_path / "c.jsonl", 2, "c"),
        write_records(tmp_path / "d.jsonl", 2, "d", task="body"),
    ]
    data = build_data(files, tasks={"emotion": 2, "face": 0.5})
    for epoch in (0, 1):
        prefixes = [data.train_samples.planned[index].record.id[0] for index in data.order(epoch)]
        assert Counter(prefixes) == {"a": 8, "b": 2, "c": 2}
    with pytest.raises(ValueError, match=r"weight .*\b0\b.*-1"):
        build_data(files, tasks={"emotion": -1})


def test_a_record_of_another_task_is_skipped_with_a_reason(build_data: Any, tmp_path: Path) -> None:
    files = [write_records(tmp_path / f"{task}.jsonl", 2, task[0], task=task) for task in ("sad", "glad")]
    data = build_data([*files, files[0]], tasks={"glad": 1.5, "sed": 1})
    assert len(data.train_samples) == 2
    reasons = [(entry["id"], entry["reason"]) for entry in data.tasks.unlisted]
    assert reasons == [("s0", TASK_NOT_LISTED), ("s1", TASK_NOT_LISTED)], "a file that is listed twice counts once"
    assert "sad.jsonl:1" in data.tasks.unlisted[0]["message"]
    skipped, absent = data.describe_tasks()
    assert "2 sad" in skipped and "lists sed" in absent and "mean sad?" in absent
    console = Console(record=True, width=200)
    print_tasks(data, console)
    rows = [
        line.replace("│", " ").split() for line in console.export_text().splitlines() if "jsonl" in line and "│" in line
    ]
    assert [row[1:] for row in rows] == [
        ["glad", "2", "1.5", "x", "3"],
        ["sad", "2", "records", TASK_NOT_LISTED, "0"],
    ]


def test_many_tasks_and_files_are_one_short_line() -> None:
    entries = [{"task": f"t{number}"} for number in range(9)]
    files = {f"{name}.json": list(entries) for name in "abcdef"}
    files["a.json"] += [{"task": "often"}] * 20
    (line,) = describe_unlisted_tasks(files)
    assert line.startswith("a.json, b.json, c.json, 3 more: 74 records")
    assert line.endswith("(20 often, 6 t0, 6 t1, 42 of 7 more)")


def test_validation_counts_its_own_records(build_data: Any, tmp_path: Path) -> None:
    train = write_records(tmp_path / "train.jsonl", 3, task="glad")
    val = write_records(tmp_path / "val.jsonl", 4, "v", task="sad")
    data = build_data(train, tasks=["glad"], val_records=val)
    assert len(data.val_samples) == 0 and data.tasks.unlisted == []
    assert len(data.tasks.skipped["val"][val]) == 4


def test_no_record_of_a_listed_task_is_one_clear_line(build_data: Any, tmp_path: Path) -> None:
    path = write_records(tmp_path / "a.jsonl", 3, task="mood")
    for tasks in (["emotion"], {"emotion": 1}):
        with pytest.raises(ValueError, match=r"a\.jsonl: .*lists emotion.* 3 mood: .*data\.tasks=\[mood\]"):
            _ = build_data(path, tasks=tasks).train_samples
    with pytest.raises(ValueError, match=r"no sample .*tasks .*views"):
        _ = build_data(path, tasks={"mood": 0, "emotion": 1}).train_samples


def test_a_weight_of_zero_everywhere_is_one_clear_line(build_data: Any, tmp_path: Path) -> None:
    path = write_records(tmp_path / "a.jsonl", 3, task="mood")
    with pytest.raises(ValueError, match=r"data\.records: .*weight of every .*a\.jsonl"):
        build_data([{"path": path, "weight": 0}])
    with pytest.raises(ValueError, match=r"data\.tasks: .*weight of every .*mood"):
        build_data(path, tasks={"mood": 0})
    for weight in (-1, True, float("inf")):
        with pytest.raises(ValueError, match=r"data\.tasks: a weight"):
            build_data(path, tasks={"mood": weight})
