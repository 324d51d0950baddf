"""Generation during validation: scores of the answers, and the mean weights of the fusion."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch

from omnihuman.data.ceiling import summarize_reasons
from omnihuman.data.module import OmniData
from omnihuman.data.record import Record
from omnihuman.modality import View
from omnihuman.model.omni import OmniModel
from omnihuman.pl import pl
from omnihuman.training.callbacks import gather_over_ranks
from omnihuman.types import Batch

log = logging.getLogger(__name__)

PROGRESS_BAR_SCORES = ("war", "accuracy")


class GenerationMetrics(pl.Callback):
    """Answer questions of the validation records after every validation, and log the scores of the answers.

    Logs ``val/<task>/<score>`` for the first view and ``val/<task>_<view>/<score>`` for the others, and
    ``val/gate/<task>/<stream>``: the mean weight of a stream in a fusion under the instructions of a task. A metric
    with ``floors()`` also logs ``floor/<task>/<score>``: what the best constant answer scores.

    Args:
        data: source of the questions.
        metrics: task -> metric with ``update(answers, references)``, ``compute()`` and the names of its ``scores``, the
            headline first.
        views: what the model gets of each record: ``VAF``, ``V``; every question is answered once for each view.
        limit: questions for each task and view, ``None`` for all.
        gate_tasks: tasks whose mean fusion weights are logged.
        max_new_tokens: length limit of an answer.
    """

    def __init__(
        self,
        data: OmniData,
        metrics: Mapping[str, Any],
        views: Sequence[str] = (),
        limit: int | None = None,
        gate_tasks: Sequence[str] = (),
        max_new_tokens: int = 16,
    ) -> None:
        self.data = data
        self.metrics = dict(metrics)
        self.views = [View.parse(view, "validation.views") for view in views]
        self.limit = limit
        self.gate_tasks = list(gate_tasks)
        self.max_new_tokens = max_new_tokens

    def on_validation_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        if trainer.sanity_checking or not self.views:
            return
        # the ranks of a sharded model generate in step, so each of them answers all questions; others share them
        is_sharded = pl_module.is_sharded
        share = (0, 1) if is_sharded else (trainer.global_rank, trainer.world_size)
        for task, metric in self.metrics.items():
            for view in self.views:
                metric.counts.reset()
                metric.counts.to(pl_module.device)  # torchmetrics reduces the counts of all ranks on their device
                num_answers = self._update_metric(pl_module, task, view, share, is_sharded)
                if sum(gather_over_ranks(num_answers)):
                    self._log_scores(pl_module, task, view)
        for task in self.gate_tasks:
            self._log_fusion_weights(pl_module, task, share)

    def list_scores(self) -> list[str]:
        """Return the names of the scores that a validation logs, the headline of the first task first."""
        if not self.views or self.data.val_source is None:
            return []
        tasks = set[str]()
        for record in self.data.val_source.records():
            if isinstance(record, Record) and record.task in self.metrics and self._is_question(record):
                tasks.add(record.task)
        names = []
        for task in self.metrics:
            for view in self.views if task in tasks else []:
                names += [f"{self._prefix(task, view)}/{score}" for score in self.metrics[task].scores]
        return names

    def _is_question(self, record: Record) -> bool:
        return not set(self._slots()) - set(record.slots) and record.restrict(self.views[0]) is not None

    def _slots(self) -> list[str]:
        """Return the slots of all views: a question has them all, so that the scores of views can be compared."""
        slots = set[str]()
        for view in self.views:
            slots.update(view.slots)
        return sorted(slots)

    def _prefix(self, task: str, view: View) -> str:
        return f"val/{task}" if view == self.views[0] else f"val/{task}_{view}"

    def _update_metric(self, pl_module: Any, task: str, view: View, share: tuple[int, int], is_sharded: bool) -> int:
        """Answer the questions of a task and return their number on this rank."""
        num_answers = 0
        for batch in self._questions(task, view, share):
            if batch.skipped:
                log.warning("%s: scored without %s", task, summarize_reasons(batch.skipped))
            if not batch.meta:
                continue
            answers = pl_module.model.generate(
                batch.to(pl_module.device), max_new_tokens=self.max_new_tokens, synced_gpus=is_sharded
            )
            self.metrics[task].update(answers, [meta["answer"] for meta in batch.meta])
            num_answers += len(answers)
        return num_answers

    def _log_scores(self, pl_module: Any, task: str, view: View) -> None:
        for score, value in self.metrics[task].compute().items():
            name = f"{self._prefix(task, view)}/{score}"
            pl_module.log(name, value, prog_bar=score in PROGRESS_BAR_SCORES, batch_size=1)
        if hasattr(self.metrics[task], "floors"):
            name = self._prefix(task, view).replace("val/", "floor/", 1)
            for score, value in self.metrics[task].floors().items():
                pl_module.log(f"{name}/{score}", value, batch_size=1)

    def _questions(self, task: str, view: View, share: tuple[int, int]) -> Iterator[Batch]:
        """Return the same questions for every view, so that their scores can be compared."""
        rank, world = share
        return self.data.prompts([task], view, needs=self._slots(), limit=self.limit, rank=rank, world=world)

    @torch.no_grad()
    def _log_fusion_weights(self, pl_module: Any, task: str, share: tuple[int, int]) -> None:
        model: OmniModel = pl_module.model
        means: dict[str, _Mean] = {}
        for batch in self._questions(task, self.views[0], share):
            for name, weights in model.fusion_weights(batch.to(pl_module.device)).items():
                means.setdefault(name, _Mean(weights.shape[1])).update(weights)
        # a rank without questions has no means, so the names are those of all ranks
        merged: dict[str, _Mean] = {}
        for rank_means in gather_over_ranks(means):
            for name, mean in rank_means.items():
                merged.setdefault(name, _Mean(len(mean.total))).merge(mean)
        for name, mean in sorted(merged.items()):
            for stream, weight in zip(model.fusion(name).inputs, mean.compute(), strict=True):
                pl_module.log(f"val/{name}/{task}/{stream}", weight, batch_size=1)


class _Mean:
    """Mean of the rows of matrices ``[B S]``."""

    def __init__(self, size: int) -> None:
        self.total = torch.zeros(size)
        self.count = 0

    def update(self, rows: torch.Tensor) -> None:
        self.total = self.total + rows.float().cpu().sum(dim=0)
        self.count += len(rows)

    def merge(self, other: "_Mean") -> None:
        self.total = self.total + other.total
        self.count += other.count

    def compute(self) -> list[float]:
        mean: list[float] = (self.total / self.count).tolist()
        return mean
