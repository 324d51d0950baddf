"""A sharded run with frozen parameters resumes from its checkpoint, also without shards, and the other way round."""

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import get_model_state_dict, get_optimizer_state_dict
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor

from omnihuman.training.checkpoint import Background
from omnihuman.training.runs import Run
from omnihuman.training.sharded import ShardedStrategy, build_sharded_strategy, check_not_sharded, read_shards
from omnihuman.training.state import read_state
from tests.programs import call_on_ranks, run_ranks
from tests.smoke.test_train import build_overrides, read_column, read_losses

SCRIPT = """
import os, sys
from omnihuman.objective.base import Objective
from omnihuman.train import main

training_step = Objective.training_step

def failing_step(self, batch, batch_idx):
    if "FAIL" in os.environ and self.trainer.global_step == 3:
        raise RuntimeError("power failure")
    return training_step(self, batch, batch_idx)

Objective.training_step = failing_step
main(sys.argv[1:])
"""

MORE = (
    "init_from=[]",
    "frames=2",
    "data.features=null",
    "recipe.batch_size=4",
    "recipe.checkpoint_every=2",
    "trainer.accelerator=cpu",
    "trainer.max_steps=5",
    "logger=csv",
)
TWO = ("trainer=fsdp", "trainer.devices=2")


def launch(script: Path, corpus: Path, runs: Path, *more: str, **environment: str) -> int:
    overrides = ["+experiment=humanomni_stage1", *build_overrides(corpus, runs, *MORE, *more)]
    process = subprocess.run(
        [sys.executable, str(script), *overrides],
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
        check=False,
        timeout=300,
    )
    return process.returncode


def build_net(seed: int, *, is_sharded: bool) -> tuple[nn.Sequential, torch.optim.AdamW]:
    """Return a network of odd sizes and an optimizer with two groups, the later layer in the first of them."""
    torch.manual_seed(seed)
    net = nn.Sequential(nn.Linear(5, 3), nn.Tanh(), nn.Linear(3, 1))
    if is_sharded:
        fully_shard(net)
    groups = [{"params": net[2].parameters(), "lr": 0.1}, {"params": net[0].parameters(), "lr": 0.01}]
    return net, torch.optim.AdamW(groups, lr=1.0)


