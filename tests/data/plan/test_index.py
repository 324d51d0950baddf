"""Plans that are made once: tables equal to plans in memory, found again, shared by ranks, refused when they differ."""

import json
import os
import pickle
import shutil
import threading
from collections.abc import Callable
from itertools import chain
from pathlib import Path
from typing import Any

import pytest

from omnihuman.data import media
from omnihuman.data.module import OmniData
from omnihuman.data.notices import Notices
from omnihuman.data.plan import source_plans
from omnihuman.data.plan.tables import PlanTable
from omnihuman.source.jsonl import JsonlSource
from tests.data.conftest import write_records


@pytest.fixture
def build_shared(build_data: Any, tmp_path: Path) -> Callable[..., OmniData]:
    """Return a function that builds data whose plans are tables."""
    return lambda *args, **options: build_data(*args, index_folder=str(tmp_path / "index"), **options)


def write_mixture(folder: Path) -> list[str]:
    """Write sources with several tasks, faces, a bad line and a missing file."""
    faces = [{"time": 0.0, "box": [1, 2, 30, 40]}, {"time": 0.5, "box": None}]
    return [
        write_records(folder / "a.jsonl", 5, "a", task="who", broken=3),
        write_records(folder / "b.jsonl", 4, "b", task="where", faces=faces, note={"day": [1, None]}),
        write_records(folder / "c.jsonl", 3, "c", video="gone.mp4"),
        write_records(folder / "d.jsonl", 2, "d", task="unlisted"),
    ]


def assert_equal(data: OmniData, other: OmniData) -> None:
    for name in ("train_samples", "val_samples"):
        plan, expected = getattr(data, name).planned, getattr(other, name).planned
        assert list(plan) == list(expected) and plan.digest == expected.digest
        assert plan.lengths.tolist() == expected.lengths.tolist() and plan.targets.tolist() == expected.targets.tolist()
        assert plan.report == expected.report
    assert data.fingerprint == other.fingerprint
    assert data.order(1).tolist() == other.order(1).tolist()
    assert list(data.tasks.unlisted) == list(other.tasks.unlisted)


OPTIONS = {"on_bad_sample": "skip", "max_skipped": 0.9, "views": ["VAF", "VF", "A"], "tasks": {"who": 2, "where": 0.5}}


def test_tables_hold_what_a_plan_in_memory_holds(build_data: Any, build_shared: Any, tmp_path: Path) -> None:
    options = {
        "records": write_mixture(tmp_path),
        "val_records": write_records(tmp_path / "v.jsonl", 3, "v"),
        **OPTIONS,
    }
    expected, data = build_data(**options), build_shared(**options)
    assert_equal(data, expected)
    assert isinstance(data.val_samples.planned, PlanTable)
    assert {skip["reason"] for skip in data.train_samples.skipped} == {"malformed_json", "missing_file"}
    batches = chain.from_iterable(data.train_dataloader())
    for batch, other in zip(batches, chain.from_iterable(expected.train_dataloader()), strict=True):
        assert batch.meta == other.meta


