"""Callbacks and loggers of a run: speed, metrics.csv, averages."""

import csv
import time
from pathlib import Path
from typing import Any, Protocol

import torch

from omnihuman.data.notices import Notices
from omnihuman.pl import pl
from omnihuman.training.selection import SCORED
from omnihuman.types import Batches

PROGRESS_BAR_NAMES = {
    "train/tokens_per_second": "tokens/s",
    "train/data_wait": "wait",
    "train/mfu": "MFU",
    "train/loss": "loss",
}
"""Short names of metrics in the progress bar."""


class StepCounter(Protocol):
    """Counts what all ranks have trained: a ``SampleCounter``."""

    step_tokens: int
    step_samples: int


class Connected(pl.Callback):
    """Ends the signs of life of the main process when all processes are connected.

    Args:
        notices: of the start.
    """

    def __init__(self, notices: Notices) -> None:
        self.notices = notices

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        self.notices.settle()


class Throughput(pl.Callback):
    """Tokens and samples per second, and the share of the time in which training waits for data.

    Logs ``train/tokens_per_second``, ``train/samples_per_second`` and ``train/data_wait`` with every optimizer step:
    tokens and samples of all ranks, and the wait of this one. All tokens count: a packed sequence has no padding.

    Args:
        counter: has the sums over all ranks at the end of a step; it comes before this callback.
    """

    def __init__(self, counter: StepCounter) -> None:
        self.counter = counter
        self.wait_seconds = self.work_seconds = 0.0
        self.tokens = self.samples = 0
        self._last_time = self._step_wait = 0.0

    def _seconds_since_last(self) -> float:
        now = time.perf_counter()
        seconds = now - self._last_time
        self._last_time = now
        return seconds

    def ignore_time(self) -> None:
        """Count the time since the last event neither as work nor as waiting, such as that of a validation."""
        self._last_time = time.perf_counter()

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        self.ignore_time()  # a training that resumes within an epoch does not start the epoch

    def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
        self.ignore_time()

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Batches, batch_idx: int) -> None:
        self._step_wait = self._seconds_since_last()

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Batches, batch_idx: int) -> None:
        work = self._seconds_since_last()
        tokens, samples = self.counter.step_tokens, self.counter.step_samples
        seconds = max(self._step_wait + work, 1e-9)
        pl_module.log("train/tokens_per_second", tokens / seconds, prog_bar=True, batch_size=1)
        pl_module.log("train/samples_per_second", samples / seconds, batch_size=1)
        pl_module.log("train/data_wait", self._step_wait / seconds, prog_bar=True, batch_size=1)
        self.wait_seconds += self._step_wait
        self.work_seconds += work
        self.tokens += tokens
        self.samples += samples

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        self.ignore_time()

    def summary(self) -> dict[str, float]:
        """Return the means over the whole run."""
        seconds = max(1e-9, self.work_seconds + self.wait_seconds)
        return {
            "tokens_per_second": self.tokens / seconds,
            "samples_per_second": self.samples / seconds,
            "data_wait": self.wait_seconds / seconds,
        }

    def state_dict(self) -> dict[str, Any]:
        return {
            "wait_seconds": self.wait_seconds,
            "work_seconds": self.work_seconds,
            "tokens": self.tokens,
            "samples": self.samples,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        for name, value in state_dict.items():
            setattr(self, name, value)


class TrainableEMA(pl.callbacks.EMAWeightAveraging):
    """Lightning's exponential moving average, for checkpoints that hold only the trainable parameters."""

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """Refuse sharded models: Lightning would average one rank's shards only after a warning.

        Raises:
            ValueError: the strategy shards the model.
        """
        if isinstance(trainer.strategy, pl.strategies.ModelParallelStrategy):
            raise ValueError("callback=ema averages whole models, not shards: remove it, or choose trainer=ddp.")
        super().setup(trainer, pl_module, stage)

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Batches, batch_idx: int) -> None:
        """Update the average, unless the step was not taken."""
        if not pl_module.is_step_skipped:
            super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)

    def on_save_checkpoint(self, trainer: Any, pl_module: Any, checkpoint: dict[str, Any]) -> None:
        """Keep the trainable part of the current parameters; the objective does so with the averaged ones."""
        super().on_save_checkpoint(trainer, pl_module, checkpoint)
        trainable = {name for name, parameter in pl_module.named_parameters() if parameter.requires_grad}
        current = checkpoint.get("current_model_state", {})
        for name in current.keys() - trainable:
            del current[name]

    def on_load_checkpoint(self, trainer: Any, pl_module: Any, checkpoint: dict[str, Any]) -> None:
        """Add the frozen parameters, which are loaded as in a new run: Lightning expects a complete state."""
        complete = pl_module.state_dict()
        for key in ("state_dict", "current_model_state"):
            checkpoint[key] = complete | checkpoint.get(key, {})
        super().on_load_checkpoint(trainer, pl_module, checkpoint)

    def on_validation_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        """Keep the average in the model until the end of the validation, so that its weights can be written."""

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        """Put the current parameters back into the model, as Lightning does at the end of the validation's epoch."""
        super().on_validation_epoch_end(trainer, pl_module)

    def on_fit_end(self, trainer: Any, pl_module: Any) -> None:
        """Copy the average, as Lightning does where a training ends; not if it resumes from its last checkpoint."""
        super().on_train_end(trainer, pl_module)


