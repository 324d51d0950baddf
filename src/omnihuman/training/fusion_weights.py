"""The weights of the fusions in training: their means for each task, and their entropy."""

import math
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from omnihuman.fusion.base import Fusion
from omnihuman.fusion.gate import InstructionGate
from omnihuman.pl import pl
from omnihuman.types import Batch, Batches

UNNAMED = "no_task"
"""Stands for the task of records without one."""


class FusionWeights(pl.Callback):
    """Logs the weights with which fusions merge their inputs in every optimizer step, from its own forward passes.

    Logs ``train/gate/<task>/<stream>``, the mean weight over the samples of a task, ``train/gate/entropy``, the mean
    entropy of a sample's weights in nats, and ``train/gate/entropy_share``, the same divided by log K: 1 where all K
    inputs have equal weights, 0 where one has all. Both are over the samples of all ranks that have a token of the
    inputs. Fusions whose weights are no shares, that is not positive or with another sum than 1, have no entropy.

    Every fusion is told its mean weights (``usage``), which a checkpoint keeps.

    Args:
        fusions: of the model.
        tasks: of the training samples, the same on all ranks.

    Raises:
        ValueError: the gate's warm start names a task that no training sample has.
    """

    def __init__(self, fusions: Iterable[Fusion], tasks: Sequence[str | None]) -> None:
        names = sorted({task or UNNAMED for task in tasks})
        self.indices = {name: index for index, name in enumerate(names)}
        self._sums: dict[str, Tensor] = {}
        self._usage: dict[str, list[float]] = {}
        for fusion in fusions:
            if isinstance(fusion, InstructionGate) and (unknown := sorted(fusion.warm_start.keys() - set(names))):
                raise ValueError(f"gate: warm_start names the tasks {unknown}; the training has {names}.")

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        for name, usage in self._usage.items():  # of a checkpoint
            pl_module.model.fusion(name).usage = usage
        self._hook = pl_module.model.register_forward_hook(self._add_in_training)

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        self._hook.remove()

    def _add_in_training(self, model: Any, inputs: tuple[Batch], output: Any) -> None:
        if model.training:
            self._add(model, *inputs)

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Batches, batch_idx: int) -> None:
        if not self._sums:
            return
        # one reduction for all fusions
        flat = torch.cat([sums.flatten() for sums in self._sums.values()])
        reduced = trainer.strategy.reduce(flat, reduce_op="sum").cpu()
        parts = reduced.split([sums.numel() for sums in self._sums.values()])
        metrics: dict[str, float] = {}
        for (name, sums), part in zip(self._sums.items(), parts, strict=True):
            metrics |= self._compute_metrics(pl_module.model.fusion(name), name, part.view(sums.shape))
        self._sums = {}
        for logger in trainer.loggers:  # Lightning's own log would repeat the means of a task in steps without it
            logger.log_metrics(metrics, step=trainer.global_step - 1)

    def _add(self, model: Any, batch: Batch) -> None:
        """Add the weights of a micro-batch: a row for each task, with the sums of weights, entropies and samples."""
        tasks = [self.indices[meta.get("task") or UNNAMED] for meta in batch.meta]
        for name, weights in model.last_fusion_weights().items():
            num_inputs = weights.shape[1]
            if num_inputs < 2:
                continue
            if name not in self._sums:
                self._sums[name] = weights.new_zeros((len(self.indices), num_inputs + 2), dtype=torch.float32)
            weights = weights.float()[: len(tasks)]  # a batch without samples has a blank one
            entropies = torch.special.entr(weights).sum(dim=1, keepdim=True)
            rows = torch.cat([weights, entropies, torch.ones_like(entropies)], dim=1)
            is_present = model.fusion(name).is_present
            assert is_present is not None
            rows = rows.masked_fill(~is_present[: len(tasks), None], 0)
            self._sums[name].index_add_(0, torch.tensor(tasks, dtype=torch.long, device=rows.device), rows)

    def _compute_metrics(self, fusion: Fusion, name: str, sums: Tensor) -> dict[str, float]:
        """Return the metrics of a fusion, and tell it its mean weights."""
        metrics = {}
        for task, index in self.indices.items():
            *weights, _, count = sums[index].tolist()
            if count:
                for stream, weight in zip(fusion.inputs, weights, strict=True):
                    metrics[f"train/{name}/{task}/{stream}"] = weight / count
        *weights, entropy, count = sums.sum(dim=0).tolist()
        if not count:
            return metrics
        fusion.usage = self._usage[name] = [weight / count for weight in weights]
        if math.isfinite(entropy) and math.isclose(sum(fusion.usage), 1, rel_tol=1e-2):
            metrics[f"train/{name}/entropy"] = entropy / count
            metrics[f"train/{name}/entropy_share"] = entropy / count / math.log(len(weights))
        return metrics

    def state_dict(self) -> dict[str, Any]:
        return {"usage": self._usage}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._usage = dict(state_dict["usage"])