def step(net: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    torch.manual_seed(0)
    net(torch.randn(4, 5)).square().sum().backward()
    optimizer.step()
    optimizer.zero_grad()


def build_strategy(net: nn.Module, optimizer: torch.optim.Optimizer) -> Any:
    strategy: Any = ShardedStrategy(2, Background(False))
    rank, num_ranks = dist.get_rank(), dist.get_world_size()
    strategy.cluster_environment = SimpleNamespace(global_rank=lambda: rank, world_size=lambda: num_ranks)
    strategy.model, strategy.optimizers = net, [optimizer]
    strategy.writers = dist.new_group(backend="gloo")
    return strategy


def read_parameters(net: nn.Module) -> list[Tensor]:
    parameters = [parameter.detach() for parameter in net.parameters()]
    return [parameter.full_tensor() if isinstance(parameter, DTensor) else parameter for parameter in parameters]


def resume_otherwise(folder: str) -> list[float]:
    """Return the differences, after a step, of two resumed trainings from one that has gone on."""
    checkpoint = Path(folder, "step=1.ckpt")
    net, optimizer = build_net(0, is_sharded=True)
    step(net, optimizer)
    state = {"state_dict": get_model_state_dict(net), "optimizer_states": [get_optimizer_state_dict(net, optimizer)]}
    build_strategy(net, optimizer).save_checkpoint({**state, "epoch": 1}, checkpoint)
    full, (plain, plain_optimizer) = read_shards(checkpoint), build_net(1, is_sharded=False)
    assert "param_groups" not in full and full["epoch"] == read_state(checkpoint)["epoch"]
    plain.load_state_dict(full["state_dict"])
    plain_optimizer.load_state_dict(full["optimizer_states"][0])
    again, again_optimizer = build_net(2, is_sharded=True)
    rest = build_strategy(again, again_optimizer)._load_whole(read_shards(checkpoint))  # no tensors in common
    assert set(rest["state_dict"]) == set(net.state_dict()) and rest["epoch"] == 1
    for other, other_optimizer in ((net, optimizer), (plain, plain_optimizer), (again, again_optimizer)):
        step(other, other_optimizer)
    differences = []
    for other in (plain, again):
        for parameter, expected in zip(read_parameters(other), read_parameters(net), strict=True):
            differences.append(float((parameter - expected).abs().max()))
    return differences


def test_a_checkpoint_is_read_with_shards_and_without(tmp_path: Path) -> None:
    for differences in call_on_ranks(2, resume_otherwise, str(tmp_path)):
        assert len(differences) == 8 and max(differences) < 1e-6


@pytest.mark.slow
def test_sharded_run_resumes(corpus: Path, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    more = (*TWO, "trainer.limit_val_batches=0")
    assert launch(script, corpus, tmp_path / "uninterrupted", *more) == 0
    assert launch(script, corpus, tmp_path / "resumed", *more, FAIL="1") != 0
    assert launch(script, corpus, tmp_path / "resumed", *more) == 0
    uninterrupted, resumed = (
        Run(tmp_path / name / "nano/humanomni_stage1", "") for name in ("uninterrupted", "resumed")
    )
    assert len(read_losses(resumed)) == 5 and read_losses(resumed) == read_losses(uninterrupted)
    assert resumed.weights.read_bytes() == uninterrupted.weights.read_bytes()


@pytest.mark.slow
def test_replicated_shards_have_the_losses_of_one_process_and_resume_on_two(corpus: Path, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    replicated = ("trainer=hsdp", "trainer.replicate=2")
    more = (
        "trainer.limit_val_batches=1",
        "data.val_limit=4",
        "validation.views=[V]",
        "validation.limit=2",
        "val_every=2",
    )

    def run(name: str, num_ranks: int, *trainer: str) -> Run:
        common = build_overrides(corpus, tmp_path / name, *MORE, *more, f"trainer.devices={num_ranks}")
        run_ranks(num_ranks, "omnihuman.train", "+experiment=humanomni_stage1", *common, *trainer)
        return Run(tmp_path / name / "nano/humanomni_stage1", "")

    one = run("one", 1)
    assert_equal_columns(one, run("four", 4, *replicated))
    assert launch(script, corpus, tmp_path / "resumed", *more, *replicated, "trainer.devices=4", FAIL="1") != 0
    assert_equal_columns(one, run("resumed", 2, "trainer=fsdp"))


def assert_equal_columns(one: Run, other: Run) -> None:
    for name, num_values in (("train/loss", 5), ("train/grad_norm", 5), ("val/loss", 3)):
        values = read_column(one, name)
        assert len(values) == num_values and read_column(other, name) == pytest.approx(values, abs=1e-5, rel=1e-5)


@pytest.mark.parametrize(("num_ranks", "replicate"), [(4, 3), (4, 0), (2, 4), (4, "two")])
def test_number_of_replicas_that_does_not_divide_the_ranks_is_refused(num_ranks: int, replicate: Any) -> None:
    with pytest.raises(ValueError, match=rf"trainer\.replicate={replicate}: .* {num_ranks}\."):
        build_sharded_strategy(2, Background(False), num_ranks, reduce_each=True, replicate=replicate)


@pytest.mark.parametrize(("reduce_each", "replicate"), [(True, 2), (False, 1)])
def test_options_of_a_sharded_model_need_one(reduce_each: bool, replicate: int) -> None:
    check_not_sharded("ddp", reduce_each=True, replicate=1)
    with pytest.raises(ValueError, match=r"trainer=fsdp or trainer=hsdp"):
        check_not_sharded("ddp", reduce_each=reduce_each, replicate=replicate)
