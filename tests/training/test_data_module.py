"""Lightning's view of the data of a run."""

from types import SimpleNamespace
from typing import Any

import torch

from omnihuman.training.data_module import DataModule


def test_the_data_knows_the_trainer_before_it_is_set_up() -> None:
    trainers = []
    data: Any = SimpleNamespace(trainer=None)
    data.setup = lambda: trainers.append(data.trainer)
    module = DataModule(data)
    module.trainer = SimpleNamespace(world_size=2, global_rank=1)
    module.setup("fit")
    assert trainers == [module.trainer]


def test_batches_stay_on_the_host() -> None:
    batch: Any = (object(), object())
    assert DataModule(SimpleNamespace()).transfer_batch_to_device(batch, torch.device("meta"), 0) is batch
