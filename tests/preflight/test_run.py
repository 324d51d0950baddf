"""A preflight from records to report, page and list of quarantine."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from omnihuman.data.exclusion import Exclusions
from omnihuman.preflight.check import Problem, Verdict
from omnihuman.preflight.run import Preflight, Progress, quarantine_files
from omnihuman.preflight.summary import Report

from .conftest import write_records

BOX = [{"time": 0, "box": [0, 0, 20, 20]}]


@pytest.fixture
def run(build_data: Any, tmp_path: Path) -> Callable[..., tuple[Preflight, Report]]:
    """Return a function: entries -> the preflight of them, and its report, which is written to ``out``."""

    def run(*entries: dict[str, Any], workers: int = 0, **options: Any) -> tuple[Preflight, Report]:
        data = build_data(write_records(tmp_path / "train.jsonl", *entries), **options)
        preflight = Preflight(data, {"train": data.read_entries("train"), "val": data.read_entries("val")}, workers)
        preflight.check()
        report = preflight.summarize({"max_length": data.chat_options["max_length"]})
        preflight.write(report, tmp_path / "out", num_cards=3)
        return preflight, report

    return run


@pytest.mark.parametrize("workers", [0, 2])
def test_bad_records_do_not_stop_the_others(workers: int, run: Any, tmp_path: Path) -> None:
    entries = [
        {"faces": BOX},
        {"video": "cut_front.mp4"},
        {"role": "robot"},
        {"video": "gone.mp4"},
        {"answer": "a" * 99},
    ]
    _, report = run(*entries, workers=workers)
    assert {reason: len(samples) for reason, samples in report.bad.items()} == {
        "unknown_role": 1,
        "missing_file": 1,
        "truncated": 1,
    }
    assert report.splits["train"]["samples"] == 2 and len(report.problems) == 1
    written = json.loads((tmp_path / "out" / "report.json").read_text())
    assert written["bad"]["truncated"][0]["file"].endswith("cut_front.mp4") and written["complete"] is True


def test_the_page_shows_records_and_loads_nothing(run: Any, tmp_path: Path) -> None:
    entries = [{"faces": BOX, "answer": "高兴 <b>"}, {"image": "image.png", "question": "<image>?"}]
    run(*entries, {"audio": "tone.wav", "question": "<audio>?"}, {"video": "cut_back.mp4"})
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert "高兴 &lt;b&gt;" in page and "cut_back.mp4" in page and "unreadable" in page
    sources = re.findall(r'(?:src|href)="([^"]{0,30})', page)
    assert len(sources) == 5 and all(source.startswith("data:image/jpeg;base64,") for source in sources)
    assert "http" not in page


def test_training_honours_the_list_of_quarantine(run: Any, build_data: Any, tmp_path: Path) -> None:
    entries = [{"faces": BOX}, {"video": "cut_front.mp4"}, {"video": "empty.mp4"}, {"video": "gone.mp4"}]
    preflight, _ = run(*entries, {"role": "robot"})
    lists = Exclusions(tmp_path / "lists")
    location = str(tmp_path / "train.jsonl")
    assert quarantine_files(preflight.items, lists) == {lists.find_list(location): 2}
    assert {name for name, _ in lists.read(location)} == {"r1", "r2"}, "a missing file can come back"
    assert not quarantine_files(preflight.items, lists), "samples that are listed are not added again"
    assert not quarantine_files(preflight.items, Exclusions(None))
    options = {"on_bad_sample": "quarantine", "quarantine_folder": str(tmp_path / "lists"), "max_skipped": 1.0}
    data = build_data(tmp_path / "train.jsonl", **options)
    quarantined = [skip["id"] for skip in data.train_samples.skipped if skip["reason"] == "quarantined"]
    assert quarantined == ["r1", "r2"]


def test_an_interruption_leaves_a_report_on_the_first_part(
    build_data: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(progress: Progress, verdicts: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Progress, "add", interrupt)
    entries = [{}, {"video": "late.mp4"}, {"video": "silent.mp4"}]
    data = build_data(write_records(tmp_path / "train.jsonl", *entries))
    preflight = Preflight(data, {"train": data.read_entries("train")}, workers=0)
    with pytest.raises(KeyboardInterrupt):
        preflight.check()
    report = preflight.summarize({"max_length": 700})
    preflight.write(report, tmp_path / "out")
    assert report.splits["train"]["checked"] == 1 and not report.complete
    assert "2 of 3 records are not checked" in (tmp_path / "out" / "report.html").read_text()


def test_files_of_equal_bytes_are_found(run: Any, media_root: Path, tmp_path: Path) -> None:
    for name in ("a.mp4", "b.mp4"):
        (tmp_path / name).write_bytes((media_root / "talk.mp4").read_bytes())
    (tmp_path / "c.mp4").write_bytes((media_root / "late.mp4").read_bytes())
    entries = [{"video": "a.mp4", "end": 1}, {"video": "b.mp4", "start": 1}, {"video": "c.mp4"}]
    _, report = run(*entries, root=str(tmp_path))
    (group,) = report.duplicates["files"]
    assert [Path(member["name"]).name for member in group] == ["a.mp4", "b.mp4"]


def test_progress_says_how_much_is_left(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    now = [0.0]
    monkeypatch.setattr("omnihuman.preflight.run.time.monotonic", lambda: now[0])
    progress = Progress(1000)
    now[0] = 100.0
    progress.add([Verdict()] * 249 + [Verdict((Problem("r0", "", "odd_turns", "x"),))])
    line = capsys.readouterr().err
    assert "250 of 1,000 records, 1 bad" in line and "5:00 left" in line
