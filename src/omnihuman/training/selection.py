"""Validations of a run: the weights of the best one are kept, and a run without improvement ends."""

import logging
import math
import re
from collections import deque
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

from omnihuman.pl import pl
from omnihuman.training.shards import has_weights

log = logging.getLogger(__name__)

STEP = re.compile(r"step=(\d+)")
"""Beginning of the name of a weights file, and of its shards and their index."""

SCORED = ("val/", "bench/")
"""Beginnings of the names of what validations and benchmarks measure."""

ERRORS = {"loss", "wer", "cer", "eer"}
"""Metrics of which lower values are better."""


def is_error(name: str) -> bool:
    """Return true if lower values of a metric are better.

    >>> is_error("val/loss"), is_error("bench/fleurs/wer/en_us"), is_error("val/emotion/uar")
    (True, True, False)
    """
    return not ERRORS.isdisjoint(name.split("/"))


def is_better(name: str, value: float, other: float) -> bool:
    """Return true if a value of a metric is better than another one; what is not finite is never better."""
    if not math.isfinite(value) or not math.isfinite(other):
        return math.isfinite(value)
    return value < other if is_error(name) else value > other


class Selection(pl.Callback):
    """Remembers the monitored metric of every validation, writes the weights of the best, and ends the training.

    The untrained model (step 0) is validated, but never the best: a run's weights are trained. Of equal values, as few
    questions often give, the one with the lower ``val/loss`` is better, then the earlier one. A checkpoint holds the
    values, so that a resumed run selects as an uninterrupted one.

    Args:
        monitor: name of the metric; ``None`` selects nothing.
        folder: of the best weights, ``step=<number>.safetensors``.
        write: writes the weights of the moment to a file; every rank must call it.
        num_best: best validations whose weights stay in the folder, 0 for none.
        patience: validations without improvement after which the training ends, ``None`` for no end.
        num_checkpoints: that stay, each of which can be resumed from and needs its best weights.

    Attributes:
        scores: optimizer step -> value of the metric.
        losses: optimizer step -> ``val/loss``, infinite without one.
        last_step: optimizer step of the last validation.
    """

    def __init__(
        self,
        monitor: str | None,
        folder: Path,
        write: Callable[[Path], None],
        num_best: int = 0,
        patience: int | None = None,
        num_checkpoints: int = 1,
    ) -> None:
        self.monitor, self.folder, self.write = monitor, folder, write
        self.num_best, self.patience = num_best, patience
        self.scores: dict[int, float] = {}
        self.losses: dict[int, float] = {}
        self.last_step: int | None = None
        # of the checkpoints that stay, and of the one that is being written and will replace the oldest
        self._in_checkpoints = deque[set[int]](maxlen=num_checkpoints + 1)

    @property
    def best_step(self) -> int | None:
        """Optimizer step of the best validation, ``None`` before the first."""
        return next(iter(self._rank()), None)

    def find_weights(self) -> Path:
        """Return the file of the best weights.

        Raises:
            ValueError: it is not there.
        """
        file = self._file(self.best_step)
        if self.best_step is None or not has_weights(file):
            raise ValueError(f"{file}, the best weights of this run, is missing: train it again with overwrite=true.")
        return file

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Delete weights that are newer than the checkpoint, and end a resumed training that had ended already.

        Under a sharded strategy callbacks get their states after ``on_fit_start``.
        """
        if trainer.is_global_zero:
            self._delete_others(set().union(*self._in_checkpoints))
        self._check_patience(trainer)

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        """Compare the validation with the earlier ones.

        Raises:
            ValueError: the monitored metric does not exist.
        """
        if trainer.sanity_checking:
            return
        step = self.last_step = trainer.global_step
        if self.monitor is None:
            return
        metrics = trainer.callback_metrics
        if self.monitor not in metrics:
            raise unknown_monitor(self.monitor, [name for name in metrics if name.startswith(SCORED)])
        if step == 0:
            return
        self.scores[step] = trainer.strategy.broadcast(float(metrics[self.monitor]))
        self.losses[step] = trainer.strategy.broadcast(float(metrics.get("val/loss", math.inf)))
        best_steps = self._rank()[: self.num_best]
        if step in best_steps:
            self.write(self._file(step))
        if trainer.is_global_zero:  # the weights that checkpoints name are needed to resume
            self._delete_others(set(best_steps).union(*self._in_checkpoints))
        self._check_patience(trainer)

    def _rank(self) -> list[int]:
        """Return the validated steps, the best first."""
        ranking: list[int] = []
        for step in sorted(self.scores):
            position = 0
            while position < len(ranking) and not self._is_better(step, ranking[position]):
                position += 1
            ranking.insert(position, step)
        return ranking

    def _is_better(self, step: int, other: int) -> bool:
        if self.scores[step] == self.scores[other]:
            return is_better("val/loss", self.losses[step], self.losses[other])
        return is_better(str(self.monitor), self.scores[step], self.scores[other])

    def _check_patience(self, trainer: Any) -> None:
        best = self.best_step
        if self.patience is None or best is None:
            return
        if sum(step > best for step in self.scores) >= self.patience:
            trainer.should_stop = True
            log.info(
                "ends at step %d: %s is not better than %.4g of step %d for %d validations",
                trainer.global_step,
                self.monitor,
                self.scores[best],
                best,
                self.patience,
            )

    def _file(self, step: int | None) -> Path:
        return self.folder / f"step={step}.safetensors"

    def _delete_others(self, steps: Collection[int]) -> None:
        """Delete all weights but those of these steps."""
        for file in sorted(self.folder.glob("step=*"), key=lambda file: file.suffix != ".json"):  # indexes first
            match = STEP.match(file.name)
            if match and int(match[1]) not in steps:
                file.unlink()

    def finish(self) -> None:
        """Delete the best weights, which the run's folder holds as well, and those that a checkpoint has needed."""
        self._delete_others(self._rank()[1 : self.num_best])
        if self.folder.is_dir() and not any(self.folder.iterdir()):
            self.folder.rmdir()

    def state_dict(self) -> dict[str, Any]:
        self._in_checkpoints.append(set(self._rank()[: self.num_best]))
        return {"scores": dict(self.scores), "losses": dict(self.losses), "last_step": self.last_step}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.scores, self.losses = dict(state_dict["scores"]), dict(state_dict["losses"])
        self.last_step = state_dict["last_step"]
        self._in_checkpoints.append(set(self._rank()[: self.num_best]))


def unknown_monitor(monitor: str, metrics: Collection[str]) -> ValueError:
    """Return the error of a monitor that is none of these metrics."""
    return ValueError(
        f"monitor={monitor} is no metric of this run; choose from {', '.join(sorted(metrics)) or 'none'}."
    )
