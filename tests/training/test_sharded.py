"""A sharded run with frozen parameters resumes from its checkpoint."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from omnihuman.training.checkpoint import Background
from omnihuman.training.runs import Run
from omnihuman.training.sharded import build_sharded_strategy, check_not_sharded
from tests.programs import run_ranks
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
