"""The data of a run as Lightning's trainer takes it."""

from typing import Any

import torch

from omnihuman.data.loader import Loader
from omnihuman.data.module import OmniData
from omnihuman.pl import pl
from omnihuman.types import Batches


class DataModule(pl.LightningDataModule):
    """Tells the data of a run its trainer.

    Args:
        data: connected to the model.
    """

    def __init__(self, data: OmniData) -> None:
        super().__init__()
        self.data = data

    def setup(self, stage: str) -> None:
        self.data.trainer = self.trainer
        self.data.setup()

    def train_dataloader(self) -> Loader:
        return self.data.train_dataloader()

    def val_dataloader(self) -> Loader | list[Any]:
        return self.data.val_dataloader()

    def transfer_batch_to_device(self, batch: Batches, device: torch.device, dataloader_idx: int) -> Batches:
        """Leave the micro-batches of a step on the host: the objective moves one at a time."""
        return batch

    def state_dict(self) -> dict[str, Any]:
        return self.data.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.data.load_state_dict(state_dict)
