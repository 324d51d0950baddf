"""The gate whose weights depend on the instruction."""

from typing import Any

import pytest
import torch
from torch import Tensor

from omnihuman.fusion.gate import InstructionGate
from omnihuman.types import Features, Layout

NAMES = ["interaction", "body", "face"]
DIMS = {**dict.fromkeys(NAMES, 8), "instruction": 6}


def build_gate(**options: Any) -> InstructionGate:
    torch.manual_seed(0)
    return InstructionGate(DIMS, NAMES, "video", "instruction", **{"hidden": 16} | options)


def build_stream(value: float, grid: tuple[int, int] = (2, 2), frames: int = 3) -> Features:
    tokens = torch.full((2, frames, grid[0] * grid[1], 8), float(value))
    return Features.of(tokens, torch.tensor([[True] * frames, [True] + [False] * (frames - 1)]), grid)


def draw_instruction() -> Features:
    return Features.of(torch.randn(2, 1, 1, 6), torch.ones(2, 1, dtype=torch.bool))


def build_inputs() -> dict[str, Features]:
    """Return streams of the values 1, 10 and 100 and an instruction."""
    streams = {name: build_stream(10**index) for index, name in enumerate(NAMES)}
    return streams | {"instruction": draw_instruction()}


def test_weights_sum_to_one() -> None:
    module = build_gate()
    merged = module(build_inputs())
    assert module.weights is not None and not module.weights.requires_grad
    torch.testing.assert_close(module.weights.sum(1), torch.ones(2))
    expected = module.weights @ torch.tensor([1.0, 10.0, 100.0])
    torch.testing.assert_close(merged["video"].tokens, expected[:, None, None, None].expand(2, 3, 4, 8))
    assert torch.equal(merged["video"].mask, build_stream(1).mask) and merged["video"].grid == (2, 2)
    assert set(merged) == {"video", "instruction"}


def test_without_softmax_weights_are_equation_1() -> None:
    module = build_gate(activation="none")
    instruction = draw_instruction()
    module(build_inputs() | {"instruction": instruction})
    assert module.weights is not None
    torch.testing.assert_close(module.weights, module.layers(instruction.tokens[:, 0, 0]).detach())
    assert not torch.allclose(module.weights.sum(1), torch.ones(2))


def test_layout_equals_the_inputs() -> None:
    assert build_gate().layout([Layout(3, 4, (2, 2))] * 3) == Layout(3, 4, (2, 2))


@pytest.mark.parametrize(
    "face", [build_stream(1, (4, 1)), build_stream(1, (3, 3)), build_stream(1, frames=2)], ids=["grid", "N", "T"]
)
def test_different_layouts_raise(face: Features) -> None:
    with pytest.raises(ValueError, match=r"'body': Layout\(time_steps=3, .*'face': Layout\(time_steps="):
        build_gate()(build_inputs() | {"face": face})


def test_missing_condition_raises() -> None:
    with pytest.raises(ValueError, match=r"condition.*none.*`condition`"):
        InstructionGate(DIMS, NAMES, "video")


def test_weights_follow_the_order_of_inputs() -> None:
    """The third weight is 1: the result is the third input."""
    module = build_gate()
    with torch.no_grad():
        module.layers[-1].weight.zero_()
        module.layers[-1].bias.copy_(torch.tensor([-50.0, -50.0, 50.0]))
    merged = module(build_inputs())
    torch.testing.assert_close(merged["video"].tokens, build_stream(100).tokens)


def test_a_masked_instruction_has_no_effect() -> None:
    module, streams = build_gate(), build_inputs()

    def merge(tokens: Tensor, mask: Tensor) -> Tensor:
        return module(streams | {"instruction": Features.of(tokens, mask)})["video"].tokens

    mask = torch.tensor([[True], [False]])
    tokens, other_tokens = draw_instruction().tokens, draw_instruction().tokens
    other_tokens[0] = tokens[0]
    masked = merge(other_tokens, mask)
    assert torch.equal(merge(tokens, mask), masked)
    unmasked = merge(other_tokens, torch.ones_like(mask))
    assert not torch.equal(unmasked[1], masked[1])


def test_bad_wiring_raises() -> None:
    with pytest.raises(ValueError, match=r"condition 'voice'.*'instruction': 6"):
        InstructionGate(DIMS, NAMES, "video", "voice")
    with pytest.raises(ValueError, match=r"one width.*'face': 9.*projector"):
        InstructionGate(DIMS | {"face": 9}, NAMES, "video", "instruction")
