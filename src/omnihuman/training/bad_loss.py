"""Steps whose loss or gradient is not finite, or spikes: the training stops, or such a step is not taken."""

import logging
import math
import statistics
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor

from omnihuman.nn.finite import is_finite
from omnihuman.pl import pl
from omnihuman.training.callbacks import gather_over_ranks
from omnihuman.training.checkpoint import find_damage, list_checkpoints
from omnihuman.training.counter import BAD_LOSS, SampleCounter
from omnihuman.types import Batch, Features, Signal

log = logging.getLogger(__name__)

FOLDER = "bad_loss"
"""Folder of a run with the batches of bad steps."""

MAX_CONSECUTIVE = 10
"""Bad steps in a row after which ``skip`` stops as well: the weights are spoiled, not a sample."""

MAX_FILES = 10
"""Bad steps of a run whose batches are written."""

MAX_IDS = 8
"""Sample ids that a message lists."""

NUM_NORMS, MIN_NORMS = 100, 20
"""Gradient norms of the last steps that were taken, of whose median a spike is a multiple, and the fewest of them."""


class BadLossPolicy(pl.Callback):
    """Checks loss and gradient of every optimizer step, once, over all ranks, before the gradient is clipped.

    Logs ``train/grad_norm``. A bad step is not taken: parameters, optimizer state and averages stay as they are. Under
    ``16-mixed`` a gradient that overflows is the scaler's affair, as long as it can lower its scale.

    Args:
        folder: of the run.
        counter: counts the samples of bad steps as skipped.
        policy: ``stop`` or ``skip``.
        cure: what the user can do, for the message.
        spike_factor: a gradient norm above so many times the running median is bad as well; ``None``: none is.

    Raises:
        ValueError: the policy is unknown, or the factor is not above 1.
    """

    def __init__(
        self, folder: Path, counter: SampleCounter, policy: str, cure: str = "", spike_factor: float | None = None
    ) -> None:
        if policy not in ("stop", "skip"):
            raise ValueError(f"on_bad_loss={policy}: expected stop or skip.")
        if spike_factor is not None and not (type(spike_factor) in (int, float) and spike_factor > 1):
            raise ValueError(f"spike_factor={spike_factor}: expected a number above 1, or null.")
        self.folder, self.counter, self.policy, self.cure = folder, counter, policy, cure
        self.spike_factor = spike_factor
        self.num_bad = self.num_consecutive = 0
        self.norms = deque[float](maxlen=NUM_NORMS)

    def on_before_optimizer_step(self, trainer: Any, pl_module: Any, optimizer: Any) -> None:
        """Check the step, and drop its gradient if it is bad.

        Raises:
            ValueError: the step is bad and the policy is ``stop``, or too many steps in a row are bad.
        """
        losses = torch.stack(pl_module.step_losses)
        norm = compute_gradient_norm(optimizer).to(losses.device)
        # AdamW's second moment is the square: where that overflows, a parameter would never move again
        flags = torch.stack([~losses.isfinite().all(), ~norm.square().isfinite(), norm > self._limit()])
        bad_losses, bad_norms, spikes = trainer.strategy.reduce(flags.float(), reduce_op="sum").tolist()
        pl_module.log("train/grad_norm", norm, batch_size=1)
        pl_module.is_step_skipped = bool(bad_losses or bad_norms or spikes)
        if not pl_module.is_step_skipped:
            self.num_consecutive = 0
            self._remember(norm)
            return
        if bad_losses or not (bad_norms and _can_rescale(trainer)):
            problem = f"the gradient norm {float(norm):.3g} is above spike_factor={self.spike_factor} times the median"
            if bad_losses or bad_norms:
                problem = f"the gradient is not finite (norm {float(norm)})"
            self._handle(trainer, pl_module, losses.tolist(), problem, has_bad_loss=bool(bad_losses))
            optimizer.zero_grad(set_to_none=True)  # a parameter without a gradient stays as it is

    def _limit(self) -> float:
        """Return the gradient norm above which a step is bad."""
        if self.spike_factor is None or len(self.norms) < MIN_NORMS:
            return math.inf
        return self.spike_factor * statistics.median(self.norms)

    def _remember(self, norm: Tensor) -> None:
        if self.spike_factor is not None:
            self.norms.append(float(norm))

    def on_save_checkpoint(self, trainer: Any, pl_module: Any, checkpoint: dict[str, Any]) -> None:
        """Check the weights before a checkpoint is written.

        Raises:
            ValueError: a trainable parameter is not finite.
        """
        self.check_weights(trainer, pl_module)

    def check_weights(self, trainer: Any, pl_module: Any) -> None:
        """Check the trainable parameters of all ranks.

        Raises:
            ValueError: one is not finite.
        """
        flags = {}
        for name, parameter in pl_module.named_parameters():
            if parameter.requires_grad:
                flags[name] = ~is_finite(_local(parameter))
        bad = torch.stack(list(flags.values())).float()
        bad = trainer.strategy.reduce(bad, reduce_op="sum").tolist()
        names = [name.removeprefix("model.") for name, count in zip(flags, bad, strict=True) if count]
        if names:
            raise ValueError(
                f"step {trainer.global_step}: {len(names)} of {len(flags)} trained tensors are not finite, the first "
                f"{names[:3]}; {_learning_rates(trainer)}. {self._published()} {self.cure}"
            )

    def _handle(
        self, trainer: Any, pl_module: Any, losses: Sequence[float], problem: str, *, has_bad_loss: bool
    ) -> None:
        self.num_bad += 1
        self.num_consecutive += 1
        step = trainer.global_step
        bad = list(pl_module.step_batches)
        if has_bad_loss:
            problem = "the loss is not finite"
            bad = [batch for batch, loss in zip(bad, losses, strict=True) if not math.isfinite(loss)]
        place = "the batches of earlier steps"
        if self.num_bad <= MAX_FILES:
            place = "their batches"
        if bad and self.num_bad <= MAX_FILES:
            save_batches(self.folder / FOLDER / f"step={step}.rank={trainer.global_rank}.pt", bad)
        message = (
            f"step {step}: {problem}; samples {_list_ids(_gather_ids(bad))}; {_learning_rates(trainer)}; {place} are "
            f"in {self.folder / FOLDER}."
        )
        if self.policy == "stop" or self.num_consecutive >= MAX_CONSECUTIVE:
            raise ValueError(f"{message} {self.num_consecutive} in a row. {self._published()} {self.cure}")
        log.warning("%s The step is not taken.", message)
        self._count_skipped(pl_module.step_batches, f"step {step} was not taken: {problem}")

    def _count_skipped(self, batches: Sequence[Batch], message: str) -> None:
        skipped = []
        for batch in batches:
            for meta in batch.meta:
                skipped.append({"id": meta.get("id"), "reason": BAD_LOSS, "message": message})
        self.counter.reject(skipped)

    def _published(self) -> str:
        for checkpoint in list_checkpoints(self.folder / "checkpoints"):
            if find_damage(checkpoint) is None:
                return f"Nothing is published; the checkpoint {checkpoint.name} is valid."
        return "Nothing is published, and there is no checkpoint yet."

    def state_dict(self) -> dict[str, Any]:
        return {"bad": self.num_bad, "consecutive": self.num_consecutive, "norms": list(self.norms)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.num_bad, self.num_consecutive = state_dict["bad"], state_dict["consecutive"]
        self.norms.extend(state_dict["norms"])


def compute_gradient_norm(optimizer: Any) -> Tensor:
    """Return the norm of all gradients of an optimizer; over all ranks if they are sharded."""
    gradients = []
    for group in optimizer.param_groups:
        gradients += [parameter.grad for parameter in group["params"] if parameter.grad is not None]
    norm = torch.nn.utils.get_total_norm(gradients)
    return norm.full_tensor() if isinstance(norm, DTensor) else norm


def _local(parameter: Tensor) -> Tensor:
    return parameter.to_local() if isinstance(parameter, DTensor) else parameter


def _can_rescale(trainer: Any) -> bool:
    """Return true if a loss scaler can still lower its scale, as it does after a gradient that overflows."""
    scaler = getattr(trainer.precision_plugin, "scaler", None)
    return scaler is not None and scaler.get_scale() > 1


def _gather_ids(batches: Sequence[Batch]) -> list[str]:
    """Return the ids of the samples of all ranks' batches; every rank must call it."""
    ids = []
    for batch in batches:
        ids += [str(meta.get("id")) for meta in batch.meta]
    gathered = []
    for rank_ids in gather_over_ranks(ids):
        gathered += rank_ids
    return gathered


def _list_ids(ids: Sequence[str]) -> str:
    listed = ", ".join(ids[:MAX_IDS])
    return listed if len(ids) <= MAX_IDS else f"{listed} and {len(ids) - MAX_IDS} more"


def _learning_rates(trainer: Any) -> str:
    rates = {f"{group['lr']:g}" for group in trainer.optimizers[0].param_groups} if trainer.optimizers else set()
    return f"lr {', '.join(sorted(rates)) or 'unknown'}"


def save_batches(file: Path, batches: Sequence[Batch]) -> None:
    """Write batches as dictionaries of tensors and plain values, which ``torch.load(weights_only=True)`` reads."""
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_suffix(".partial")
    torch.save([_to_plain(batch) for batch in batches], partial)
    partial.replace(file)


def load_batches(file: Path) -> list[Batch]:
    """Return the batches that ``save_batches`` has written.

    Raises:
        ValueError: it is no such file.
    """
    try:
        entries = torch.load(file, weights_only=True)
        return [_build_batch(entry) for entry in entries]
    except Exception as error:
        raise ValueError(f"replay={file} is no file of a run's bad_loss folder ({type(error).__name__}).") from error


def _to_plain(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.detach().cpu()
    if is_dataclass(value):
        return {field.name: _to_plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, Mapping):
        return {str(key): _to_plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_to_plain(entry) for entry in value]
    if value is None or isinstance(value, bool | int | float | str):
        return value
    return str(value)


def _build_batch(entry: dict[str, Any]) -> Batch:
    signals = {name: Signal(**signal) for name, signal in entry.pop("signals").items()}
    features = {name: _build_features(stream) for name, stream in entry.pop("features").items()}
    meta, skipped, rows = (tuple(entry.pop(name)) for name in ("meta", "skipped", "rows"))
    return Batch(**entry, signals=signals, features=features, meta=meta, skipped=skipped, rows=rows)


def _build_features(entry: dict[str, Any]) -> Features:
    grid = None if entry["grid"] is None else tuple(entry["grid"])
    return Features(entry["tokens"], entry["mask"], grid, tuple(map(_build_features, entry["levels"])))
