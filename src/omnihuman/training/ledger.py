"""The costs of a training: FLOPs by part, the use of its seconds, MFU and goodput."""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from omnihuman.cost.flops import CONVENTION, FlopCounter, FlopModel, describe_batch, list_parts
from omnihuman.cost.peaks import find_peak
from omnihuman.model.dtypes import AUTOCAST
from omnihuman.pl import pl
from omnihuman.training.callbacks import Throughput
from omnihuman.training.runs import TIME_FILE
from omnihuman.types import Batch, Batches

WRITE_EVERY = 10.0
"""Seconds after which the file is written anew."""


class Clock:
    """Seconds by their use; one use at a time.

    Attributes:
        seconds: by use.
    """

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {"start": 0.0}
        self.use = "start"
        self._last = time.perf_counter()

    def switch(self, use: str) -> str:
        """Begin another use, and return the one that ends."""
        now = time.perf_counter()
        self.seconds[self.use] = self.seconds.get(self.use, 0.0) + now - self._last
        previous, self.use, self._last = self.use, use, now
        return previous


class Ledger(pl.Callback):
    """Counts FLOPs and seconds of a training; logs ``train/tflops``, ``train/clips_per_second`` and ``train/mfu``.

    FLOPs are counted in the first batches and computed for the others, see ``FlopModel``. All numbers are sums over the
    ranks; the seconds are those of rank 0. Work that the ranks do while the devices exchange gradients is not told
    apart from that: both are ``compute``.

    Args:
        folder: of the run.
        precision: of the run; MFU is that of half precision.
        throughput: measures the waiting as well.
    """

    def __init__(self, folder: Path, precision: str, throughput: Throughput) -> None:
        self.file, self.precision, self.throughput = folder / TIME_FILE, precision, throughput
        self.clock, self.flop_model = Clock(), FlopModel()
        self.attempts: list[dict[str, float]] = []
        self.parts: dict[str, float] = {}
        self.clips = 0.0
        self.before: dict[str, float] = {}
        self.peak: float | None = None
        self.device, self.num_devices = "", 1
        self._names: list[str] = []
        self._step: dict[str, float] = {}
        self._step_start = (0.0, 0.0)
        self._written = -WRITE_EVERY
        self._resumed = "start"

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """Find the peak of the devices, and the processes that have trained the run before."""
        if self._names:
            return
        self._names = [name for name, _ in list_parts(pl_module.model)]
        self.parts = dict.fromkeys(self._names, 0.0) | self.parts
        self.num_devices, self.device = trainer.world_size, "cpu"
        root = trainer.strategy.root_device
        if root.type == "cuda":
            self.device = torch.cuda.get_device_name(root)
        if self.precision in AUTOCAST:  # products are computed at the peak of which MFU is a share
            self.peak = find_peak(self.device)
        if self.file.is_file():
            self.attempts = json.loads(self.file.read_text())
        pl_module.measure = self._measure
        save = trainer.save_checkpoint

        def save_timed(*args: Any, **kwargs: Any) -> None:
            use = self.clock.switch("checkpoint")
            save(*args, **kwargs)
            self.clock.switch(use)
            self.throughput.ignore_time()  # no waiting for data

        trainer.save_checkpoint = save_timed

    @contextmanager
    def _measure(self, model: Any, batch: Batch) -> Iterator[None]:
        """Surround a forward pass, whose FLOPs are counted as long as they cannot be computed."""
        amounts = describe_batch(batch)
        if self.flop_model.is_settled:
            yield
        else:
            counter = FlopCounter(model)
            with counter.count():
                yield
            self.flop_model.observe(amounts, counter.parts)
        for name, flops in self.flop_model.compute(amounts).items():
            self._step[name] = self._step.get(name, 0.0) + flops
        clips = max((value for name, value in amounts.items() if name.endswith(" samples")), default=0.0)
        self._step["clips"] = self._step.get("clips", 0.0) + clips

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        self.clock.switch("data_wait")
        self._begin_step()

    def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
        self.clock.switch("data_wait")

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Batches, batch_idx: int) -> None:
        self.clock.switch("compute")

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Batches, batch_idx: int) -> None:
        self.clock.switch("data_wait")
        self._end_step(trainer, pl_module)

    def _begin_step(self) -> None:
        self._step = {}
        self._step_start = self.clock.seconds.get("compute", 0.0), self.clock.seconds.get("data_wait", 0.0)

    def _end_step(self, trainer: Any, pl_module: Any) -> None:
        names = [*self._names, "clips"]
        local = torch.tensor([self._step.get(name, 0.0) for name in names], dtype=torch.float64)
        values = local.tolist()
        if trainer.world_size > 1:
            values = trainer.strategy.reduce(local.to(pl_module.device), reduce_op="sum").tolist()
        total = dict(zip(names, values, strict=True))
        clips = total.pop("clips")
        for name, flops in total.items():
            self.parts[name] += flops
        self.clips += clips
        compute, wait = self._step_start
        seconds = self.clock.seconds.get("compute", 0.0) - compute + self.clock.seconds.get("data_wait", 0.0) - wait
        rate = sum(total.values()) / max(seconds, 1e-9)
        pl_module.log("train/tflops", rate / 1e12, batch_size=1)
        pl_module.log("train/clips_per_second", clips / max(seconds, 1e-9), batch_size=1)
        if self.peak is not None:
            pl_module.log("train/mfu", rate / self.peak / self.num_devices, prog_bar=True, batch_size=1)
        self._begin_step()
        if time.perf_counter() - self._written > WRITE_EVERY:
            self.write(trainer)

    def on_validation_start(self, trainer: Any, pl_module: Any) -> None:
        self._resumed = self.clock.switch("validation")

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        self.clock.switch(self._resumed)

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        self.clock.switch("end")

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        self.write(trainer)

    def teardown(self, trainer: Any, pl_module: Any, stage: str) -> None:
        self.write(trainer)

    def write(self, trainer: Any) -> None:
        """Write the seconds of this process beside those of the earlier ones."""
        self.clock.switch(self.clock.use)
        self._written = time.perf_counter()
        if trainer.is_global_zero:
            partial = self.file.with_suffix(".partial")
            partial.write_text(json.dumps([*self.attempts, self.clock.seconds]) + "\n")
            partial.replace(self.file)

    def summary(self) -> dict[str, Any]:
        """Return the numbers of the whole run.

        Returns:
            ``flops`` by part and in all; ``time``: seconds by their use, of all processes; ``tflops_per_second`` and
            ``mfu`` over the steps that the result consists of; ``goodput``: the share of all seconds in which those
            steps were computed.
        """
        self.clock.switch(self.clock.use)
        spent: dict[str, float] = {}
        for attempt in (*self.attempts, self.clock.seconds):
            for use, seconds in attempt.items():
                spent[use] = spent.get(use, 0.0) + seconds
        compute, wait = self._sum_seconds("compute"), self._sum_seconds("data_wait")
        flops = sum(self.parts.values())
        rate = flops / max(compute + wait, 1e-9)
        mfu = None if self.peak is None else rate / self.peak / self.num_devices
        peak = None if self.peak is None else self.peak / 1e12
        return {
            "flops": {"total": flops, "parts": self.parts},
            "time": spent,
            "processes": 1 + len(self.attempts),
            "tflops_per_second": rate / 1e12,
            "clips_per_second": self.clips / max(compute + wait, 1e-9),
            "mfu": {"value": mfu, "device": self.device, "peak_tflops": peak, "convention": CONVENTION},
            "goodput": compute / max(sum(spent.values()), 1e-9),
        }

    def _sum_seconds(self, use: str) -> float:
        """Return the seconds of the steps that count: those of an earlier process up to its checkpoint."""
        return self.before.get(use, 0.0) + self.clock.seconds.get(use, 0.0)

    def state_dict(self) -> dict[str, Any]:
        self.clock.switch(self.clock.use)
        uses = {use: self._sum_seconds(use) for use in ("compute", "data_wait")}
        return {"before": uses, "parts": dict(self.parts), "clips": self.clips}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.before, self.clips = state_dict["before"], state_dict["clips"]
        self.parts |= state_dict["parts"]
