"""The loss of a step: the mean over its supervised tokens, however they are packed."""

import torch

from omnihuman.objective.supervised import Supervised
from omnihuman.types import Output


def test_loss_is_the_sum_over_supervised_tokens() -> None:
    log_probs = torch.tensor([-1.0, -2.5], requires_grad=True)
    output = Output(log_probs, torch.tensor([1, 2]), (0, 4))
    loss = Supervised.compute_loss(None, output, None)  # type: ignore[arg-type]
    loss.backward()
    assert float(loss.detach()) == 3.5 and output.targets == 2
    assert log_probs.grad is not None and log_probs.grad.tolist() == [-1, -1]
