"""The verb ``records``: from tables and folders to records folders, as users type it."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from omnihuman.build import build, compose_config
from omnihuman.data.module import OmniData
from omnihuman.records import main
from omnihuman.source.root import expand_data_paths
from tests.data.conftest import write_clip

LABELS = ("joy", "anger", "große Angst")
KEYS = ("source=table", "path=labels.csv", "video=clip", "answer=emotion", "sheet=0")


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_clip(tmp_path_factory.mktemp("clip") / "talk.mp4", num_frames=10, seconds=0.5)


@pytest.fixture
def folder(clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the current folder, with 30 clips and ``labels.csv``; six people, two of them in val and test."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["omnihuman"])
    (tmp_path / "clips").mkdir()
    lines = ["clip,emotion,part,who"]
    for number in range(30):
        (tmp_path / "clips" / f"{number}.mp4").hardlink_to(clip)
        split = {28: "dev", 29: "Test"}.get(number, "train")
        person = number // 7 if number < 28 else number
        lines.append(f"clips/{number}.mp4,{LABELS[number % 3]},{split},P{person}")
    write_table(*lines)
    return tmp_path


def write_table(*lines: str) -> None:
    Path("labels.csv").write_text("\n".join(lines) + "\n")


def replace_row(number: int, line: str) -> None:
    """Replace a row of the table, numbered as in a spreadsheet."""
    lines = Path("labels.csv").read_text().splitlines()
    lines[number - 1] = line
    write_table(*lines)


def read(name: str) -> Any:
    return json.loads(Path(name).read_text())


def fail(*arguments: str) -> str:
    """Return the message of a failing command."""
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    message = str(caught.value.code)
    assert message.startswith("error: ") and "\n" not in message
    return message


def test_a_table_becomes_a_folder_that_trains(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main([*KEYS[:-1], "split=part", "person=who", "out=sets/my set", "sheet=2"])
    assert Image.open("sets/my set/sheet.png").size[0] == 1200
    output = capsys.readouterr().out
    assert "omnihuman inspect 'data=sets/my set/' decode=true" in output and "base=" in output
    lines = [line.split() for line in output.splitlines()]
    assert ["│", "joy", "│", "10", "│", "0", "│", "0", "│", "10", "│"] in lines
    assert ["│", "people", "│", "4", "│", "1", "│", "1", "│", "6", "│"] in lines
    report = read("sets/my set/report.json")
    assert report["root"] == "../.." and report["task"] == "emotion" and report["person"] == "meta.person"
    assert report["labels"] == sorted(LABELS) and report["records"] == {"train": 28, "val": 1, "test": 1}
    assert report["seconds"]["train"] == pytest.approx(14, abs=1)
    assert report["counts"]["test"] == {"anger": 0, "große Angst": 1, "joy": 0} and report["bad"] == {}
    assert any("test has no record of anger, joy" in note for note in report["notes"])
    records = read("sets/my set/train.json") + read("sets/my set/val.json") + read("sets/my set/test.json")
    assert len({record["id"] for record in records}) == 30 and records[0]["meta"]["person"] == "P0"
    config = compose_config(expand_data_paths(["data=sets/my set/"]), "inspect")
    assert (config.test_records, config.person) == ("sets/my set/test.json", "meta.person")
    data: OmniData = build(config.data)
    assert len(list(data.read_entries("train"))) == 28
    assert all(not isinstance(entry, tuple) for _, entry in data.read_entries("train"))


def test_without_splits_people_are_kept_apart_and_the_result_is_the_same_again(folder: Path) -> None:
    options = [*KEYS, "person=who", "fractions=[0.6,0.2,0.2]"]
    for out in ("a", "b"):
        main([*options, f"out={out}"])
    names = ("train.json", "val.json", "test.json", "report.json")
    assert all(Path("a", name).read_bytes() == Path("b", name).read_bytes() for name in names)
    people = []
    for name in names[:3]:
        people += {record["meta"]["person"] for record in read(f"a/{name}")}
    assert len(people) == len(set(people)) == 6
    assert {path.name for path in Path("a").iterdir()} == set(names)


def test_rows_that_cannot_be_used_are_refused_or_left_out(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    replace_row(4, "clips/nowhere.mp4,joy,train,P0")
    replace_row(6, "clips/4.mp4,,train,P0")
    replace_row(9, "clips/8.mp4,joy,train,P1")
    replace_row(12, "clips/9.mp4,joy,train,P1")
    message = fail(*KEYS, "out=mine")
    assert "labels.csv: 5 of 30 clips" in message and "1 missing_file" in message and "skip=true" in message
    assert "missing_file: labels.csv row 4: video 'clips/nowhere.mp4'" in capsys.readouterr().out
    assert not Path("mine").exists()
    main([*KEYS, "out=mine", "skip=true"])
    output = capsys.readouterr().out
    assert "5 of 30 clips" in output and "report.json" in output
    report = read("mine/report.json")
    assert sum(report["records"].values()) == 25
    assert {reason: len(rows) for reason, rows in report["bad"].items()} == {
        "contradiction": 2,
        "missing_file": 1,
        "empty_answer": 1,
        "repeated": 1,
    }
    assert report["bad"]["empty_answer"] == ["labels.csv row 6: the answer is empty."]


def test_records_of_another_command_are_replaced_on_demand_only(folder: Path) -> None:
    main([*KEYS, "split=part", "out=mine"])
    Path("mine/sweep.yaml").write_text("title: x")
    main([*KEYS, "split=part", "out=mine"])
    message = fail(*KEYS, "split=part", "task=mood", "out=mine")
    assert "out=mine" in message and "task" in message and "overwrite=true" in message
    assert read("mine/train.json")[0]["task"] == "emotion"
    main([*KEYS, "fractions=[0.5,0,0.5]", "task=mood", "out=mine", "overwrite=true"])
    assert read("mine/train.json")[0]["task"] == "mood" and not Path("mine/val.json").exists()
    assert Path("mine/sweep.yaml").is_file()
    Path("other").mkdir()
    Path("other/train.json").write_text("[]")
    assert "train.json, not written by omnihuman records" in fail(*KEYS, "out=other")
    Path("file").touch()
    assert "out=file" in fail(*KEYS, "out=file")


def test_clips_behind_a_link_and_in_several_splits_are_told(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("set").mkdir()
    Path("set/clips").symlink_to(folder / "clips")
    lines = ["clip,emotion,split,begin,stop"]
    for number, split in enumerate(("train", "train", "test")):
        lines.append(f"clips/0.mp4,joy,{split},{number / 10},{number / 10 + 0.1}")
    Path("set/labels.csv").write_text("\n".join(lines))
    options = [
        "path=set/labels.csv",
        *KEYS[2:],
        "start=begin",
        "end=stop",
        "split=split",
        "options=[joy,anger]",
        "out=mine",
    ]
    assert "source.follow_links=true" not in fail(*options) and "3 outside_root" in fail(*options)
    assert "source.follow_links=true" in capsys.readouterr().out
    main([*options, "source.follow_links=true"])
    output = capsys.readouterr().out
    assert "omnihuman inspect data=mine/ data.source.follow_links=true decode=true" in output
    assert "note: 1 files are in several splits" in output and "person=" in output
    overrides = expand_data_paths(["data=mine/", "data.source.follow_links=true"])
    records = list(build(compose_config(overrides).data).read_entries("train"))
    assert [(record.id, record.start) for _, record in records] == [("clips/0.mp4#1", 0.0), ("clips/0.mp4#2", 0.1)]


def test_folders_of_labels_become_records(folder: Path, clip: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("train/joy/1.mp4", "train/anger/2.mp4", "test/joy/3.mp4"):
        Path("set", name).parent.mkdir(parents=True, exist_ok=True)
        Path("set", name).hardlink_to(clip)
    main(["source=folder", "path=set", "task=mood", "out=mine", "sheet=0"])
    report = read("mine/report.json")
    assert report["root"] == "../set" and report["records"] == {"train": 2, "test": 1} and report["task"] == "mood"
    assert [record["video"] for record in read("mine/train.json")] == ["train/anger/2.mp4", "train/joy/1.mp4"]
    assert "no record is in val" in capsys.readouterr().out


def test_free_text_has_no_options(folder: Path) -> None:
    main([*KEYS, "options=open", "question=What, exactly, do {who} and '[you]' feel?", "out=mine"])
    record = read("mine/train.json")[0]
    assert record["conversations"][0]["value"].endswith("\nWhat, exactly, do P0 and '[you]' feel?")
    assert "meta" not in record and read("mine/report.json")["labels"] is None


def test_training_records_of_a_table_get_wordings(folder: Path) -> None:
    main([*KEYS, "split=part", "questions=emotion", "out=mine"])
    questions = [record["conversations"][0]["value"].split("\n")[2] for record in read("mine/train.json")]
    assert len(set(questions)) > 3 and set(questions) <= set(read("mine/report.json")["questions"])
    assert {read(f"mine/{split}.json")[0]["conversations"][0]["value"] for split in ("val", "test")} == {
        "<video>\n<audio>\n" + read("mine/report.json")["question"]
    }


def test_codes_get_names(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = Path("labels.csv").read_text()
    for number, label in enumerate(LABELS):
        text = text.replace(f",{label},", f",{number},")
    Path("labels.csv").write_text(text)
    main([*KEYS, "out=a"])
    assert "options={0:" in capsys.readouterr().out
    main([*KEYS, "options={0: joy, 1: anger, 2: fear}", "out=b"])
    assert read("b/report.json")["labels"] == ["joy", "anger", "fear"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["split=who"], "P0 (7)"),
        (["split=part", "fractions=[1,0,0]"], "fractions"),
        (["fractions=[1,1,1]"], "fractions=[1, 1, 1]"),
        (["source=json"], "source: choose table"),
        (["root=nowhere"], "root=nowhere"),
        (["path=nowhere.csv"], "path=nowhere.csv"),
        (["answer=emotoin"], "answer=emotoin: labels.csv has no column emotoin; did you mean emotion?"),
        (["options=x"], "options=x"),
        (["options=[happy,sad]"], "30 unknown_label"),
        (["video=who"], "30 missing_file"),
    ],
)
def test_a_mistake_is_one_line(arguments: list[str], message: str, folder: Path) -> None:
    replaced = {argument.partition("=")[0] for argument in arguments}
    keys = [key for key in KEYS if key.partition("=")[0] not in replaced]
    assert message in fail(*keys, *arguments, "out=mine")
    assert not Path("mine").exists()


def test_a_person_in_two_splits_is_one_line(folder: Path) -> None:
    replace_row(31, "clips/29.mp4,joy,Test,P0")
    message = fail(*KEYS, "split=part", "person=who", "out=mine")
    assert "P0 is in train (labels.csv row 2) and test (labels.csv row 31)" in message


def test_a_folder_has_no_columns(folder: Path) -> None:
    assert "video=clip" in fail("source=folder", "path=clips", "video=clip", "out=mine")


def test_nothing_to_write_is_an_error(folder: Path) -> None:
    assert "no clip can be used" in fail(*KEYS, "video=who", "skip=true", "out=mine")
