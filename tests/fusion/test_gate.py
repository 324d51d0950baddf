"""The instruction-driven gate."""

from typing import Any

import pytest
import torch

from omnihuman.fusion.gate import InstructionGate
from omnihuman.types import Features, Layout

NAMES = ["interaction", "body", "face"]
DIMS = {**dict.fromkeys(NAMES, 8), "words": 6}


def gate(**options: Any) -> InstructionGate:
    torch.manual_seed(0)
    return InstructionGate(DIMS, NAMES, "video", "words", **{"hidden": 16} | options)


def stream(value: float, grid: tuple[int, int] = (2, 2), frames: int = 3) -> Features:
    tokens = torch.full((2, frames, grid[0] * grid[1], 8), float(value))
    return Features.of(tokens, torch.tensor([[True] * frames, [True] + [False] * (frames - 1)]), grid)


def words() -> Features:
    return Features.of(torch.randn(2, 1, 1, 6), torch.ones(2, 1, dtype=torch.bool))


def test_adds_by_weights_that_sum_to_one() -> None:
    module = gate()
    made = module({"interaction": stream(1), "body": stream(10), "face": stream(100), "words": words()})
    assert module.weights is not None and not module.weights.requires_grad
    torch.testing.assert_close(module.weights.sum(1), torch.ones(2))
    expected = module.weights @ torch.tensor([1.0, 10.0, 100.0])
    torch.testing.assert_close(made["video"].tokens, expected[:, None, None, None].expand(2, 3, 4, 8))
    assert torch.equal(made["video"].mask, stream(1).mask) and made["video"].grid == (2, 2)
    assert set(made) == {"video", "words"}


def test_raw_weights_are_those_of_equation_1() -> None:
    module = gate(activation="none")
    given = words()
    module({name: stream(1) for name in NAMES} | {"words": given})
    assert module.weights is not None
    torch.testing.assert_close(module.weights, module.layers(given.tokens[:, 0, 0]).detach())
    assert not torch.allclose(module.weights.sum(1), torch.ones(2))


def test_layout_is_that_of_the_inputs() -> None:
    assert gate().layout([Layout(3, 4, (2, 2))] * 3) == Layout(3, 4, (2, 2))


@pytest.mark.parametrize("other", [stream(1, (4, 1)), stream(1, (3, 3)), stream(1, frames=2)], ids=["grid", "N", "T"])
def test_streams_of_other_shapes_are_named(other: Features) -> None:
    with pytest.raises(ValueError, match=r"'body': Layout\(moments=3, .*'face': Layout\(moments="):
        gate()({"interaction": stream(1), "body": stream(1), "face": other, "words": words()})


def test_needs_a_condition() -> None:
    with pytest.raises(ValueError, match="name its stream as `condition`"):
        InstructionGate(DIMS, NAMES, "video")


def test_each_weight_belongs_to_its_input() -> None:
    """In the order of ``inputs``; every sample has its own."""
    module = gate()
    with torch.no_grad():
        module.layers[-1].weight.zero_()
        module.layers[-1].bias.copy_(torch.tensor([-50.0, -50.0, 50.0]))
    made = module({"interaction": stream(1), "body": stream(10), "face": stream(100), "words": words()})
    torch.testing.assert_close(made["video"].tokens, stream(100).tokens)


def test_hidden_words_steer_nothing() -> None:
    module, given = gate(), {name: stream(k) for k, name in enumerate(NAMES)}
    said = torch.tensor([[True], [False]])
    one, other = words().tokens, words().tokens
    other[0] = one[0]
    first, second = (module(given | {"words": Features.of(x, said)})["video"].tokens for x in (one, other))
    assert torch.equal(first, second)
    heard = module(given | {"words": Features.of(other, torch.ones_like(said))})["video"].tokens
    assert not torch.equal(heard[1], second[1])


def test_misfits_are_named() -> None:
    with pytest.raises(ValueError, match=r"reads \['voice'\], but the streams here are"):
        InstructionGate(DIMS, NAMES, "video", "voice")
    with pytest.raises(ValueError, match=r"streams of one width, got .*'face': 9.*is a projector missing"):
        InstructionGate(DIMS | {"face": 9}, NAMES, "video", "words")
