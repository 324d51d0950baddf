"""Validation by answers: generate, score, and see what the fusion listens to."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch

from omnihuman.data.module import OmniData
from omnihuman.data.record import MODALS
from omnihuman.model.omni import OmniModel
from omnihuman.pl import pl
from omnihuman.training.callbacks import over_ranks
from omnihuman.types import Batch

BAR = ("war", "accuracy")
"""Measures that the progress bar shows."""


class Answers(pl.Callback):
    """After every validation, ask the questions of the validation records and score the answers.

    Logs ``val/<task>/<measure>`` for the first modal and ``val/<task>_<modal>/<measure>`` for the others, and
    ``val/gate/<task>/<stream>``: the mean weight that a fusion gives a stream under the instructions of a task.

    Args:
        data: where the questions come from.
        metrics: task -> metric with ``update(answers, truths)`` and ``compute()``.
        modals: what the model may use: keys of ``MODALS``; asked one after the other.
        limit: questions per task and modal, ``None`` for all.
        weights_tasks: tasks whose mean fusion weights are logged.
        max_new_tokens: length limit of an answer.
    """

    def __init__(
        self,
        data: OmniData,
        metrics: Mapping[str, Any],
        modals: Sequence[str] = (),
        limit: int | None = None,
        weights_tasks: Sequence[str] = (),
        max_new_tokens: int = 16,
    ) -> None:
        self.data, self.metrics, self.modals, self.limit = data, dict(metrics), list(modals), limit
        self.weights_tasks, self.max_new_tokens = list(weights_tasks), max_new_tokens

    def on_validation_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        if trainer.sanity_checking or not self.modals:
            return
        # a sharded model moves in step on all ranks, so each of them asks everything; others share the questions
        sharded = getattr(pl_module, "_sharded", False)
        share = (0, 1) if sharded else (trainer.global_rank, trainer.world_size)
        for task, metric in self.metrics.items():
            for modal in self.modals:
                metric.counts.reset()
                metric.counts.to(pl_module.device)  # ranks compare their counts where they can
                asked = self._ask(pl_module, task, modal, metric, share, synced_gpus=sharded)
                if sum(over_ranks(asked)):
                    name = task if modal == self.modals[0] else f"{task}_{modal}"
                    for measure, value in metric.compute().items():
                        pl_module.log(f"val/{name}/{measure}", value, prog_bar=measure in BAR, batch_size=1)
        for task in self.weights_tasks:
            self._weigh(pl_module, task, share)

    def _ask(self, pl_module: Any, task: str, modal: str, metric: Any, share: tuple[int, int], **options: Any) -> int:
        asked = 0
        for batch in self._questions(task, modal, share):
            answers = pl_module.model.generate(
                batch.to(pl_module.device), max_new_tokens=self.max_new_tokens, **options
            )
            metric.update(answers, [meta["answer"] for meta in batch.meta])
            asked += len(answers)
        return asked

    def _questions(self, task: str, modal: str, share: tuple[int, int]) -> Iterator[Batch]:
        """The same questions for every modal, so that they can be compared."""
        needs = sorted({slot for each in self.modals for slot in MODALS[each]})
        rank, world = share
        return self.data.prompts([task], modal, needs=needs, limit=self.limit, rank=rank, world=world)

    @torch.no_grad()
    def _weigh(self, pl_module: Any, task: str, share: tuple[int, int]) -> None:
        model: OmniModel = pl_module.model
        own: dict[str, tuple[torch.Tensor, int]] = {}
        for batch in self._questions(task, self.modals[0], share):
            for name, weights in model.fusion_weights(batch.to(pl_module.device)).items():
                total, count = own.get(name, (torch.zeros(weights.shape[1]), 0))
                own[name] = (total + weights.float().cpu().sum(dim=0), count + len(weights))
        ranks = over_ranks(own)
        for name in sorted({name for said in ranks for name in said}):
            parts = [said[name] for said in ranks if name in said]
            mean = torch.stack([total for total, _ in parts]).sum(dim=0) / sum(count for _, count in parts)
            for stream, weight in zip(model.fusion(name).inputs, mean.tolist(), strict=True):
                pl_module.log(f"val/{name}/{task}/{stream}", weight, batch_size=1)
