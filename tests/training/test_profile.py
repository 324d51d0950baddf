"""A trace of a few steps."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from omnihuman.training.ledger import Clock
from omnihuman.training.profile import StepProfile


@pytest.mark.parametrize(("max_steps", "num_products"), [(-1, 3), (2, 1)])
def test_trace_has_a_few_steps(tmp_path: Path, max_steps: int, num_products: int) -> None:
    profile, matrix = StepProfile(tmp_path / "profile", Clock()), torch.ones(3, 3)
    trainer = SimpleNamespace(max_steps=max_steps, global_step=0, global_rank=1)
    for number in range(10 if max_steps < 0 else max_steps):
        trainer.global_step = number
        profile.on_train_batch_start(trainer, None, None, number)
        torch.mm(matrix, matrix)
        profile.on_train_batch_end(trainer, None, None, None, number)
    profile.on_train_end(trainer, None)
    assert profile.clock.seconds["profile"] > 0 and profile.clock.use == "start"
    events = json.loads((tmp_path / "profile" / "trace_1.json").read_text())["traceEvents"]
    assert sum(event.get("name") == "aten::mm" for event in events) == num_products
    assert "aten::mm" in (tmp_path / "profile" / "operations_1.txt").read_text()
