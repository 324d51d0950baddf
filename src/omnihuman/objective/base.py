"""An objective: a LightningModule that trains an ``OmniModel`` by the log-probabilities of its supervised tokens."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, NoReturn

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.optim import Optimizer

from omnihuman.model.materialize import materialize
from omnihuman.model.omni import OmniModel
from omnihuman.model.sharding import frozen_encoders, shard_model
from omnihuman.model.trainable import Group, canonical_name, strip_wrappers
from omnihuman.nn.deferred import Recording
from omnihuman.nn.masking import run_blanks
from omnihuman.pl import pl
from omnihuman.types import Batch, Batches, Output


class Objective(pl.LightningModule, ABC):
    """Trains an ``OmniModel`` on packed batches; a subclass computes the loss of a batch.

    The loss of an optimizer step is the sum over its micro-batches on all ranks, divided by all supervised tokens of
    the step: every micro-batch divides by the same number, so that packing and the number of processes do not change
    it. Losses of the model's fusions beside that of the answers, if they are set, are divided by all samples of the
    step in the same way; they are logged by their own names and are no part of ``train/loss``.

    Args:
        model: the model to train.
        groups: its trainable parameters with their learning rates, from ``set_trainable``.
        optimizer: called with the parameter groups.
        scheduler: called with the optimizer and ``total_steps``.
        total_steps: optimizer steps of the run.

    Attributes:
        step_batches: micro-batches of the current optimizer step, on the host.
        step_losses: their losses.
        is_step_skipped: the last optimizer step was not taken.
        measure: model and micro-batch -> context of a forward pass in training.
        recording: of the build of a model without memory, whose parameters get their values on the devices.
    """

    def __init__(
        self,
        model: OmniModel,
        groups: Sequence[Group],
        optimizer: Callable[..., Optimizer],
        scheduler: Callable[..., torch.optim.lr_scheduler.LRScheduler],
        total_steps: int,
    ) -> None:
        super().__init__()
        self.model = model
        self.groups = list(groups)
        self.total_steps = total_steps
        self.build_optimizer = optimizer
        self.build_scheduler = scheduler
        self.strict_loading = False  # a checkpoint has no frozen parameters: they are loaded as in a new run
        self.is_sharded = False
        self.recording: Recording | None = None
        self.step_batches: Batches = ()
        self.step_losses: list[Tensor] = []
        self.is_step_skipped = False
        self.measure: Callable[[OmniModel, Batch], AbstractContextManager[Any]] = lambda model, batch: nullcontext()
        self._step_loss: Tensor | float = 0.0
        self._step_auxiliary: dict[str, Tensor] = {}
        self._val_loss: Tensor | float = 0.0
        self._val_targets = 0

    @abstractmethod
    def compute_loss(self, output: Output, batch: Batch) -> Float[Tensor, ""]:
        """Return the loss summed over the supervised tokens of a packed batch.

        Args:
            output: log-probabilities of the supervised tokens, their positions, and the bounds of the samples.
            batch: that the output belongs to.
        """

    @classmethod
    def load_from_checkpoint(cls, checkpoint_path: Any, *args: Any, **kwargs: Any) -> NoReturn:
        """Name the way to load a model: a checkpoint holds the state of a training, without frozen parameters.

        Raises:
            ValueError: always.
        """
        folder = Path(str(checkpoint_path)).parents[1]
        raise ValueError(
            f"{checkpoint_path}: a checkpoint has no frozen parameters; load the weights of the finished run, "
            f"{folder / 'weights.safetensors'}: omnihuman.load({str(folder)!r})."
        )

    @property
    def trainable_names(self) -> set[str]:
        """Names of the trainable parameters in weights files."""
        return {canonical_name(name) for name in _names(self.groups)}

    def configure_model(self) -> None:
        """Shard the model over the strategy's mesh if it has one.

        Under ``bf16`` and ``bf16-mixed`` a rank stores its shard of what trains in float32, parameters are gathered in
        bfloat16, and gradients are reduced in float32.
        """
        mesh = getattr(self, "device_mesh", None)
        if mesh is None:
            self._materialize()
        if mesh is None or self.is_sharded:
            return
        self._materialize(frozen_encoders(self.model))
        self.is_sharded = True
        for encoder in frozen_encoders(self.model):
            encoder.to(self.device)
        dtype = getattr(self.trainer.precision_plugin, "compute_dtype", None)
        shard_model(self.model, mesh, dtype if dtype == torch.bfloat16 else None)
        self._materialize()

    def _materialize(self, parts: Sequence[nn.Module] | None = None) -> None:
        """Give parameters without memory their values on the device of this rank; those of all parts by default."""
        if self.recording is not None:
            materialize(self.model, self.recording, self.trainer.strategy.root_device, parts)
        if parts is None:
            self.recording = None

    def configure_optimizers(self) -> dict[str, Any]:
        parameters = {strip_wrappers(name): parameter for name, parameter in self.model.named_parameters()}
        groups = list(_optimizer_groups(self.groups, parameters))
        optimizer = self.build_optimizer(groups, **_choose_fused(self.build_optimizer, groups))
        # a fused optimizer could unscale the gradients of float16 itself; Lightning then clips none, whatever the
        # precision, but ends the training
        optimizer._step_supports_amp_scaling = False  # type: ignore[attr-defined]
        scheduler = self.build_scheduler(optimizer, total_steps=self.total_steps)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def optimizer_zero_grad(self, *args: Any) -> None:
        """Do nothing: Lightning would drop the gradients of all micro-batches but the last one."""

    def training_step(self, batch: Batches, batch_idx: int) -> Tensor:
        """Compute the gradients of all micro-batches but the last one, whose loss is returned.

        Gradients are averaged over ranks once in a step, in the backward pass of the last micro-batch; a strategy may
        choose otherwise.
        """
        self.optimizers().zero_grad()
        self.step_batches, self.step_losses, self._step_auxiliary = batch, [], {}
        self._step_loss = 0.0
        for micro_batch in batch[:-1]:
            loss = self._compute_gradient_loss(micro_batch)
            without_sync = getattr(self.trainer.strategy, "block_backward_sync", nullcontext)()
            # Lightning's own backward pass is not in the context of autocast either
            with without_sync, torch.autocast(self.device.type, enabled=False):
                self.trainer.strategy.backward(loss, None)
        loss = self._compute_gradient_loss(batch[-1])
        self._log_step()
        return loss

    def _compute_gradient_loss(self, batch: Batch) -> Tensor:
        """Return the share of a micro-batch in the loss of its step, times the number of ranks.

        The gradients are averaged over ranks, which the factor undoes.
        """
        moved = batch.to(self.device, non_blocking=True)
        with self.measure(self.model, batch):
            output = self.model(moved)
        loss = self.compute_loss(output, moved) / max(1, batch.step_targets)
        self._step_loss = self._step_loss + loss.detach()
        loss = self._add_auxiliary(loss, moved)
        self.step_losses.append(loss.detach())
        scaled: Tensor = loss * self.trainer.world_size
        return scaled

    def _log_step(self) -> None:
        # sync_dist takes the mean over ranks; times their number it is the sum
        world_size = self.trainer.world_size
        self.log("train/loss", self._step_loss * world_size, prog_bar=True, sync_dist=True, batch_size=1)
        self.log("train/lr", self.optimizers().param_groups[0]["lr"], batch_size=1)
        for name, value in self._step_auxiliary.items():
            self.log(f"train/{name}_loss", value * world_size, sync_dist=True, batch_size=1)

    def _add_auxiliary(self, loss: Tensor, batch: Batch) -> Tensor:
        """Return the loss of a micro-batch with those of the fusions, and add these to the sums of the step."""
        for name, (weight, total) in self.model.auxiliary_losses(batch, self.trainer.global_step).items():
            mean = total / max(1, batch.step_samples)
            loss = loss + weight * mean
            self._step_auxiliary[name] = self._step_auxiliary.get(name, torch.zeros_like(mean)) + mean.detach()
        return loss

    def on_train_batch_end(self, outputs: Any, batch: Batches, batch_idx: int) -> None:
        self.step_batches, self.step_losses = (), []

    def on_validation_epoch_start(self) -> None:
        self._val_loss = 0.0
        self._val_targets = 0

    def validation_step(self, batch: Batches, batch_idx: int) -> None:
        for micro_batch in batch:
            moved = micro_batch.to(self.device, non_blocking=True)
            with run_blanks() if self.is_sharded else nullcontext():
                output = self.model(moved)
            self._val_loss = self._val_loss + self.compute_loss(output, moved).double()
            self._val_targets += output.targets

    def on_validation_epoch_end(self) -> None:
        """Log the mean loss over all supervised tokens of the validation data, over all ranks."""
        sums = [float(self._val_loss), float(self._val_targets)]
        local = torch.tensor(sums, dtype=torch.float64, device=self.device)
        loss, num_targets = self.trainer.strategy.reduce(local, reduce_op="sum").tolist()
        if num_targets:
            self.log("val/loss", loss / num_targets, prog_bar=True, rank_zero_only=False, batch_size=1)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Remove the frozen parameters."""
        names = self._state_names()
        state = checkpoint["state_dict"]
        checkpoint["state_dict"] = {key: state[key] for key in state if strip_wrappers(key) in names}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        names = {strip_wrappers(key) for key in checkpoint["state_dict"]}
        expected = self._state_names()
        if names != expected:
            raise ValueError(
                f"the checkpoint has {len(names)} trainable tensors, this run has {len(expected)}; they differ in "
                f"{sorted(names ^ expected)[:3]}: was `trainable` changed? Start again with overwrite=true."
            )

    def _state_names(self) -> set[str]:
        """Return the names of the trainable parameters in the state of this module."""
        return {f"model.{name}" for name in _names(self.groups)}


def _names(groups: Sequence[Group]) -> Iterator[str]:
    for group in groups:
        yield from group.names


def _choose_fused(optimizer: Callable[..., Optimizer], groups: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return ``fused`` for an optimizer whose config leaves it open, if all parameters are on CUDA."""
    options = getattr(optimizer, "keywords", {})
    is_open = "fused" in options and options["fused"] is None
    parameters: list[Tensor] = []
    for group in groups:
        parameters += group["params"]
    if is_open and all(parameter.is_cuda for parameter in parameters):
        return {"fused": True}
    return {}


def _optimizer_groups(groups: Sequence[Group], parameters: Mapping[str, nn.Parameter]) -> Iterator[dict[str, Any]]:
    """Yield up to two groups of parameters for each row of the table: matrices have weight decay, vectors have none."""
    for group in groups:
        for has_decay in (True, False):
            members = [parameters[name] for name in group.names if (parameters[name].ndim > 1) == has_decay]
            options: dict[str, Any] = {"params": members, "lr": group.lr, "name": group.pattern}
            if not has_decay:
                options["weight_decay"] = 0.0
            elif group.weight_decay is not None:
                options["weight_decay"] = group.weight_decay
            if members:
                yield options
