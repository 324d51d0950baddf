"""A network runs on valid samples only, and takes part in the step even without any."""

import torch

from omnihuman.nn.masking import run_blanks, run_on_valid

VALUES = torch.arange(8.0).reshape(4, 2)


def test_only_valid_samples_run() -> None:
    calls: list[int] = []

    def run(index: torch.Tensor) -> torch.Tensor:
        calls.extend(index.tolist())
        return VALUES[index] + 1

    output = run_on_valid(run, torch.tensor([True, False, False, True]), (2,), torch.float32)
    assert calls == [0, 3]
    assert output.tolist() == [[1, 2], [0, 0], [0, 0], [7, 8]]


def test_without_valid_samples_and_graph_nothing_runs() -> None:
    with torch.no_grad():
        output = run_on_valid(lambda index: 1 / 0, torch.zeros(4, dtype=torch.bool), (3, 2), torch.bfloat16)  # type: ignore[arg-type,return-value]
    assert output.shape == (4, 3, 2) and output.dtype == torch.bfloat16 and not output.any()


def test_every_rank_runs_a_sharded_network_without_a_graph_too() -> None:
    calls: list[int] = []

    def run(index: torch.Tensor) -> torch.Tensor:
        calls.extend(index.tolist())
        return VALUES[index] + 1

    with torch.no_grad(), run_blanks():
        output = run_on_valid(run, torch.zeros(4, dtype=torch.bool), (2,), torch.float32)
    assert calls == [0] and not output.any()


def test_without_valid_samples_gradients_are_zero() -> None:
    layer = torch.nn.Linear(2, 3)
    output = run_on_valid(lambda index: layer(VALUES[index]), torch.zeros(4, dtype=torch.bool), (3,), torch.float32)
    assert output.shape == (4, 3) and not output.any()
    output.sum().backward()
    assert layer.weight.grad is not None and not layer.weight.grad.any()


def test_gradients_reach_valid_samples_only() -> None:
    values = VALUES.clone().requires_grad_()
    valid = torch.tensor([False, True, True, False])
    run_on_valid(lambda index: values[index], valid, (2,), torch.float32).sum().backward()
    assert values.grad is not None and values.grad.sum(1).tolist() == [0, 2, 2, 0]
