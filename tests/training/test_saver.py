"""Checkpoints are written when they are due, and resumed on another number of devices."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from omnihuman.training.checkpoint import Background, find_newest, list_checkpoints
from omnihuman.training.runs import Run
from omnihuman.training.saver import CheckpointFolders, Saver


class Trainer(SimpleNamespace):
    """As much of Lightning's trainer as a saver reads."""

    def __init__(self, folders: CheckpointFolders | None = None, **more: Any) -> None:
        options = {"global_step": 0, "global_rank": 0, "world_size": 1, "loggers": []}
        super().__init__(folders=folders, state=SimpleNamespace(fn="fit"), **(options | more))

    def save_checkpoint(self, path: Path) -> None:
        assert self.folders is not None
        self.folders.save_checkpoint({"global_step": self.global_step}, path)


def train(saver: Saver, trainer: Trainer, num_steps: int, *, validates_every: int = 100) -> None:
    for batch_idx in range(num_steps):
        trainer.global_step += 1
        saver.on_train_batch_end(trainer, None, None, None, batch_idx)
        if trainer.global_step % validates_every == 0:
            saver.on_validation_end(trainer, None)
    saver.on_train_end(trainer, None)


@pytest.mark.parametrize("is_asynchronous", [False, True])
def test_the_newest_checkpoints_stay(is_asynchronous: bool, tmp_path: Path) -> None:
    background = Background(is_asynchronous)
    saver = Saver(Run(tmp_path, "aaa"), 2, lambda step: False, background)
    train(saver, Trainer(CheckpointFolders(2, background)), 7)
    assert [path.name for path in list_checkpoints(saver.folder)] == ["step=6.ckpt", "step=4.ckpt"]


def test_a_checkpoint_waits_for_the_validation_that_decides_something(tmp_path: Path) -> None:
    background = Background(False)
    saver = Saver(Run(tmp_path, "aaa"), 2, lambda step: step == 4, background)
    trainer = Trainer(CheckpointFolders(9, background))
    saver.on_validation_end(trainer, None)
    train(saver, trainer, 4, validates_every=9)
    assert find_newest(saver.folder) == saver.folder / "step=2.ckpt"
    saver.on_validation_end(trainer, None)
    assert find_newest(saver.folder) == saver.folder / "step=4.ckpt"


def load(saver: Saver, states: list[dict[str, torch.Tensor]], rank: int, world_size: int) -> float:
    checkpoint = {"global_step": 1, "rng": states}
    module = SimpleNamespace(device=torch.device("cpu"))
    saver.on_load_checkpoint(Trainer(global_rank=rank, world_size=world_size), module, checkpoint)
    return float(torch.rand(()))


def test_random_numbers_go_on_on_every_rank(tmp_path: Path) -> None:
    saver = Saver(Run(tmp_path, "aaa"), 2, lambda step: False, Background(False))
    states, expected = [], []
    for seed in (3, 4):
        torch.manual_seed(seed)
        states.append({"cpu": torch.get_rng_state()})
        expected.append(float(torch.rand(())))
    assert [load(saver, states, rank, 2) for rank in (0, 1)] == expected
    numbers = {load(saver, states, rank, 4) for rank in range(4)}
    assert len(numbers) == 4 and numbers.isdisjoint(expected)
