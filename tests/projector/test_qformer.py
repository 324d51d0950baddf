"""The Q-Former: what it hides, what it refuses, how it starts. Its numbers: tests/parity/test_qformer.py."""

from typing import Any

import pytest
import torch
from torch import Tensor

from omnihuman.build import build, compose_part
from omnihuman.model.omni import project_real
from omnihuman.projector.qformer import QFormer
from omnihuman.types import Features, Layout

SIZES: dict[str, Any] = {
    "num_queries": 3, "extra_queries": 2, "hidden_size": 8, "num_hidden_layers": 4, "num_attention_heads": 2,
    "intermediate_size": 16, "vocab_size": 20,
}  # fmt: skip
IDS = [3, 7, 7, 1, 12]


def reader(**options: Any) -> QFormer:
    torch.manual_seed(0)
    return QFormer(10, 6, **SIZES | options).eval()


def clip(*real: list[bool]) -> Features:
    """Three moments of four tokens for every sample."""
    tokens = torch.randn(len(real), 3, 4, 10, generator=torch.Generator().manual_seed(1))
    return Features.of(tokens, torch.tensor(real))


def words(*rows: list[int], hidden: int = 0) -> Features:
    longest = max(map(len, rows))
    ids = torch.tensor([[*row, *[hidden] * (longest - len(row))] for row in rows]).float()
    mask = torch.arange(longest) < torch.tensor([len(row) for row in rows])[:, None]
    return Features.of(ids[:, :, None, None], mask)


@torch.no_grad()
def test_moments_that_are_hidden_are_not_read() -> None:
    """A gap in the middle, as of a frame without a face."""
    part, whole = reader(), clip([True, False, True])
    short = Features.of(whole.tokens[:, [0, 2]], torch.tensor([[True, True]]))
    torch.testing.assert_close(part(whole).tokens, part(short).tokens)
    assert (part(whole).tokens - part(clip([True] * 3)).tokens).abs().max() > 1e-4
    assert part.layout(Layout(3, 4)) == Layout(1, 5)


@torch.no_grad()
@pytest.mark.parametrize("hidden", [0, 5, 99])
def test_padding_of_words_changes_nothing(hidden: int) -> None:
    """Not even ids that are outside the vocabulary; a sample may also have no words at all."""
    part, video = reader(text=True), clip([True] * 3, [True] * 3, [True] * 3)
    made = part(video, words(IDS, [4], [], hidden=hidden)).tokens
    for row, ids in ((0, IDS), (1, [4])):
        alone = Features(video.tokens[row : row + 1], video.mask[row : row + 1])
        torch.testing.assert_close(made[row], part(alone, words(ids)).tokens[0])
    assert made.isfinite().all()


@torch.no_grad()
def test_words_steer_through_the_model() -> None:
    """Only the samples that have the stream are projected, each with its own words."""
    part, video = reader(text=True), clip([False] * 3, [True] * 3)
    made = project_real(part, video, words(IDS, [4, 2]))
    alone = Features(video.tokens[1:], video.mask[1:])
    torch.testing.assert_close(made.tokens[1], part(alone, words([4, 2])).tokens[0])
    assert (made.tokens[1] - part(alone, words([2, 4])).tokens[0]).abs().max() > 1e-4
    assert made.mask.flatten(1).any(dim=1).tolist() == [False, True]


@pytest.mark.parametrize("real", [True, False])
def test_every_parameter_takes_part_with_words(real: bool) -> None:
    """The last block's feed-forward of the words reaches no query: its gradient is zero, but it is there."""
    part = reader(text=True, dropout=0.0).train()
    made = part(clip([real] * 3), words(IDS))
    weights = torch.randn(made.tokens.shape, generator=torch.Generator().manual_seed(2))
    (made.tokens * weights).sum().backward()
    silent = ("encoder.layer.3.intermediate.", "encoder.layer.3.output.", "key.bias")
    for name, parameter in part.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name
        if not any(piece in name for piece in silent):
            assert bool(parameter.grad.any()) == real, name
    assert made.tokens.isfinite().all() and bool(made.mask.any()) == real


def test_extra_queries_at_zero_stay_alike_without_dropout() -> None:
    """Why the nano preset, which has no dropout, draws them."""

    def spread(extra_init: str) -> Tensor:
        part = reader(extra_init=extra_init, dropout=0.0)
        part(clip([True] * 3)).tokens[0, 0, 3:].square().sum().backward()
        gradient = part.extra_queries.grad
        assert gradient is not None
        return (gradient[0, 0] - gradient[0, 1]).abs().max()

    assert not reader().extra_queries.any() and spread("zeros") < 1e-6 < spread("normal")


def test_dropout_is_off_in_eval_mode() -> None:
    part, video = reader(dropout=0.5), clip([True] * 3)
    assert torch.equal(part(video).tokens, part(video).tokens)
    part.train()
    assert not torch.equal(part(video).tokens, part(video).tokens)


def test_two_linears() -> None:
    assert [type(layer).__name__ for layer in reader(linears=2).linears] == ["Linear", "GELU", "Linear"]
    with pytest.raises(ValueError, match="linears=3"):
        reader(linears=3)


@pytest.mark.parametrize(
    ("text", "condition", "wrong"),
    [
        (True, None, "text=true, but no words are given.*conditions"),
        (False, words(IDS), "text=false, but conditions"),
        (True, Features.of(torch.zeros(1, 1, 1, 8), torch.ones(1, 1, dtype=torch.bool)), "width 8.*encoder words"),
        (True, words([1, 20]), "the id 20, but vocab_size is 20"),
        (True, words([1] * 513), "513 ids, but positions for 512.*max_length"),
    ],
    ids=["no words", "words for none", "no ids", "foreign ids", "too long"],
)
def test_words_that_do_not_fit(text: bool, condition: Features | None, wrong: str) -> None:
    with pytest.raises(ValueError, match=wrong):
        reader(text=text)(clip([True] * 3), condition)


@pytest.mark.parametrize(("text", "size"), [(False, 101_598_720), (True, 182_121_216)])
def test_real_size_builds_without_memory(text: bool, size: int) -> None:
    """182.12 million parameters, as VideoChat2's with its words."""
    config = compose_part("projector", "qformer/7b")
    config.text = text
    with torch.device("meta"):
        part = build(config)(in_dim=1024, out_dim=4096)
    assert all(parameter.is_meta for parameter in part.parameters())
    assert sum(parameter.numel() for parameter in part.model.parameters()) == size
    assert part.layout(Layout(8, 196)) == Layout(1, 96)
