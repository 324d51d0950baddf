"""What a run tells while it goes: speed, a table of metrics, what was skipped."""

import csv
import json
import time
from collections import Counter
from pathlib import Path
from typing import Any

import torch

from omnihuman.pl import pl
from omnihuman.types import Batch


class Throughput(pl.Callback):
    """Tokens and samples a second, and the share of the time that training waits for data.

    Logs ``train/tokens_per_second``, ``train/samples_per_second`` and ``train/data_wait`` with every optimizer step,
    over all ranks. Useful tokens only: a packed row has no padding.
    """

    def __init__(self) -> None:
        self.waited = self.worked = 0.0
        self.tokens = self.samples = 0
        self._mark = 0.0
        self._step = [0.0, 0.0, 0, 0]

    def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
        self._mark = time.perf_counter()

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Batch, batch_idx: int) -> None:
        now = time.perf_counter()
        self._step[0] += now - self._mark
        self._mark = now

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Batch, batch_idx: int) -> None:
        now = time.perf_counter()
        self._step[1] += now - self._mark
        self._mark = now
        self._step[2] += batch.input_ids.numel()
        self._step[3] += len(batch.meta)
        if (batch_idx + 1) % trainer.accumulate_grad_batches:
            return
        wait, work, tokens, samples = self._step
        self._step = [0.0, 0.0, 0, 0]
        self.waited, self.worked = self.waited + wait, self.worked + work
        self.tokens, self.samples = self.tokens + int(tokens), self.samples + int(samples)
        seconds = max(wait + work, 1e-9)
        values = {"tokens_per_second": tokens / seconds, "samples_per_second": samples / seconds}
        for name, value in values.items():
            bar = name == "tokens_per_second"
            pl_module.log(f"train/{name}", value * trainer.world_size, prog_bar=bar, batch_size=1)
        pl_module.log("train/data_wait", wait / seconds, prog_bar=True, batch_size=1)

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        self._mark = time.perf_counter()  # validation is neither training nor waiting

    def state_dict(self) -> dict[str, Any]:
        return {"waited": self.waited, "worked": self.worked, "tokens": self.tokens, "samples": self.samples}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        for name, value in state_dict.items():
            setattr(self, name, value)


class Account(pl.Callback):
    """What became of every planned sample: trained, or skipped for a reason; nothing is lost silently.

    Every skip goes to ``file`` as a line of JSON when it happens.
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        self.trained = 0
        self.skipped: Counter[str] = Counter()

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Batch, batch_idx: int) -> None:
        self.trained += len(batch.meta)
        self.note(batch.skipped)

    def note(self, skipped: Any) -> None:
        """Count skips and write them down."""
        if not skipped:
            return
        with self.file.open("a") as lines:
            for skip in skipped:
                self.skipped[str(skip["reason"])] += 1
                lines.write(json.dumps(dict(skip)) + "\n")

    def state_dict(self) -> dict[str, Any]:
        return {"trained": self.trained, "skipped": dict(self.skipped)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.trained, self.skipped = state_dict["trained"], Counter(state_dict["skipped"])

    def totals(self) -> tuple[int, dict[str, int]]:
        """Trained and skipped over all ranks."""
        total: Counter[str] = Counter()
        ranks = over_ranks((self.trained, dict(self.skipped)))
        for _, skipped in ranks:
            total.update(skipped)
        return sum(trained for trained, _ in ranks), dict(total)


def over_ranks(value: Any) -> list[Any]:
    """What every rank has to say, in their order; all of them have to ask."""
    if not torch.distributed.is_initialized():
        return [value]
    said: list[Any] = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(said, value)
    return said


def progress_bar(rich: bool) -> Any:
    """A bar with loss, tokens/s and the share of time spent waiting: rich on a terminal, plain lines elsewhere."""
    base = pl.callbacks.RichProgressBar if rich else pl.callbacks.TQDMProgressBar

    class Bar(base):  # type: ignore[misc, valid-type]
        def get_metrics(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
            metrics: dict[str, Any] = super().get_metrics(*args, **kwargs)
            short = {"train/tokens_per_second": "tokens/s", "train/data_wait": "wait", "train/loss": "loss"}
            return {short.get(name, name): value for name, value in metrics.items() if name != "v_num"}

    return Bar(refresh_rate=1, leave=True) if rich else Bar(refresh_rate=20)


class MetricsTable(pl.loggers.Logger):
    """``metrics.csv``: one row a step, columns as they appear; a resumed run goes on where its checkpoint stands."""

    def __init__(self, file: Path, resume_at: int = 0) -> None:
        super().__init__()
        self.file = file
        self.rows: dict[int, dict[str, Any]] = {}
        if resume_at and file.is_file():
            with file.open(newline="") as lines:
                for row in csv.DictReader(lines):
                    if int(row["step"]) < resume_at:
                        self.rows[int(row["step"])] = {key: value for key, value in row.items() if value != ""}

    @property
    def name(self) -> str:
        return "metrics"

    @property
    def version(self) -> int:
        return 0

    @pl.utilities.rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        row = self.rows.setdefault(int(step or 0), {"step": int(step or 0)})
        row.update(metrics)
        if len(self.rows) % 50 == 0 or any(name.startswith("val/") for name in metrics):
            self.save()

    @pl.utilities.rank_zero_only
    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None:
        """Nothing: config.yaml lies in the same folder."""

    @pl.utilities.rank_zero_only
    def save(self) -> None:
        columns = list(dict.fromkeys(column for row in self.rows.values() for column in row))
        partial = self.file.with_suffix(".partial")
        with partial.open("w", newline="") as lines:
            writer = csv.DictWriter(lines, columns or ["step"])
            writer.writeheader()
            writer.writerows(self.rows.values())
        partial.replace(self.file)

    @pl.utilities.rank_zero_only
    def finalize(self, status: str) -> None:
        self.save()
