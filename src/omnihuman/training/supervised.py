"""Next-token loss on the answers: the objective of every stage of the three papers."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from omnihuman.model.omni import OmniModel
from omnihuman.pl import pl
from omnihuman.training.trainable import Group, plain_name
from omnihuman.training.weights import canonical
from omnihuman.types import Batch


class Supervised(pl.LightningModule):
    """Trains an ``OmniModel`` on packed batches.

    The loss of an optimizer step is the mean over all supervised tokens of the step, wherever they lie: every
    micro-batch on every rank divides its sum by the same number, so packing and the number of processes change nothing.

    Args:
        model: what learns.
        groups: what of it trains, and how fast: the outcome of ``set_trainable``.
        optimizer: called with the parameter groups.
        scheduler: called with the optimizer and ``total_steps``.
        total_steps: optimizer steps of the whole run.
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
        self.groups, self.total_steps = list(groups), total_steps
        self.make_optimizer, self.make_scheduler = optimizer, scheduler
        self.strict_loading = False  # a checkpoint holds what trains; the rest is where it came from
        self._loss = 0.0
        self._val = (0.0, 0)

    @property
    def trained(self) -> set[str]:
        """Names, without the leading ``model.``, of the parameters that train."""
        return {canonical(name) for group in self.groups for name in group.names}

    def configure_model(self) -> None:
        """Shard over the data-parallel ranks where the strategy is FSDP2; each block of a stack on its own.

        A frozen encoder stays whole on every rank: it runs only where a rank has something to read, and a shard would
        have to be gathered by all of them.
        """
        mesh = getattr(self, "device_mesh", None)
        if mesh is None or getattr(self, "_sharded", False):
            return
        from torch.distributed.fsdp import fully_shard

        self._sharded = True
        frozen = [e for e in self.model.encoders.values() if not any(p.requires_grad for p in e.parameters())]
        whole = {parameter for encoder in frozen for parameter in encoder.to(self.device).parameters()}
        for module in self.model.modules():
            if isinstance(module, nn.ModuleList):
                for block in module:
                    if not whole.intersection(block.parameters()):
                        fully_shard(block, mesh=mesh["data_parallel"])
        fully_shard(self.model, mesh=mesh["data_parallel"], ignored_params=whole)

    def configure_optimizers(self) -> dict[str, Any]:
        named = {plain_name(name): parameter for name, parameter in self.model.named_parameters()}
        optimizer = self.make_optimizer(list(_optimizer_groups(self.groups, named)))
        scheduler = self.make_scheduler(optimizer, total_steps=self.total_steps)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        output = self.model(batch)
        share = output.loss / max(1, batch.step_targets)
        self._loss = self._loss + share.detach()
        rows = self.trainer.accumulate_grad_batches
        if (batch_idx + 1) % rows == 0:
            # the mean over ranks that sync_dist takes, times their number, is the sum
            self.log("train/loss", self._loss * self.trainer.world_size, prog_bar=True, sync_dist=True, batch_size=1)
            self.log("train/lr", self.optimizers().param_groups[0]["lr"], batch_size=1)
            self._loss = 0.0
        scaled: Tensor = share * self.trainer.world_size * rows  # undoes the two means that Lightning takes
        return scaled

    def on_validation_epoch_start(self) -> None:
        self._val = (0.0, 0)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        output = self.model(batch)
        self._val = (self._val[0] + output.loss.double(), self._val[1] + output.targets)

    def on_validation_epoch_end(self) -> None:
        """Mean over all supervised tokens of the validation data, over all ranks."""
        both = torch.tensor([float(self._val[0]), float(self._val[1])], dtype=torch.float64, device=self.device)
        total, targets = self.trainer.strategy.reduce(both, reduce_op="sum").tolist()
        if targets:
            self.log("val/loss", total / targets, prog_bar=True, rank_zero_only=False, batch_size=1)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Leave out what is frozen, and keep the random generator's state beside the loader's."""
        trained = {f"model.{name}" for group in self.groups for name in group.names}
        state = checkpoint["state_dict"]
        checkpoint["state_dict"] = {key: state[key] for key in state if plain_name(key) in trained}
        checkpoint["rng"] = torch.get_rng_state()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        have = {plain_name(key) for key in checkpoint["state_dict"]}
        want = {f"model.{name}" for group in self.groups for name in group.names}
        if have != want:
            raise ValueError(
                f"the checkpoint holds {len(have)} trained tensors, this run trains {len(want)}; they differ in "
                f"{sorted(have ^ want)[:3]}: was `trainable` changed? Start anew with overwrite=true."
            )
        torch.set_rng_state(checkpoint["rng"].cpu())


def _optimizer_groups(groups: Iterable[Group], named: Mapping[str, nn.Parameter]) -> Iterable[dict[str, Any]]:
    """One group a row of the table and kind: matrices decay, biases and norms do not."""
    for group in groups:
        for decays in (True, False):
            parameters = [named[name] for name in group.names if (named[name].ndim > 1) == decays]
            decay = group.weight_decay if decays else 0.0
            options = {} if decay is None else {"weight_decay": decay}
            if parameters:
                yield {"params": parameters, "lr": group.lr, "name": group.pattern, **options}
