"""The state of a training comes back as it was."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import SafetensorError
from torch.distributed.checkpoint.api import CheckpointException

from omnihuman.training.checkpoint import find_change, find_damage, open_partial
from omnihuman.training.state import complete, encode, explain_failure, read_state

CONTENT: dict[str, Any] = {
    "state_dict": {"a.weight": torch.arange(6.0).reshape(2, 3).t(), "b": torch.tensor(2, dtype=torch.uint8)},
    "optimizer_states": [{"state": {0: {"step": torch.tensor(3.0)}}, "param_groups": [{"betas": (0.9, 0.95)}]}],
    "callbacks": {"Selection": {"scores": {3: 0.5, 6: float("inf")}, "last_step": None}},
}


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
    folder = tmp_path / "step=3.ckpt"
    tensors: dict[str, torch.Tensor] = {}
    complete(open_partial(folder), folder, encode(CONTENT, tensors), tensors, 1)
    assert_equal(read_state(folder), CONTENT)
    assert find_damage(folder) is None and find_change(folder) is None
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
