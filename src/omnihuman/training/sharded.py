"""FSDP2 over all devices, with checkpoints that have no frozen parameters."""

from pathlib import Path
from typing import Any

import torch
from torch.distributed.checkpoint.filesystem import FileSystemReader
from torch.distributed.checkpoint.state_dict import (
    get_model_state_dict,
    get_optimizer_state_dict,
    set_optimizer_state_dict,
)
from torch.distributed.checkpoint.state_dict_loader import load

from omnihuman.pl import pl

STATE = "state_dict"


class ShardedStrategy(pl.strategies.ModelParallelStrategy):
    """Lightning's strategy, which resumes from a checkpoint without the frozen parameters.

    Differs from Lightning's: that one expects every parameter of the model in a sharded checkpoint, even with
    ``strict_loading = False``.
    """

    def load_checkpoint(self, checkpoint_path: Any, weights_only: bool | None = None) -> dict[str, Any]:
        """Load the parameters that the checkpoint has, and the optimizers; return the rest of the checkpoint."""
        path = Path(self.broadcast(checkpoint_path))
        saved = set(FileSystemReader(path).read_metadata().state_dict_metadata)
        state = get_model_state_dict(self.model)
        parameters = {name: value for name, value in state.items() if f"{STATE}.{name}" in saved}
        load({STATE: parameters}, checkpoint_id=path)
        self.model.load_state_dict(parameters, strict=False)
        for number, optimizer in enumerate(self.optimizers):
            key = f"optimizer_{number}"
            entry = {key: get_optimizer_state_dict(self.model, optimizer)}
            load(entry, checkpoint_id=path)
            set_optimizer_state_dict(self.model, optimizer, optim_state_dict=entry[key])
        rest: dict[str, Any] = torch.load(path / "meta.pt", weights_only=weights_only)
        # the objective compares the names with its own
        names = [name.removeprefix(f"{STATE}.") for name in saved if name.startswith(f"{STATE}.")]
        return rest | {STATE: dict.fromkeys(names)}
