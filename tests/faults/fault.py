"""``omnihuman train`` with a fault that ``FAULT`` names: what happens, the optimizer step, and on which rank.

``die 5 *`` kills every rank before its sixth step, ``worker 3 0`` a data worker of rank 0, ``nan 2 1`` makes a loss of
rank 1 NaN. ``slow 0 *``: files whose names begin with ``slow`` are read for five seconds before their first packet.
"""

import multiprocessing
import os
import signal
import time
from pathlib import Path
from typing import Any

from omnihuman import train
from omnihuman.data import media
from omnihuman.objective.base import Objective


def inject(kind: str, step: int, rank: str) -> None:
    """Let a fault happen once, at a step of one rank or of all."""
    training_step, demux = Objective.training_step, media.demux

    def step_with_fault(self: Objective, batch: Any, batch_idx: int) -> Any:
        if self.trainer.global_step != step or rank not in ("*", str(self.trainer.global_rank)):
            return training_step(self, batch, batch_idx)
        if kind == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        for worker in multiprocessing.active_children() if kind == "worker" else ():
            worker.kill()
            worker.join()
        loss = training_step(self, batch, batch_idx)
        if kind == "nan":
            self.step_losses[-1] = loss = loss * float("nan")
        return loss

    def demux_slowly(path: Path, *args: Any, **kwargs: Any) -> Any:
        if kind == "slow" and path.name.startswith("slow"):
            time.sleep(5)
        return demux(path, *args, **kwargs)

    Objective.training_step = step_with_fault  # type: ignore[method-assign]
    media.demux = demux_slowly  # type: ignore[attr-defined]


if __name__ == "__main__":
    name, number, place = os.environ["FAULT"].split()
    inject(name, int(number), place)
    train.main()
