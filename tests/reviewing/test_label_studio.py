"""Rows as tasks of Label Studio, and its annotations as verdicts."""

import json
import xml.etree.ElementTree as ET
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from omnihuman.operator.verdicts import VERDICTS
from omnihuman.review import export_tasks, import_annotations
from omnihuman.reviewing.label_studio import build_form, build_tasks, read_annotations
from omnihuman.reviewing.queue import Queue


def annotate(task: Mapping[str, Any], choice: str | None, text: Sequence[str] = (), **fields: Any) -> dict[str, Any]:
    """Return a task of an export with one annotation, in the layout of Label Studio 1.x."""
    result: list[dict[str, Any]] = []
    if choice:
        result.append({"from_name": "verdict", "to_name": "media", "type": "choices", "value": {"choices": [choice]}})
    if text:
        result.append({"from_name": "speech", "to_name": "media", "type": "textarea", "value": {"text": list(text)}})
    annotation = {
        "id": 7,
        "completed_by": {"id": 1, "email": "anna@example.org"},
        "result": result,
        "was_cancelled": False,
        "created_at": "2026-11-28T11:00:00.123456Z",
        "lead_time": 4.5,
    }
    return {"id": 3, "data": task["data"], "annotations": [annotation | fields]}


def read(queue: Queue, folder: Path, *tasks: Any) -> Any:
    (folder / "export.json").write_text(json.dumps(tasks))
    return read_annotations(queue, folder / "export.json")


def test_tasks_have_what_people_see(queue: Queue) -> None:
    tasks = build_tasks(queue, "/data/local-files/?d=")
    assert len(tasks) == 4
    for task in tasks:
        data = task["data"]
        assert data["media"].startswith("/data/local-files/?d=") and data["media"].endswith(".mp4")
        assert data["key"] in queue.items and data["show_people"] == "1" and "face_share" not in json.dumps(data)
    queue.judge("anna", tasks[0]["data"]["key"], "accept", {}, None)
    assert len(build_tasks(queue, "")) == 3


def test_the_form_fits_the_tasks(queue: Queue) -> None:
    root = ET.fromstring(build_form(queue))
    names = {element.get("value", "")[1:] for element in root.iter() if element.get("value", "").startswith("$")}
    assert names == {"media", "show_people", "speech"} <= set(build_tasks(queue, "")[0]["data"])
    assert tuple(element.get("value") for element in root.iter("Choice")) == VERDICTS
    assert root.find("Video") is not None


def test_annotations_are_verdicts_once(queue: Queue, tmp_path: Path) -> None:
    tasks = build_tasks(queue, "")
    edited = next(task for task in tasks if task["data"]["speech"] == "yes")
    remaining = [task for task in tasks if task is not edited]
    export = [
        annotate(edited, "accept", ["yes, yes"]),
        annotate(remaining[0], "reject", ["ignored"], completed_by=5),
        annotate(remaining[1], "edit", [remaining[1]["data"]["speech"]]),
        annotate(remaining[2], None),
        annotate({"data": {"key": "old"}}, "accept"),
    ]
    verdicts, passed = read(queue, tmp_path, *export)
    by_key = {verdict.key: verdict for verdict in verdicts}
    first = by_key[edited["data"]["key"]]
    assert first.verdict == "edit" and first.edits == {"speech": [(3, 3, ", yes")]} and first.seconds == 4.5
    assert first.reviewer == "label-studio anna@example.org" and first.time == "2026-11-28T11:00:00Z"
    assert by_key[remaining[0]["data"]["key"]].reviewer == "label-studio 5"
    assert by_key[remaining[1]["data"]["key"]].verdict == "accept"  # nothing has changed
    assert sorted(passed.values()) == [1, 1]
    queue.add(verdicts)
    again, passed = read(Queue(queue.waiting), tmp_path, *export)
    assert again == [] and passed["imported before"] == 3


@pytest.mark.parametrize("content", ['{"a": 1}', '[{"id": 1}]', "no", "3"])
def test_other_files_are_named(queue: Queue, tmp_path: Path, content: str) -> None:
    (tmp_path / "a.json").write_text(content)
    with pytest.raises(ValueError, match=r"a\.json.*JSON-MIN"):
        read_annotations(queue, tmp_path / "a.json")


def test_a_choice_that_is_none_is_named(queue: Queue, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"verdict is 'good'.*accept"):
        read(queue, tmp_path, annotate(build_tasks(queue, "")[0], "good"))


def test_rows_go_there_and_back(queue: Queue, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    export_tasks(queue, tmp_path / "tasks.json", "")
    assert ET.parse(tmp_path / "tasks.xml").getroot().tag == "View"
    tasks = json.loads((tmp_path / "tasks.json").read_text())
    (tmp_path / "export.json").write_text(json.dumps([annotate(task, "unsure") for task in tasks]))
    import_annotations(queue, tmp_path / "export.json")
    import_annotations(queue, tmp_path / "export.json")
    output = capsys.readouterr().out
    assert "4 tasks" in output and "4 verdicts imported" in output and "4 of 4 rows judged" in output
    assert "4 annotations passed over: imported before" in output and "anna@example.org (4)" in output
    with pytest.raises(ValueError, match=r"file=.*none\.json"):
        import_annotations(queue, tmp_path / "none.json")