def gather_over_ranks(value: Any) -> list[Any]:
    """Return the values of all ranks in their order; every rank must call it."""
    if not torch.distributed.is_initialized():
        return [value]
    values: list[Any] = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(values, value)
    return values


def count_steps_of_epoch(trainer: Any) -> int:
    """Return the steps of the current epoch that a training takes: all, or those up to ``max_steps``."""
    num_steps = int(trainer.num_training_batches)
    if trainer.max_steps < 0:
        return num_steps
    num_left: int = trainer.max_steps - trainer.current_epoch * num_steps
    return max(0, min(num_steps, num_left))


def describe_epoch(trainer: Any) -> str:
    """Return the current epoch and their number, such as ``epoch 2 of 4``."""
    num_epochs = trainer.max_epochs
    if trainer.max_steps >= 0:
        needed = -(-trainer.max_steps // int(trainer.num_training_batches))
        num_epochs = needed if num_epochs in (None, -1) else min(num_epochs, needed)
    return f"epoch {trainer.current_epoch + 1} of {num_epochs}"


def build_progress_bar(is_rich: bool) -> Any:
    """Return a progress bar with loss, tokens/s and waiting time: rich on a terminal, plain lines elsewhere."""
    base = pl.callbacks.RichProgressBar if is_rich else pl.callbacks.TQDMProgressBar

    class ProgressBar(base):  # type: ignore[misc, valid-type]
        @property
        def total_train_batches(self) -> Any:
            return count_steps_of_epoch(self.trainer)

        def on_train_start(self, trainer: Any, *args: Any) -> None:
            super().on_train_start(trainer, *args)
            num_done = trainer.fit_loop.epoch_loop.batch_progress.current.ready
            if not is_rich and num_done:  # resumed within an epoch, which Lightning does not begin again
                self.on_train_epoch_start(trainer)
                self.train_progress_bar.initial = self.train_progress_bar.n = num_done  # for the speed

        def on_train_epoch_start(self, trainer: Any, *args: Any) -> None:
            super().on_train_epoch_start(trainer, *args)
            if not is_rich:
                self.train_progress_bar.set_description(describe_epoch(trainer))

        def _get_train_description(self, current_epoch: int) -> str:  # of the rich one
            return describe_epoch(self.trainer)

        def get_metrics(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
            metrics: dict[str, Any] = super().get_metrics(*args, **kwargs)
            metrics.pop("v_num", None)
            return {PROGRESS_BAR_NAMES.get(name, name): value for name, value in metrics.items()}

    if is_rich:
        return ProgressBar(refresh_rate=1, leave=True)
    return ProgressBar(refresh_rate=20)


class MetricsTable(pl.loggers.Logger):
    """``metrics.csv``: one row for each step; columns are added when their metric is first logged.

    Args:
        file: path of the table.
        resume_at: optimizer step of the checkpoint that training resumes from; later rows of the file are dropped.

    The row of a step has the loss with which the step begins, and the scores of a validation at its beginning: row 0
    those of the untrained model.
    """

    def __init__(self, file: Path, resume_at: int = 0) -> None:
        super().__init__()
        self.file = file
        self.trainer: Any = None  # counts the steps before a validation: Lightning's own number is one less in a fit
        self.rows: dict[int, dict[str, Any]] = {}
        self._is_behind = False
        if resume_at and file.is_file():
            self._read_rows(resume_at)

    def _read_rows(self, resume_at: int) -> None:
        with self.file.open(newline="") as lines:
            for row in csv.DictReader(lines):
                step = int(row["step"])
                values = {key: value for key, value in row.items() if value != ""}
                if step == resume_at:  # its validation is part of what was done, its training comes
                    values = {key: value for key, value in values.items() if not key.startswith("train/")}
                if step < resume_at or (len(values) > 1 and step == resume_at):
                    self.rows[step] = values

    def has_validation(self, step: int) -> bool:
        """Return true if the row of a step has the scores of a validation."""
        return any(name.startswith(SCORED) for name in self.rows.get(step, ()))

    @property
    def name(self) -> str:
        return "metrics"

    @property
    def version(self) -> int:
        return 0

    @pl.utilities.rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        step = int(step or 0)
        has_validation = any(name.startswith(SCORED) for name in metrics)
        if has_validation and self.trainer is not None:
            step = self.trainer.global_step
        self.rows.setdefault(step, {"step": step}).update(metrics)
        if has_validation or len(self.rows) % 50 == 0 or self._is_behind:
            self._write()

    @pl.utilities.rank_zero_only
    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None:
        """Log nothing: config.yaml is in the same folder."""

    @pl.utilities.rank_zero_only
    def save(self) -> None:
        """Write the table, now and when the next row comes.

        A checkpoint is written at the end of a step, of which Lightning logs the metrics after it: a run that is killed
        and resumed from it does not log them again.
        """
        self._write()
        self._is_behind = True

    def _write(self) -> None:
        self._is_behind = False
        columns = {"step": None}
        rows = [self.rows[step] for step in sorted(self.rows)]
        for row in rows:
            columns.update(dict.fromkeys(row))
        partial = self.file.with_suffix(".partial")
        with partial.open("w", newline="") as lines:
            writer = csv.DictWriter(lines, list(columns))
            writer.writeheader()
            writer.writerows(rows)
        partial.replace(self.file)

    @pl.utilities.rank_zero_only
    def finalize(self, status: str) -> None:
        self._write()
