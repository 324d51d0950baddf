"""The loss of a batch: the sum over its supervised tokens."""

import pytest
import torch

from omnihuman.objective.supervised import Supervised
from omnihuman.types import Batch, Output


def test_loss_is_the_sum_over_supervised_tokens() -> None:
    log_probs = torch.tensor([-1.0, -2.5], requires_grad=True)
    output = Output(log_probs, torch.tensor([1, 2]), (0, 4))
    objective = object.__new__(Supervised)
    loss = objective.compute_loss(output, object.__new__(Batch))
    loss.backward()
    assert float(loss.detach()) == 3.5 and output.targets == 2
    assert log_probs.grad is not None and log_probs.grad.tolist() == [-1, -1]


def test_checkpoint_names_the_way_to_load_the_run() -> None:
    with pytest.raises(ValueError, match=r"runs/nano/x/weights\.safetensors: omnihuman\.load\('runs/nano/x'\)"):
        Supervised.load_from_checkpoint("runs/nano/x/checkpoints/step=3.ckpt")
