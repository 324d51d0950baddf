"""A sharded run with frozen parameters resumes from its checkpoint."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from omnihuman.training.runs import Run
from tests.smoke.test_train import build_overrides, read_losses

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
    "trainer=fsdp",
    "trainer.accelerator=cpu",
    "trainer.devices=2",
    "trainer.max_steps=5",
    "trainer.limit_val_batches=0",
    "logger=csv",
)


def launch(script: Path, corpus: Path, runs: Path, **environment: str) -> int:
    overrides = ["+experiment=humanomni_stage1", *build_overrides(corpus, runs, *MORE)]
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
    assert launch(script, corpus, tmp_path / "uninterrupted") == 0
    assert launch(script, corpus, tmp_path / "resumed", FAIL="1") != 0
    assert launch(script, corpus, tmp_path / "resumed") == 0
    uninterrupted, resumed = (
        Run(tmp_path / name / "nano/humanomni_stage1", "") for name in ("uninterrupted", "resumed")
    )
    assert len(read_losses(resumed)) == 5 and read_losses(resumed) == read_losses(uninterrupted)
    assert resumed.weights.read_bytes() == uninterrupted.weights.read_bytes()
