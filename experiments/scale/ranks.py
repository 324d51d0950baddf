"""Ranks of a training, forked from a process that has imported torch, and what a rank measures."""

import json
import multiprocessing
import os
import socket
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from copy import copy
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from omnihuman.build import compose_config
from omnihuman.data.packing import EpochPlan
from omnihuman.pl import pl
from omnihuman.training.saver import Saver
from omnihuman.training.stage import run_stage

COUNTED_STEP = 2
"""Optimizer step whose collectives are counted: by then all buffers exist."""


def read_anonymous_memory() -> int:
    """Return the bytes of this process that no file and no other process has: RssAnon of Linux."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return 1024 * int(line.split()[1])
    raise OSError("/proc/self/status has no RssAnon.")


class Collectives(TorchDispatchMode):
    """Counts the collectives that run within it, and the bytes that leave or reach this rank.

    Attributes:
        calls: number by the operation's name.
        bytes: by the operation's name: the whole tensor that is gathered, reduced and scattered, or reduced.
    """

    def __init__(self) -> None:
        super().__init__()
        self.calls, self.bytes = Counter[str](), Counter[str]()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.namespace == "c10d":
            name = func.__name__.partition(".")[0].strip("_")
            self.calls[name] += 1
            self.bytes[name] += max(map(_count_bytes, args))
        return func(*args, **(kwargs or {}))


def _count_bytes(value: Any) -> int:
    return sum(tensor.nbytes for tensor in _list_tensors(value))


def _list_tensors(value: Any) -> Iterator[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, list | tuple):
        for entry in value:
            yield from _list_tensors(entry)


class Probe(pl.Callback):
    """Measures a rank: memory that its model takes, the collectives of a step, the stall of every checkpoint.

    Every second checkpoint is written asynchronously, the first one too; the others block.
    """

    def __init__(self) -> None:
        self.before, self.memory = read_anonymous_memory(), 0
        self.stalls: list[float] = []
        self.collectives, self.micro_batches = Collectives(), 0
        self._is_counting = False

    def on_fit_start(self, trainer: Any, pl_module: Any) -> None:
        self.memory = read_anonymous_memory() - self.before
        save = trainer.save_checkpoint
        (saver,) = [callback for callback in trainer.callbacks if isinstance(callback, Saver)]

        def save_timed(*args: Any, **kwargs: Any) -> None:
            saver.background.wait()  # a checkpoint follows the one before sooner than in any other training
            saver.background.is_asynchronous = len(self.stalls) % 2 == 0
            start = time.perf_counter()
            save(*args, **kwargs)
            self.stalls.append(time.perf_counter() - start)

        trainer.save_checkpoint = save_timed

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        if trainer.global_step == COUNTED_STEP and not self._is_counting:
            self.micro_batches = len(batch)
            self.collectives.__enter__()
            self._is_counting = True

    def on_before_optimizer_step(self, trainer: Any, pl_module: Any, optimizer: Any) -> None:
        if self._is_counting:  # before the collectives of logs and of the gradient's norm
            self.collectives.__exit__(None, None, None)
            self._is_counting = False

    def measured(self) -> dict[str, Any]:
        return {
            "memory": self.memory,
            "stalls": self.stalls,
            "micro_batches": self.micro_batches,
            "calls": dict(self.collectives.calls),
            "bytes": dict(self.collectives.bytes),
        }


def train(
    overrides: Sequence[str], num_ranks: int, folder: Path, timeout: float, num_rows: int | None = None
) -> list[dict[str, Any]]:
    """Train in as many processes and return what each rank has measured.

    Args:
        overrides: of the command line of ``omnihuman train``.
        num_ranks: processes on this machine, as torchrun starts them.
        folder: of their outputs, ``rank<number>.txt``.
        timeout: seconds after which a training hangs.
        num_rows: divide a step into the rows of so many ranks, ``None``: of ``num_ranks``.

    Raises:
        RuntimeError: a rank fails or hangs; the message has the end of its output.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    context = multiprocessing.get_context("fork")
    processes = []
    for rank in range(num_ranks):
        process = context.Process(target=_run_rank, args=(overrides, rank, num_ranks, port, folder, num_rows))
        process.start()
        processes.append(process)
    with _no_orphans(processes):
        end = time.monotonic() + timeout
        while any(process.is_alive() for process in processes):
            if any(process.exitcode for process in processes):
                time.sleep(2)  # for the outputs of the others
                break
            if time.monotonic() > end:
                raise RuntimeError(f"hangs for {timeout:.0f} s: {_read_tail(folder / 'rank0.txt')}")
            time.sleep(0.05)
    for rank, process in enumerate(processes):
        if process.exitcode and process.exitcode > 0:
            raise RuntimeError(f"rank {rank}: {_read_tail(folder / f'rank{rank}.txt')}")
    return [json.loads((folder / f"rank{rank}.json").read_text()) for rank in range(num_ranks)]


@contextmanager
def _no_orphans(processes: Sequence[BaseProcess]) -> Iterator[None]:
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.join()


def _read_tail(file: Path) -> str:
    return " | ".join(file.read_text(errors="replace").splitlines()[-12:])


def _run_rank(
    overrides: Sequence[str], rank: int, num_ranks: int, port: int, folder: Path, num_rows: int | None
) -> None:
    output = os.open(folder / f"rank{rank}.txt", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for stream in (1, 2):
        os.dup2(output, stream)
    if num_ranks > 1:
        os.environ |= {
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(port),
            "WORLD_SIZE": str(num_ranks),
            "LOCAL_WORLD_SIZE": str(num_ranks),
            "RANK": str(rank),
            "LOCAL_RANK": str(rank),
            "GROUP_RANK": "0",
            "TORCHELASTIC_RUN_ID": "scale",
        }
    if num_rows is not None and num_rows != num_ranks:
        _divide_rows(num_rows)
    probe = Probe()
    run_stage(compose_config(overrides), overrides, callbacks=[probe])
    (folder / f"rank{rank}.json").write_text(json.dumps(probe.measured()))


def _divide_rows(num_ranks: int) -> None:
    """Let this process divide steps into rows as so many ranks would, and take all of them."""
    pack = EpochPlan.pack

    def pack_for_ranks(plan: EpochPlan, position: int) -> list[list[int]]:
        divided = copy(plan)
        divided.world = num_ranks
        return pack(divided, position)

    EpochPlan.pack = pack_for_ranks  # type: ignore[method-assign]
