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


def test_temperature_divides_the_logits() -> None:
    inputs = build_inputs()
    plain, even = build_gate(), build_gate(temperature=1e6)
    plain(inputs), even(inputs)
    assert plain.weights is not None and even.weights is not None
    torch.testing.assert_close(even.weights, torch.full((2, 3), 1 / 3), atol=1e-4, rtol=0)
    logits = plain.layers(inputs["instruction"].tokens[:, 0, 0]).detach()
    torch.testing.assert_close(plain.weights, logits.softmax(dim=-1))


def test_no_loss_unless_an_option_asks_for_it() -> None:
    for module in (build_gate(), build_gate(balance=1.0).eval()):
        module(build_inputs())
        assert module.auxiliary_losses(["face", "face"], 0) == {}


def test_balance_is_least_where_all_streams_are_used_alike() -> None:
    module = build_gate(balance=0.5)
    module(build_inputs())
    weight, values = module.auxiliary_losses(["face", "face"], 0)["balance"]
    torch.testing.assert_close(values, torch.ones(2))
    assert weight == 0.5 and module.auxiliary_losses(["face", "face"], 0) == {}, "once"
    module.usage = [0.8, 0.2, 0.0]
    module(build_inputs())
    weights = module.weights
    assert weights is not None
    _, values = module.auxiliary_losses(["face", "face"], 0)["balance"]
    torch.testing.assert_close(values.detach(), 3 * (0.8 * weights[:, 0] + 0.2 * weights[:, 1]))
    before = float(values.sum().detach())
    torch.autograd.backward(values.sum())
    with torch.no_grad():
        for parameter in module.parameters():
            assert parameter.grad is not None
            parameter.sub_(0.1 * parameter.grad)
    torch.manual_seed(0)
    module(build_inputs())
    _, values = module.auxiliary_losses(["face", "face"], 0)["balance"]
    assert float(values.sum().detach()) < before


def test_warm_start_is_the_cross_entropy_of_its_tasks_and_steps() -> None:
    module = build_gate(warm_start={"face": "face"}, warm_start_weight=2.0, warm_start_steps=3)
    module(build_inputs())
    weights = module.weights
    assert weights is not None
    weight, values = module.auxiliary_losses(["face", "caption"], 2)["warm_start"]
    torch.testing.assert_close(values.detach(), torch.stack([-weights[0, 2].log(), torch.tensor(0.0)]))
    assert weight == 2.0
    module(build_inputs())
    assert module.auxiliary_losses(["face", None], 3)["warm_start"].weight == 0, "logged, not trained"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"temperature": 0.0}, r"temperature=0\.0"),
        ({"balance": -1.0}, r"balance=-1\.0"),
        ({"warm_start": {"face": "nose"}}, r"\['nose'\].*'face'"),
        ({"activation": "none", "balance": 1.0}, "activation=none"),
    ],
)
def test_bad_options_raise(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build_gate(**options)
