"""Mistakes of users: every row of the guide's table, typed into the real programs."""

import json
import re
import sys
from importlib import import_module
from pathlib import Path

import pytest

from omnihuman.mistake import check_types
from tests.data.conftest import write_clip

GUIDE = Path(__file__).parents[1] / "docs" / "guide" / "mistakes.md"
ROW = re.compile(r"^\| `(.+?)` \| `(.+?)` \|$", re.MULTILINE)
MORE = ("+experiment=humanomni_stage1_face", "data=json", "data.root=media", "data.records=train.json")
TURNS = [{"from": "human", "value": "<video>\nWho?"}, {"from": "gpt", "value": "A man."}]
RECORD = {"id": "1", "video": "a.mp4", "conversations": TURNS}
OPENAI = [{"role": "user", "content": "Who?"}, {"role": "assistant", "content": "A man."}]
FILES = {
    "train.json": json.dumps([RECORD]),
    "table.csv": "id,video\n1,a.mp4\n",
    "comma.json": '[{"id": "1"},]',
    "lines.json": '{"id": "1"}\n{"id": "2"}\n',
    "list.jsonl": json.dumps([RECORD]),
    "roles.json": json.dumps([RECORD | {"conversations": [{"from": "user", "value": "Who?"}]}]),
    "messages.json": json.dumps([{"videos": ["a.mp4"], "messages": OPENAI}]),
    "windows.json": json.dumps([RECORD | {"video": "clips\\a.mp4"}]),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with data files, most of them wrong, and a clip."""
    folder = tmp_path_factory.mktemp("mistakes")
    (folder / "media").mkdir()
    write_clip(folder / "media" / "a.mp4", num_frames=10, seconds=0)
    for name, content in FILES.items():
        (folder / name).write_text(content)
    return folder


def complete(words: list[str]) -> list[str]:
    """Return arguments with those that the dots at their end stand for."""
    if words[-1] != "…":
        return words
    keys = {word.partition("=")[0] for word in words}
    return words[:-1] + [word for word in MORE if word.partition("=")[0] not in keys]


@pytest.mark.parametrize(("command", "answer"), ROW.findall(GUIDE.read_text(encoding="utf-8")))
def test_a_mistake_is_one_line(
    command: str, answer: str, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "argv", ["omnihuman"])
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)  # a name that is no folder is looked up there
    verb, *words = command.split()
    with pytest.raises(SystemExit) as caught:
        import_module(f"omnihuman.{verb}").main(complete(words))
    message = str(caught.value.code)
    assert message.startswith("error: ") and "\n" not in message, "sys.exit prints it and returns 1"
    assert answer in message
    assert "Error" not in capsys.readouterr().err


@pytest.mark.parametrize(
    "argument",
    [
        "recipe.lr=1",
        "recipe.lr=1e-4",
        "overwrite=true",
        "data.views=[VA]",
        "data.features=null",
        "data.num_workers=null",
        "trainer.devices=auto",
        "trainer.precision=32",
        "data.records=[a.json,b.json]",
        "seed=${recipe.batch_size}",
        "recipe.lr=1e-3,1e-4",
        "+data.note=text",
        "~data.face",
        "size=7b",
        "run=7",
        "trainable={a: 1}",
    ],
)
def test_values_of_the_right_type_pass(argument: str) -> None:
    check_types(["+experiment=humanomni_stage1_face", argument], "train")
