"""People get rows, their verdicts are kept, and the run goes on with them."""

import json
import multiprocessing
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from omnihuman.curation.account import write_account
from omnihuman.operator.verdicts import read_verdicts
from omnihuman.reviewing import queue as module
from omnihuman.reviewing.queue import Item, Queue, check_value, load_waiting
from tests.reviewing.conftest import list_ends, run

NUM_ROWS = 4
"""Contents of the folder: one of the six clips is cut off, and one is a copy."""


def judge_all(queue: Queue, *verdicts: str, reviewer: str = "anna") -> list[str]:
    """Judge all rows that a person gets, and return their keys."""
    keys = []
    for number in range(100):
        item = queue.next(reviewer)
        if item is None:
            break
        verdict = verdicts[number % len(verdicts)]
        values = {"speech": "no"} if verdict == "edit" else {}
        queue.judge(reviewer, item.key, verdict, values, 1.0)
        keys.append(item.key)
    return keys


def test_rows_are_written_by_their_verdicts(queue: Queue, clips: Path) -> None:
    out = queue.waiting.state.out
    assert len(judge_all(queue, "accept", "edit", "reject", "unsure")) == NUM_ROWS
    pipeline = run(clips, out)
    ends = list_ends(pipeline)
    assert [end for end in set(ends) if end[0] == "dropped"] and ("dropped", "rejected") in ends
    assert ("dropped", "unsure") in ends and ("live", None) in ends
    review = write_account(out) and json.loads((out / "account.json").read_text())["reviews"]["review"]
    assert [review[end] for end in ("accepted", "edited", "rejected", "unsure")] == [1, 1, 1, 1]
    assert review["kappa"] is None and review["people"] == {"anna": NUM_ROWS}


def test_a_later_verdict_makes_the_records_anew(queue: Queue, clips: Path) -> None:
    out = queue.waiting.state.out
    keys = judge_all(queue, "accept")
    run(clips, out)
    assert list(out.glob("*-review-*/part-*")) and list(out.glob("*-write-*/part-*"))
    queue.judge("anna", keys[0], "reject", {}, None)
    assert not list(out.glob("*-review-*/part-*")) and not list(out.glob("*-write*/*.parquet"))
    assert list(out.glob("*-transcribe-*/part-*")) and ("dropped", "rejected") in list_ends(run(clips, out))


def test_two_people_do_not_get_the_same_row(queue: Queue, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = queue.next("anna"), queue.next("ben")
    assert first is not None and second is not None and first.key != second.key and queue.next("anna") == first
    monkeypatch.setattr(module, "LEASE_SECONDS", -1.0)
    waiting = Queue(queue.waiting)
    assert waiting.next("anna") == waiting.next("ben") == first  # who looks at it has gone


def test_two_people_judge_a_share(clips: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"rows wait"):
        run(clips, tmp_path / "out", share=1)
    queue = Queue(load_waiting(tmp_path / "out"))
    assert len(judge_all(queue, "accept", "reject")) == NUM_ROWS
    assert queue.count("anna") == {"rows": NUM_ROWS, "done": 0, "second": NUM_ROWS, "mine": NUM_ROWS}
    judge_all(queue, "accept", "reject", reviewer="ben")
    assert queue.count("ben")["done"] == NUM_ROWS and queue.next("cleo") is None
    assert queue.summarize()["kappa"] == pytest.approx(1.0)


def test_verdicts_are_there_after_a_restart(queue: Queue) -> None:
    keys = judge_all(queue, "edit")
    with queue.file.open("ab") as file:
        file.write(b'{"key": "half')
    again = Queue(queue.waiting)
    assert again.next("anna") is None and set(again.people) == set(keys)
    assert len(again.problems) == 1 and f"line {NUM_ROWS + 1}" in again.problems[0]
    assert again.verdicts == queue.verdicts and again.verdicts[0].edits == {"speech": [(0, 3, "no")]}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((" ", "accept", {}), "name"),
        (("anna", "maybe", {}), "no such row"),
        (("anna", "edit", {}), "Nothing has changed"),
        (("anna", "edit", {"speech": "yes"}), "Nothing has changed"),
        (("anna", "edit", {"speech": " "}), "speech: a text"),
        (("anna", "edit", {"people": "2"}), "people: a text"),
    ],
)
def test_verdicts_that_are_none(queue: Queue, arguments: Any, message: str) -> None:
    reviewer, verdict, values = arguments
    with pytest.raises(ValueError, match=message):
        queue.judge(reviewer, next(iter(queue.items)), verdict, values, None)
    assert not queue.file.exists()


@pytest.mark.parametrize(
    ("kind", "value", "fits"),
    [
        ("texts", ["a", "b"], True),
        ("texts", [], False),
        ("texts", ["a", " "], False),
        ("pairs", [{"question": "Who?", "answer": "She."}], True),
        ("pairs", [{"question": "Who?", "answer": ""}], False),
        ("pairs", [["Who?", "She."]], False),
    ],
)
def test_values_have_the_form_of_their_column(kind: str, value: Any, fits: bool) -> None:
    if fits:
        check_value(kind, "a", value)
        return
    with pytest.raises(ValueError, match="a: a text"):
        check_value(kind, "a", value)


def write_until_killed(queue: Queue, file: Path) -> None:
    """Judge one row again and again, and note in a file which verdicts are said to be saved."""
    (key, *_) = queue.items
    with file.open("wb", buffering=0) as saved:
        for number in range(10**6):
            queue.judge(f"p{number}", key, "edit", {"speech": f"no {number} " * 40}, None)
            saved.write(f"p{number}\n".encode())


@pytest.mark.parametrize("seconds", [0.02, 0.05, 0.09])
def test_a_kill_takes_no_saved_verdict(queue: Queue, tmp_path: Path, seconds: float) -> None:
    saved = tmp_path / "saved"
    process = multiprocessing.get_context("fork").Process(target=write_until_killed, args=(queue, saved))
    process.start()
    while not saved.exists() or not saved.stat().st_size:
        time.sleep(0.005)
    time.sleep(seconds)
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    verdicts, problems = read_verdicts(queue.file)
    names = saved.read_text().splitlines()
    assert len(names) >= 1 and [verdict.reviewer for verdict in verdicts][: len(names)] == names
    assert len(verdicts) - len(names) <= 1 and len(problems) <= 1


def test_other_folders_and_operators_are_named(queue: Queue, clips: Path) -> None:
    out = queue.waiting.state.out
    with pytest.raises(ValueError, match=r"operator=other: .*choose review"):
        load_waiting(out, "other")
    run(clips, out, mode="skip")
    with pytest.raises(ValueError, match=r"skipped review.*review=wait"):
        load_waiting(out)


def test_boxes_and_media_are_those_of_the_row(queue: Queue, clips: Path) -> None:
    item: Item = next(iter(queue.items.values()))
    assert item.row["file"].is_file() and item.row["file"].parent == clips.absolute()
    assert item.row["faces"][0]["boxes"][0] == [8.0, 6.0, 56.0, 42.0]
    assert not any("embedding" in column for column in item.row)
