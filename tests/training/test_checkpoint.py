"""Checkpoints are complete or not there, and what is damaged is passed over."""

import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import SafetensorError
from torch.distributed.checkpoint.api import CheckpointException

from omnihuman.training.checkpoint import (
    COMPLETE,
    PARTIAL,
    STATE,
    TENSORS,
    Background,
    delete_old,
    encode,
    explain_failure,
    find_damage,
    find_newest,
    list_checkpoints,
    open_partial,
    read_state,
    seal,
    write_state,
)

CONTENT: dict[str, Any] = {
    "state_dict": {"a.weight": torch.arange(6.0).reshape(2, 3).t(), "b": torch.tensor(2, dtype=torch.uint8)},
    "optimizer_states": [{"state": {0: {"step": torch.tensor(3.0)}}, "param_groups": [{"betas": (0.9, 0.95)}]}],
    "callbacks": {"Selection": {"scores": {3: 0.5, 6: float("inf")}, "last_step": None}},
}


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


def assert_equal(value: Any, other: Any) -> None:
    assert type(value) is type(other)
    if isinstance(value, torch.Tensor):
        assert value.dtype == other.dtype and torch.equal(value, other)
    elif isinstance(value, dict):
        assert value.keys() == other.keys()
        for key in value:
            assert_equal(value[key], other[key])
    elif isinstance(value, list | tuple):
        for entry, second in zip(value, other, strict=True):
            assert_equal(entry, second)
    else:
        assert value == other


def test_a_state_comes_back_as_it_was(tmp_path: Path) -> None:
    folder = write(tmp_path / "step=3.ckpt")
    assert_equal(read_state(folder), CONTENT)
    assert find_damage(folder, check_content=True) is None
    assert [path.name for path in tmp_path.iterdir()] == ["step=3.ckpt"]


def test_a_state_is_copied(tmp_path: Path) -> None:
    weight, tensors = torch.zeros(2), dict[str, torch.Tensor]()
    encode({"weight": weight}, tensors)
    weight += 1
    assert tensors["/weight"].tolist() == [0.0, 0.0]


def test_what_cannot_be_stored_is_named() -> None:
    with pytest.raises(ValueError, match=r"/callbacks/Mine/lock.*object"):
        encode({"callbacks": {"Mine": {"lock": object()}}}, {})


def test_a_full_disk_is_said_with_what_is_left(tmp_path: Path) -> None:
    error = OSError(28, "No space left on device")
    for failure in (SafetensorError("No space left"), error, CheckpointException("save", {1: (error, None)})):
        expected = pytest.raises(OSError, match=r"step=2\.ckpt .*No space")
        with expected, explain_failure(tmp_path / "step=2.ckpt"):
            raise failure


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
        assert find_newest(tmp_path, check_content=True) == older
    assert "passed over" in caplog.text and "step=10.ckpt" in caplog.text
    DAMAGES[damage](older)
    with pytest.raises(ValueError, match=r"step=10\.ckpt.*step=9\.ckpt.*overwrite=true"):
        find_newest(tmp_path, check_content=True)


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
