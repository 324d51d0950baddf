"""Mistakes of users: every row of the guide's table, typed into the real programs."""

import json
import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from omnihuman.mistake import explain
from omnihuman.training.runs import Run
from tests.data.conftest import write_clip

GUIDE = Path(__file__).parents[1] / "docs" / "guide" / "mistakes.md"
ROW = re.compile(r"^\| `(.+?)` \| `(.+?)` \|$", re.MULTILINE)
GROUP = re.compile(r"^[+~]*(data\.records|[^=.]*)")
MORE = ("+experiment=humanomni_stage1_face", "data=json", "data.root=media", "data.records=train.json")
TURNS = [{"from": "human", "value": "<video>\nWho?"}, {"from": "gpt", "value": "A man."}]
RECORD = {"id": "1", "video": "a.mp4", "conversations": TURNS}
OPENAI = [{"role": "user", "content": "Who?"}, {"role": "assistant", "content": "A man."}]
FILES = {
    "train.json": json.dumps([RECORD]),
    "table.csv": "id,video\n1,a.mp4\n",
    "latin.csv": b"video,emotion\na.mp4,f\xfcr\n",
    "folds.csv": "video,emotion,fold\na.mp4,joy,1\nb.mp4,joy,2\n",
    "people.csv": "video,emotion,split,who\na.mp4,joy,train,Ann\nb.mp4,joy,test,Ann\n",
    "comma.json": '[{"id": "1"},]',
    "lines.json": '{"id": "1"}\n{"id": "2"}\n',
    "list.jsonl": json.dumps([RECORD]),
    "roles.json": json.dumps([RECORD | {"conversations": [{"from": "user", "value": "Who?"}]}]),
    "messages.json": json.dumps([{"videos": ["a.mp4"], "messages": OPENAI}]),
    "windows.json": json.dumps([RECORD | {"video": "clips\\a.mp4"}]),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with data files, most of them wrong, a clip, and a finished run of another config."""
    folder = tmp_path_factory.mktemp("mistakes")
    (folder / "media").mkdir()
    write_clip(folder / "media" / "a.mp4", num_frames=10, seconds=0)
    (folder / "media" / "b.mp4").hardlink_to(folder / "media" / "a.mp4")
    for name, content in FILES.items():
        (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    run = Run(folder / "runs" / "nano" / "humanomni_stage1_face", "old")
    run.open(OmegaConf.create({"name": "old"}))
    run.weights.touch()
    run.finish()
    return folder


def list_runs(folder: Path) -> dict[str, bytes]:
    """Return path -> content of the files of all runs."""
    runs = folder / "runs"
    files = [path for path in runs.rglob("*") if path.is_file() and path.suffix != ".lock"]
    files = [path for path in files if runs / "index" not in path.parents]  # plans, for all runs
    return {str(path): path.read_bytes() for path in files}


def complete(words: list[str]) -> list[str]:
    """Return arguments with those that the dots at their end stand for."""
    if words[-1:] != ["…"]:
        return words
    keys = {word.partition("=")[0] for word in words}
    return words[:-1] + [word for word in MORE if word.partition("=")[0] not in keys]


def list_rows() -> list[Any]:
    """Return the rows of the table; all but the first of ``train`` and a group of keys are slow."""
    rows, keys = [], set[tuple[str, str]]()
    for command, answer in ROW.findall(GUIDE.read_text(encoding="utf-8")):
        verb, *words = command.removesuffix(" …").split()
        key = (verb, GROUP.findall(words[-1])[0] if verb == "train" and words else command)
        rows.append(pytest.param(command, answer, marks=pytest.mark.slow if key in keys else ()))
        keys.add(key)
    return rows


@pytest.mark.parametrize(("command", "answer"), list_rows())
def test_a_mistake_is_one_line(
    command: str, answer: str, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "argv", ["omnihuman"])
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)  # a name that is no folder is looked up there
    verb, *words = command.split()
    runs = list_runs(folder)
    with pytest.raises(SystemExit) as caught:
        import_module(f"omnihuman.{verb}").main(complete(words))
    message = str(caught.value.code)
    assert message.startswith("error: ") and "\n" not in message, "sys.exit prints it and returns 1"
    assert answer in message
    assert "Error" not in capsys.readouterr().err
    assert list_runs(folder) == runs, "no mistake touches a finished run"


@pytest.mark.parametrize(
    ("error", "root", "cures"),
    [
        (MemoryError(), "generate", ["batch_size (8)", "dtype=bfloat16"]),
        (
            RuntimeError("DefaultCPUAllocator: can't allocate memory"),
            "train",
            ["recipe.max_tokens (", "trainer=fsdp"],
        ),
        (ValueError("model: RuntimeError"), "train", ["at 3.00 GiB", "omnihuman plan +experiment=humanomni_stage1"]),
    ],
)
def test_out_of_memory_names_what_needs_less(error: Exception, root: str, cures: list[str]) -> None:
    if isinstance(error, ValueError):
        error.__cause__ = RuntimeError("CUDA out of memory. Tried to allocate 3.00 GiB.")
    arguments = ["+experiment=humanomni_stage1"] if root == "train" else []
    message = explain(error, arguments, root)
    assert message is not None and message.startswith("out of memory")
    assert [cure for cure in cures if cure not in message] == []


def test_an_error_of_the_program_is_not_explained() -> None:
    assert explain(RuntimeError("size mismatch"), [], "train") is None
    assert explain(KeyError("x"), [], "train") is None


def test_a_sample_that_a_process_could_not_decode_is_one_line() -> None:
    error = ValueError(
        "Caught BadSample in DataLoader worker process 0.\nOriginal Traceback (most recent call last):\n x"
    )
    assert explain(error, [], "train") == "Caught BadSample in DataLoader worker process 0."


@pytest.mark.parametrize(
    "arguments",
    [
        "train +experiment=humanomni_stag1",
        "train +experiment=humanomni_stage1_face patience=few",
        "plan +experiment=humanomni_stag1",
        "generate run=nothing video=a.mp4",
    ],
)
def test_a_mistake_that_needs_no_torch_imports_none(arguments: str, folder: Path) -> None:
    verb, *rest = arguments.split()
    code = f"import runpy, sys; sys.modules['torch'] = None; sys.argv[1:] = {rest}; "
    code += f"runpy.run_module('omnihuman.{verb}', run_name='__main__')"
    result = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=False)
    assert result.returncode == 1 and result.stderr.startswith("error: "), result.stderr
    assert "torch" not in result.stderr and result.stderr.count("\n") == 1