def test_several_processes_make_the_same_tables(
    build_data: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(source_plans, "BLOCK", 2)
    records = write_mixture(tmp_path)
    tables = []
    for number in (1, 3):
        data = build_data(records, index_folder=str(tmp_path / f"index{number}"), index_processes=number, **OPTIONS)
        _ = data.train_samples
        files = {}
        for file in (tmp_path / f"index{number}").glob("*/*/*"):
            if file.parent.parent.name != "headers":
                files[file.relative_to(tmp_path / f"index{number}")] = file.read_bytes()
        tables.append(files)
    assert tables[0] == tables[1] and len(tables[0]) == 4 * 11
    assert [len(task) for task in data.tasks.skipped["train"].values()] == [0, 0, 0, 2]


def test_a_plan_in_tables_is_small_for_a_worker(build_shared: Any) -> None:
    plan = build_shared().train_samples.planned
    text = pickle.dumps(plan)
    assert len(text) < 1000 and list(pickle.loads(text)) == list(plan)


def test_nothing_is_read_twice(build_shared: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    records = write_records(tmp_path / "a.jsonl", 6)
    expected = build_shared(records)
    _ = expected.train_samples

    def fail(*args: Any, **options: Any) -> Any:
        raise AssertionError("read again")

    with monkeypatch.context() as patch:
        patch.setattr(media, "probe", fail)
        patch.setattr(JsonlSource, "records", fail)
        assert_equal(build_shared(records), expected)
    monkeypatch.setattr(media, "probe", fail)
    assert len(build_shared(records, views=["VF"]).train_samples) == 6, "other options: the headers are there"


def test_changes_make_another_plan(build_shared: Any, media_root: Path, tmp_path: Path) -> None:
    root = tmp_path / "media"
    root.mkdir()
    for name in ("talk.mp4", "late.mp4"):
        (root / name).write_bytes((media_root / name).read_bytes())
    source = JsonlSource(write_records(tmp_path / "a.jsonl", 6), root)
    first = build_shared(source).train_samples.planned
    assert build_shared(source).train_samples.planned.folder == first.folder
    os.utime(root / "late.mp4", ns=(1, 1))
    second = build_shared(source).train_samples.planned
    assert second.folder != first.folder and second.digest == first.digest
    write_records(tmp_path / "a.jsonl", 7)
    assert len(build_shared(source).train_samples) == 7
    (root / "late.mp4").unlink()
    assert len(build_shared(source, on_bad_sample="skip", max_skipped=0.9).train_samples) == 4
    (root / "late.mp4").write_bytes((media_root / "late.mp4").read_bytes())
    assert len(build_shared(source, on_bad_sample="skip", max_skipped=0.9).train_samples) == 7, "it was missing"


def test_damaged_tables_are_made_again(build_shared: Any, caplog: pytest.LogCaptureFixture) -> None:
    plan = build_shared().train_samples.planned
    for name, damage in (("samples.arrow", b""), ("plan.json", b"{"), ("lengths.npy", b"x")):
        (plan.folder / name).write_bytes(damage)
        again = build_shared().train_samples.planned
        assert len(again) == 13 and name.partition(".")[0] in caplog.text
        assert not list(again.folder.parent.glob("*.partial"))


def _interrupt(*args: Any) -> None:
    raise KeyboardInterrupt


def test_an_interrupted_planning_leaves_headers_and_no_plan(
    build_shared: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("omnihuman.data.plan.table_writer.TableWriter.finish", _interrupt)
        with pytest.raises(KeyboardInterrupt):
            _ = build_shared().train_samples
    assert list((tmp_path / "index").rglob("*.arrow")) == list((tmp_path / "index" / "headers").rglob("*.arrow")) != []
    monkeypatch.setattr(media, "probe", None)
    assert len(build_shared().train_samples) == 13


def start_rank(data: OmniData, file: Path) -> threading.Thread:
    notices = Notices(file.with_name("start"), is_main=False)
    thread = threading.Thread(target=data.freeze, args=(file, notices), kwargs={"is_resumed": False})
    thread.start()
    return thread


def test_ranks_have_the_plan_of_the_main_process(
    build_shared: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A read error of one rank would give it another plan, and the run would hang."""
    options = {
        "records": write_mixture(tmp_path),
        "val_records": write_records(tmp_path / "v.jsonl", 3, "v"),
        **OPTIONS,
    }
    main, other, file = build_shared(**options), build_shared(**options), tmp_path / "excluded.jsonl"
    waiting = start_rank(other, file)
    waiting.join(0.3)
    assert waiting.is_alive() and not (tmp_path / "index").exists(), "it waits and plans nothing"
    main.freeze(file, Notices(tmp_path / "start"), is_resumed=False)
    waiting.join(20)
    monkeypatch.setattr(media, "probe", None)
    assert other.train_samples.planned.digest == main.train_samples.planned.digest
    assert other.state_dict() == main.state_dict(), "the tables are the same ones"
    later = threading.Thread(target=lambda: other.val_samples)  # a plan that only a validation needs
    later.start()
    assert len(main.val_samples) == 9
    later.join(20)
    assert len(other.val_samples) == 9


def test_a_resumed_run_keeps_its_plan(build_shared: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = {"records": write_mixture(tmp_path), **OPTIONS}
    data, file = build_shared(**options), tmp_path / "excluded.jsonl"
    data.freeze(file, Notices(None), is_resumed=False)
    state = json.loads(json.dumps(data.state_dict()))
    monkeypatch.setattr(media, "probe", None)
    monkeypatch.setattr(JsonlSource, "records", None)
    resumed = build_shared(**options)
    resumed.freeze(file, Notices(None), is_resumed=True)
    resumed.load_state_dict(state)
    assert_equal(resumed, data)


def test_edited_records_are_refused_with_what_differs(build_shared: Any, tmp_path: Path) -> None:
    records = write_records(tmp_path / "a.jsonl", 5)
    data, file = build_shared(records), tmp_path / "excluded.jsonl"
    data.freeze(file, Notices(None), is_resumed=False)
    state = data.state_dict()
    lines = Path(records).read_text().replace("Number 1.", "Number one, I think.").splitlines()
    lines[4] = lines[4].replace('"r4"', '"r9"')
    Path(records).write_text("\n".join(lines))
    resumed = build_shared(records)
    resumed.freeze(file, Notices(None), is_resumed=True)
    with pytest.raises(ValueError, match=r"(?s)1 new \(r9\), 1 missing \(r4\), 1 changed \(r1\).*overwrite=true"):
        resumed.load_state_dict(state)


def test_a_plan_with_a_missing_file_holds_until_the_file_is_there(
    build_shared: Any, media_root: Path, tmp_path: Path
) -> None:
    root, options = tmp_path / "media", {"on_bad_sample": "skip", "max_skipped": 0.9}
    root.mkdir()
    shutil.copy(media_root / "talk.mp4", root)
    source = JsonlSource(write_records(tmp_path / "a.jsonl", 6), root)
    first = build_shared(source, **options).train_samples.planned
    again = build_shared(source, **options).train_samples.planned
    assert first.report.skipped[0]["reason"] == "missing_file" and again.folder == first.folder
    shutil.copy(media_root / "late.mp4", root)
    assert len(build_shared(source, **options).train_samples) == 6


def test_plans_that_nothing_opens_are_deleted(build_shared: Any, tmp_path: Path) -> None:
    records = write_records(tmp_path / "a.jsonl", 3)
    folders = [build_shared(records, views=[view]).train_samples.planned.folder for view in ("VAF", "VF")]
    for file in (tmp_path / "index").rglob("*"):
        os.utime(file, (1, 1))
    _ = build_shared(records, index_days=None, views=["A"]).train_samples
    _ = build_shared(records, views=["VAF"]).train_samples
    assert all(folder.exists() for folder in folders), "without a limit; and where no plan is made"
    _ = build_shared(records, views=["V"]).train_samples
    assert [folder.exists() for folder in folders] == [True, False], "the first one was opened"
    with pytest.raises(ValueError, match=r"data\.index_days must be above 0"):
        build_shared(records, index_days=0)
