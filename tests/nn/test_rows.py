"""A network runs only on what is real, and where nothing is, it still takes part."""

import torch

from omnihuman.nn.rows import on_real

VALUES = torch.arange(8.0).reshape(4, 2)


def test_only_real_rows_run() -> None:
    seen: list[int] = []

    def run(rows: torch.Tensor) -> torch.Tensor:
        seen.extend(rows.tolist())
        return VALUES[rows] + 1

    made = on_real(run, torch.tensor([True, False, False, True]), (2,), torch.float32)
    assert seen == [0, 3]
    assert made.tolist() == [[1, 2], [0, 0], [0, 0], [7, 8]]


def test_nothing_real_without_a_graph_runs_nothing() -> None:
    with torch.no_grad():
        made = on_real(lambda rows: 1 / 0, torch.zeros(4, dtype=torch.bool), (3, 2), torch.bfloat16)  # type: ignore[arg-type,return-value]
    assert made.shape == (4, 3, 2) and made.dtype == torch.bfloat16 and not made.any()


def test_nothing_real_with_a_graph_gives_zero_gradients() -> None:
    layer = torch.nn.Linear(2, 3)
    made = on_real(lambda rows: layer(VALUES[rows]), torch.zeros(4, dtype=torch.bool), (3,), torch.float32)
    assert made.shape == (4, 3) and not made.any()
    made.sum().backward()
    assert layer.weight.grad is not None and not layer.weight.grad.any()


def test_gradients_pass_through_the_scatter() -> None:
    values = VALUES.clone().requires_grad_()
    on_real(lambda rows: values[rows], torch.tensor([False, True, True, False]), (2,), torch.float32).sum().backward()
    assert values.grad is not None and values.grad.sum(1).tolist() == [0, 2, 2, 0]
