"""A training in processes of its own, as a user starts it, that tests can kill or give a fault."""

import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess, Popen

from omnihuman.training.checkpoint import COMPLETE
from omnihuman.training.runs import Run
from tests.programs import Program, start_ranks
from tests.smoke.test_train import build_overrides

SHORT = (
    "init_from=[]",
    "frames=2",
    "data.features=null",
    "recipe.batch_size=4",
    "recipe.max_tokens=400",
    "recipe.checkpoint_every=2",
    "trainer.max_steps=8",
    "trainer.limit_val_batches=0",
    "validation.views=[]",
    "logger=csv",
)
"""Eight steps of few frames, a checkpoint after every second one."""

PATIENCE = 900.0
"""Seconds after which a training hangs: four ranks share two cores with other programs."""

LORA = "model.llm.lora={r: 4, lora_alpha: 8, lora_dropout: 0.0, target_modules: all-linear}"


class Training:
    """A run of a stage.

    Args:
        corpus: folder of the records.
        runs: parent folder of the run.
        more: overrides beside ``SHORT``.
        experiment: its name.
    """

    def __init__(self, corpus: Path, runs: Path, *more: str, experiment: str = "humanomni_stage1") -> None:
        self.overrides = [f"+experiment={experiment}", *build_overrides(corpus, runs, *SHORT, *more)]
        self.run = Run(runs / "nano" / experiment, "")

    def start(
        self,
        num_ranks: int = 1,
        strategy: str = "fsdp",
        file_size: int | None = None,
        fault: str | None = None,
        limit: Callable[[], object] | None = None,
    ) -> Popen[str]:
        """Start it in a group of processes of its own, on ranks that Lightning starts.

        Args:
            num_ranks: their number.
            strategy: the trainer.
            file_size: bytes after which a file cannot grow, as on a full disk.
            fault: see ``tests.faults.fault``.
            limit: called in the new process.
        """

        def limit_size() -> None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (file_size, file_size))

        if file_size is not None:
            limit = limit_size
        module, variables = _choose_program(fault)
        return Popen(
            [sys.executable, "-m", module, *self.build_command_line(num_ranks, strategy)],
            env={**os.environ, "OMP_NUM_THREADS": "1", **variables},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
            preexec_fn=limit,
        )

    def build_command_line(self, num_ranks: int, strategy: str) -> list[str]:
        """Return the overrides of a training on a number of ranks."""
        overrides = [*self.overrides, "trainer.accelerator=cpu", f"trainer.devices={num_ranks}"]
        return overrides if strategy == "auto" else [*overrides, f"trainer={strategy}"]

    def run_forked(
        self, num_ranks: int = 1, strategy: str = "fsdp", *more: str, fault: str | None = None
    ) -> list[CompletedProcess[str]]:
        """Run it on ranks that need not import torch again, and return how each has ended.

        Args:
            num_ranks: their number.
            strategy: the trainer.
            more: overrides.
            fault: see ``tests.faults.fault``.
        """
        return [program.wait(PATIENCE) for program in self.start_forked(num_ranks, strategy, *more, fault=fault)]

    def start_forked(
        self, num_ranks: int = 1, strategy: str = "fsdp", *more: str, fault: str | None = None
    ) -> list[Program]:
        """Start it on ranks that need not import torch again; the arguments are those of ``run_forked``."""
        module, variables = _choose_program(fault)
        command_line = [*self.build_command_line(num_ranks, strategy), *more]
        if num_ranks == 1:
            return [Program(module, *command_line, environment=variables)]
        return start_ranks(num_ranks, module, *command_line, **variables)

    def finish_forked(self, num_ranks: int = 1, strategy: str = "fsdp", *more: str) -> str:
        """Run it to its end on ranks that need not import torch again, and return the output of the first."""
        ends = self.run_forked(num_ranks, strategy, *more)
        for end in ends:
            assert end.returncode == 0, f"{end.stdout[-3000:]}{end.stderr[-3000:]}"
        return ends[0].stdout + ends[0].stderr

    def finish(self, num_ranks: int = 1, strategy: str = "fsdp") -> str:
        """Run it to its end and return its output."""
        process = self.start(num_ranks, strategy)
        output, _ = process.communicate(timeout=PATIENCE)
        assert process.returncode == 0, output[-4000:]
        return output

    def has_checkpoint(self, step: int) -> bool:
        """Return true if a checkpoint of this step, or of a later one, is complete."""
        files = self.run.checkpoints.glob(f"step=*.ckpt/{COMPLETE}")
        return any(int(file.parent.stem.removeprefix("step=")) >= step for file in files)


def _choose_program(fault: str | None) -> tuple[str, dict[str, str]]:
    return ("omnihuman.train", {}) if fault is None else ("tests.faults.fault", {"FAULT": fault})


def wait_until(condition: Callable[[], bool], process: Popen[str], timeout: float = 300) -> None:
    """Wait for a condition while a process runs."""
    end = time.monotonic() + timeout
    while not condition():
        assert process.poll() is None, process.communicate()[0][-4000:]
        assert time.monotonic() < end, "timeout"
        time.sleep(0.02)


def kill(process: Popen[str]) -> None:
    """Kill all processes of a training at once, as a node that loses its power."""
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
