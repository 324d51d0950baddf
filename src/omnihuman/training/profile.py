"""A trace of a few steps by torch's profiler."""

from pathlib import Path
from typing import Any

import torch

from omnihuman.pl import pl
from omnihuman.training.ledger import Clock

FIRST_STEP, NUM_STEPS = 3, 3
"""Optimizer steps of a process before the trace, which are slower, and those in it."""

NUM_ROWS = 40
"""Operations in the table."""


class StepProfile(pl.Callback):
    """Writes a trace of a few optimizer steps, for chrome://tracing or Perfetto, and a table of their operations.

    The files are ``trace_<rank>.json`` and ``operations_<rank>.txt``. A training with fewer steps is traced to its end.

    Args:
        folder: of the files.
        clock: counts the seconds in which they are written.
    """

    def __init__(self, folder: Path, clock: Clock) -> None:
        self.folder, self.clock = folder, clock
        self.profiler: torch.profiler.profile | None = None
        self.num_steps = 0

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        """Begin the trace, also in the first step of a training that has no more."""
        is_last = trainer.max_steps >= 0 and trainer.global_step + 1 >= trainer.max_steps
        is_first = self.num_steps == FIRST_STEP or (is_last and self.num_steps < FIRST_STEP)
        if is_first and self.profiler is None:
            self.profiler = torch.profiler.profile(record_shapes=True)
            self.profiler.start()

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Count the steps, and end the trace."""
        self.num_steps += 1
        if self.num_steps == FIRST_STEP + NUM_STEPS:
            self._write(trainer.global_rank)

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        """End the trace of a training that was shorter."""
        self._write(trainer.global_rank)

    def _write(self, rank: int) -> None:
        if self.profiler is None:
            return
        use = self.clock.switch("profile")
        profiler, self.profiler = self.profiler, None
        self.num_steps = FIRST_STEP + NUM_STEPS
        profiler.stop()
        self.folder.mkdir(parents=True, exist_ok=True)
        profiler.export_chrome_trace(str(self.folder / f"trace_{rank}.json"))
        key = "self_cuda_time_total" if torch.cuda.is_available() else "self_cpu_time_total"
        table = profiler.key_averages().table(sort_by=key, row_limit=NUM_ROWS)
        (self.folder / f"operations_{rank}.txt").write_text(table)
        self.clock.switch(use)
