"""Checkpoints are complete or not there, and what is damaged is passed over."""

import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from omnihuman.training.checkpoint import (
    COMPLETE,
    PARTIAL,
    RUN,
    STATE,
    TENSORS,
    Background,
    delete_old,
    find_change,
    find_newest,
    list_checkpoints,
    open_partial,
    seal,
)
from omnihuman.training.state import encode, read_state, write_state

CONTENT: dict[str, Any] = {"state_dict": {"weight": torch.arange(6.0)}, "global_step": 3}


def write(folder: Path, content: Any = CONTENT) -> Path:
    partial = open_partial(folder)
    tensors: dict[str, torch.Tensor] = {}
    write_state(partial, encode(content, tensors), tensors)
    seal(partial, folder, {})
    return folder


def write_text(folder: Path, text: str) -> Path:
    """Write a complete checkpoint for tests that look at folders alone."""
    partial = open_partial(folder)
    (partial / STATE).write_text(text)
    seal(partial, folder, {})
    return folder


def flip(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)


DAMAGES: dict[str, Callable[[Path], object]] = {
    "torn": lambda folder: (folder / TENSORS).write_bytes((folder / TENSORS).read_bytes()[:-5]),
    "empty": lambda folder: (folder / STATE).write_text(""),
    "missing": lambda folder: (folder / TENSORS).unlink(),
    "flipped": lambda folder: flip(folder / TENSORS),
    "unfinished": lambda folder: (folder / COMPLETE).unlink(),
    "foreign": lambda folder: (folder / COMPLETE).write_text('["other"]'),
    "pickled": lambda folder: (shutil.rmtree(folder), torch.save({"state_dict": {}}, folder)),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_checkpoint_is_passed_over(damage: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    older, newer = (write(tmp_path / f"step={step}.ckpt") for step in (9, 10))
    DAMAGES[damage](newer)
    with caplog.at_level(logging.WARNING):
        assert find_newest(tmp_path, find_change) == older
    assert "passed over" in caplog.text and "step=10.ckpt" in caplog.text
    DAMAGES[damage](older)
    with pytest.raises(ValueError, match=r"step=10\.ckpt.*step=9\.ckpt.*overwrite=true"):
        find_newest(tmp_path, find_change)


@pytest.mark.parametrize("place", range(3))
def test_processes_check_a_share_of_the_files_each(place: int, tmp_path: Path) -> None:
    names = [f"{number}.safetensors" for number in range(3)]
    partial = open_partial(tmp_path / "step=2.ckpt")
    for name in names:
        (partial / name).write_bytes(name.encode())
    seal(partial, tmp_path / "step=2.ckpt", {})
    flip(tmp_path / "step=2.ckpt" / names[place])
    problems = [find_change(tmp_path / "step=2.ckpt", other, 3) for other in range(3)]
    assert [problem is None for problem in problems] == [other != place for other in range(3)]
    assert str(problems[place]).startswith(names[place])


def test_a_checkpoint_of_another_run_is_passed_over(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    older = write(tmp_path / "step=2.ckpt", {RUN: "ours"})
    write(tmp_path / "step=4.ckpt", {RUN: "other"})
    with caplog.at_level(logging.WARNING):
        assert find_newest(tmp_path, run="ours") == older
    assert "step=4.ckpt: it belongs to another run" in caplog.text


def test_files_of_another_program_are_no_checkpoints_and_stay(tmp_path: Path) -> None:
    names = ["step=4-v1.ckpt", "step=last.ckpt", "epoch=0-step=4.ckpt"]
    for name in names:
        (tmp_path / name).write_bytes(b"other")
    newest = write(tmp_path / "step=2.ckpt")
    delete_old(tmp_path, 1)
    assert find_newest(tmp_path) == newest and all((tmp_path / name).is_file() for name in names)


def test_a_file_in_the_place_of_a_checkpoint_makes_room(tmp_path: Path) -> None:
    for step in (2, 4):
        (tmp_path / f"step={step}.ckpt").write_bytes(b"other")
    newest = write(tmp_path / "step=4.ckpt")
    delete_old(tmp_path, 1)
    assert list_checkpoints(tmp_path) == [newest]


def test_the_newest_stay(tmp_path: Path) -> None:
    for step in (2, 4, 6, 8):
        write(tmp_path / f"step={step}.ckpt")
    DAMAGES["torn"](tmp_path / "step=8.ckpt")
    (tmp_path / f"{PARTIAL}step=10.ckpt").mkdir()
    delete_old(tmp_path, 2)
    assert [path.name for path in list_checkpoints(tmp_path)] == ["step=8.ckpt", "step=6.ckpt", "step=4.ckpt"]
    assert not list(tmp_path.glob(f"{PARTIAL}*"))


def test_a_checkpoint_replaces_that_of_an_earlier_start(tmp_path: Path) -> None:
    write(tmp_path / "step=2.ckpt", {"loss": 1.0})
    write(tmp_path / "step=2.ckpt", {"loss": 2.0})
    assert read_state(tmp_path / "step=2.ckpt") == {"loss": 2.0}


def test_shards_of_another_node_must_be_there(tmp_path: Path) -> None:
    partial = open_partial(tmp_path / "step=2.ckpt")
    with pytest.raises(ValueError, match=r"shards/b.*shared disk"):
        seal(partial, tmp_path / "step=2.ckpt", {"shards/b": 1})


@pytest.mark.parametrize("is_asynchronous", [False, True])
def test_an_error_in_the_background_is_raised(is_asynchronous: bool) -> None:
    def fail() -> None:
        raise OSError("disk full")

    background = Background(is_asynchronous)
    with pytest.raises(OSError, match="disk full"):
        background.submit(fail)
        background.wait()
    background.submit(lambda: None)
    background.wait()
