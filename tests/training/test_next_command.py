"""The commands that a finished run advises."""

import shlex
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from omnihuman.data.media import Header
from omnihuman.data.plan.planned import PlanList, Planned
from omnihuman.data.record import Record
from omnihuman.training.next_command import build_next_command, build_question, find_record


def build_record(file: str, task: str | None, **fields: Any) -> Record:
    messages = (("user", "<video>\n<audio>\nWho's there?\nsad ,happy"), ("assistant", "sad"))
    return Record(file, Path(file), fields.pop("kind", "video"), messages, ("video",), task=task, **fields)


def ask(*records: Record, tasks: tuple[str, ...] = ("emotion",)) -> list[str]:
    plan = PlanList(Planned(record, Header(True), {"frames": 1}, {}, 1, 1) for record in records)
    return shlex.split(build_question(find_record(plan, tasks)))


def test_a_question_of_a_scored_task_comes_first() -> None:
    records = (build_record("a.mp4", "face"), build_record("my clip.mp4", "emotion", start=1.5, end=2.0))
    question = "instruction=Who's there? sad ,happy"
    assert ask(*records) == ["video=my clip.mp4", question, "start=1.5", "end=2"]
    assert ask(*records, tasks=()) == ["video=a.mp4", question]


def test_the_argument_is_that_of_the_kind_of_file() -> None:
    assert ask(build_record("a.wav", None, kind="audio"))[0] == "audio=a.wav"
    assert [part.split("=")[0] for part in ask(build_record("", None, kind="text"))] == ["instruction"]


KEYS = {
    "name": "one",
    "size": "7b",
    "runs": "runs",
    "base": None,
    "variant": None,
    "next": None,
    "validation": {"metrics": {}},
}


def test_the_model_is_asked_before_the_next_stage() -> None:
    record = build_record("a.mp4", "emotion")
    config = OmegaConf.create({**KEYS, "next": "two", "data": {}})
    ask_line, train_line = build_next_command(config, record).splitlines()
    assert ask_line.startswith("omnihuman generate run=one size=7b video=a.mp4 ")
    assert train_line == "omnihuman train +experiment=two size=7b"
    config.runs, config.base = "my runs", "models/a"
    train_line = build_next_command(config, record).splitlines()[1]
    assert train_line == "omnihuman train +experiment=two size=7b 'runs=my runs' base=models/a", "the parent is there"
    config.runs, config.variant, config.next = "runs", "recipe.lr=1e-3", None
    assert " run=runs/7b/one/recipe.lr=1e-3 " in build_next_command(config, record)


def test_the_test_split_is_evaluated_where_there_is_one(tmp_path: Path) -> None:
    config = OmegaConf.create({**KEYS, "data": {"path": str(tmp_path)}})
    record = build_record("a.mp4", "emotion")
    assert "evaluate" not in build_next_command(config, record)
    (tmp_path / "test.json").write_text("[]")
    line = build_next_command(config, record).splitlines()[1]
    assert shlex.split(line)[-1] == f"benchmark.path={tmp_path / 'test.json'}"


def test_a_file_in_the_working_folder_is_short(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    record = build_record(str(tmp_path / "media" / "a.mp4"), "emotion")
    assert ask(record)[0] == "video=media/a.mp4"
