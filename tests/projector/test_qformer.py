"""The Q-Former: masks, errors and initialization. Its numbers are compared in tests/parity/test_qformer.py."""

from typing import Any

import pytest
import torch
from torch import Tensor

from omnihuman.build import build, compose_part
from omnihuman.model.streams import project_valid
from omnihuman.projector.qformer import QFormer
from omnihuman.types import Features, Layout

SIZES: dict[str, Any] = {
    "num_queries": 3,
    "extra_queries": 2,
    "hidden_size": 8,
    "num_hidden_layers": 4,
    "num_attention_heads": 2,
    "intermediate_size": 16,
    "vocab_size": 20,
}
IDS = [3, 7, 7, 1, 12]


def build_qformer(**options: Any) -> QFormer:
    torch.manual_seed(0)
    return QFormer(10, 6, **SIZES | options).eval()


def clip(*valid: list[bool]) -> Features:
    """Draw three time steps of four tokens for every sample."""
    tokens = torch.randn(len(valid), 3, 4, 10, generator=torch.Generator().manual_seed(1))
    return Features.of(tokens, torch.tensor(valid))


def sample_of(features: Features, index: int) -> Features:
    return Features(features.tokens[index : index + 1], features.mask[index : index + 1])


def instruction(*samples: list[int], padding: int = 0) -> Features:
    """Token ids as a stream, padded on the right."""
    longest = max(map(len, samples))
    ids = torch.full((len(samples), longest), float(padding))
    mask = torch.zeros(len(samples), longest, dtype=torch.bool)
    for index, sample in enumerate(samples):
        ids[index, : len(sample)] = torch.tensor(sample, dtype=torch.float32)
        mask[index, : len(sample)] = True
    return Features.of(ids[:, :, None, None], mask)


@torch.no_grad()
def test_invalid_time_steps_are_ignored() -> None:
    """A gap in the middle, as of a frame without a face."""
    qformer, features = build_qformer(), clip([True, False, True])
    shorter = Features.of(features.tokens[:, [0, 2]], torch.tensor([[True, True]]))
    torch.testing.assert_close(qformer(features).tokens, qformer(shorter).tokens)
    assert (qformer(features).tokens - qformer(clip([True] * 3)).tokens).abs().max() > 1e-4
    assert qformer.layout(Layout(3, 4)) == Layout(1, 5)


@torch.no_grad()
@pytest.mark.parametrize("padding", [0, 5, 99])
def test_padding_of_the_instruction_changes_nothing(padding: int) -> None:
    """Padding may be outside the vocabulary, and an instruction may be empty."""
    qformer, features = build_qformer(text=True), clip([True] * 3, [True] * 3, [True] * 3)
    tokens = qformer(features, instruction(IDS, [4], [], padding=padding)).tokens
    for index, ids in ((0, IDS), (1, [4])):
        alone = qformer(sample_of(features, index), instruction(ids))
        torch.testing.assert_close(tokens[index], alone.tokens[0])
    assert tokens.isfinite().all()


@torch.no_grad()
def test_each_sample_has_its_own_instruction() -> None:
    """The model projects only samples with tokens."""
    qformer, features = build_qformer(text=True), clip([False] * 3, [True] * 3)
    projected = project_valid(qformer, features, instruction(IDS, [4, 2]))
    alone = sample_of(features, 1)
    torch.testing.assert_close(projected.tokens[1], qformer(alone, instruction([4, 2])).tokens[0])
    assert (projected.tokens[1] - qformer(alone, instruction([2, 4])).tokens[0]).abs().max() > 1e-4
    assert projected.mask.flatten(1).any(dim=1).tolist() == [False, True]


@pytest.mark.parametrize("valid", [True, False])
def test_every_parameter_has_a_gradient(valid: bool) -> None:
    """The feed-forward layer of the text in the last block affects no query: its gradient is zero, not None."""
    qformer = build_qformer(text=True, dropout=0.0).train()
    features = qformer(clip([valid] * 3), instruction(IDS))
    weights = torch.randn(features.tokens.shape, generator=torch.Generator().manual_seed(2))
    (features.tokens * weights).sum().backward()
    without_effect = ("encoder.layer.3.intermediate.", "encoder.layer.3.output.", "key.bias")
    for name, parameter in qformer.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name
        if not any(part in name for part in without_effect):
            assert bool(parameter.grad.any()) == valid, name
    assert features.tokens.isfinite().all() and bool(features.mask.any()) == valid


@pytest.mark.parametrize(("extra_init", "is_equal"), [("zeros", True), ("normal", False)])
def test_extra_queries_of_zeros_stay_equal_without_dropout(extra_init: str, is_equal: bool) -> None:
    """The reason why the nano preset, which has no dropout, initializes them at random."""
    qformer = build_qformer(extra_init=extra_init, dropout=0.0)
    qformer(clip([True] * 3)).tokens[0, 0, 3:].square().sum().backward()
    gradient = qformer.extra_queries.grad
    assert gradient is not None
    difference = (gradient[0, 0] - gradient[0, 1]).abs().max()
    assert bool(difference < 1e-6) == is_equal


def test_dropout_is_off_in_eval_mode() -> None:
    qformer, features = build_qformer(dropout=0.5), clip([True] * 3)
    assert torch.equal(qformer(features).tokens, qformer(features).tokens)
    qformer.train()
    assert not torch.equal(qformer(features).tokens, qformer(features).tokens)


def test_number_of_linears() -> None:
    assert [type(layer).__name__ for layer in build_qformer(linears=2).linears] == ["Linear", "GELU", "Linear"]
    with pytest.raises(ValueError, match=r"linears=3.*\b1 .*VideoChat2.*\b2 .*FaVChat"):
        build_qformer(linears=3)


@pytest.mark.parametrize(
    ("text", "condition", "message"),
    [
        (True, None, "text=true.*no condition.*conditions"),
        (False, instruction(IDS), "conditions .*text=false.*text=true"),
        (True, Features.of(torch.zeros(1, 1, 1, 8), torch.ones(1, 1, dtype=torch.bool)), "width 8.*token_ids"),
        (True, instruction([1, 20]), r"token id 20\b.*vocab_size=20\b"),
        (True, instruction([1] * 513), r"\b513 tokens.*\b512\b.*max_length"),
    ],
    ids=["no condition", "unused condition", "no token ids", "id outside the vocabulary", "too long"],
)
def test_invalid_condition_raises(text: bool, condition: Features | None, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build_qformer(text=text)(clip([True] * 3), condition)


@pytest.mark.parametrize(("text", "size"), [(False, 101_598_720), (True, 182_121_216)])
def test_real_size_has_the_official_number_of_parameters(text: bool, size: int) -> None:
    """182.12 million parameters, as VideoChat2's with its text embedding."""
    config = compose_part("projector", "qformer", size="7b")
    config.text = text
    with torch.device("meta"):
        qformer: QFormer = build(config)(in_dim=1024, out_dim=4096)
    parameters: list[Tensor] = list(qformer.parameters())
    assert all(parameter.is_meta for parameter in parameters)
    assert sum(parameter.numel() for parameter in qformer.model.parameters()) == size
    assert qformer.layout(Layout(8, 196)) == Layout(1, 96)
