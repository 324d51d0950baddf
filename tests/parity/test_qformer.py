"""Our Q-Former, at official names, against a plain restatement of VideoChat2's, and against what must not equal it."""

import math
import zlib
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from omnihuman.convert.videochat2 import from_official
from omnihuman.projector.qformer import QFormer
from omnihuman.types import Features

IN_DIM, OUT_DIM, DIM, HEADS, HIDDEN, LAYERS, QUERIES, EXTRA, VOCAB = 10, 6, 16, 2, 24, 4, 3, 2, 20
SEEN, WORDS = (9, 5), (4, 6)
"""Tokens and words of the two samples."""
ATOL = 1e-10

State = dict[str, Tensor]


def official(text: bool) -> State:
    """A checkpoint of VideoChat2; each tensor drawn from its own name."""
    shapes: dict[str, tuple[int, ...]] = {"mistral_proj.weight": (OUT_DIM, DIM), "mistral_proj.bias": (OUT_DIM,)}

    def linear(name: str, out: int, wide: int) -> None:
        shapes[f"{name}.weight"], shapes[f"{name}.bias"] = (out, wide), (out,)

    def ends(name: str, wide: int) -> None:
        linear(f"{name}.dense", DIM, wide)
        shapes[f"{name}.LayerNorm.weight"] = shapes[f"{name}.LayerNorm.bias"] = (DIM,)

    bert = "qformer.bert"
    shapes[f"{bert}.embeddings.LayerNorm.weight"] = shapes[f"{bert}.embeddings.LayerNorm.bias"] = (DIM,)
    if text:
        shapes[f"{bert}.embeddings.word_embeddings.weight"] = (VOCAB, DIM)
        shapes[f"{bert}.embeddings.position_embeddings.weight"] = (512, DIM)
    for layer in (f"{bert}.encoder.layer.{number}" for number in range(LAYERS)):
        for kind in ("attention", "crossattention")[: 1 + (int(layer[-1]) % 2 == 0)]:
            for part in ("query", "key", "value"):
                linear(f"{layer}.{kind}.self.{part}", DIM, DIM if kind == "attention" or part == "query" else IN_DIM)
            ends(f"{layer}.{kind}.output", DIM)
        for end in ("_query", "")[: 1 + text]:
            linear(f"{layer}.intermediate{end}.dense", HIDDEN, DIM)
            ends(f"{layer}.output{end}", HIDDEN)
    state = {name: 0.3 * drawn(name, shape) + float(name.endswith("Norm.weight")) for name, shape in shapes.items()}
    # as narrow as the official start, 0.02: there an eps shows
    state |= {"query_tokens": 0.02 * drawn("query_tokens", (1, QUERIES, DIM))}
    return state | {"extra_query_tokens": 0.02 * drawn("extra_query_tokens", (1, EXTRA, DIM))}


def drawn(name: str, shape: tuple[int, ...]) -> Tensor:
    random = torch.Generator().manual_seed(zlib.crc32(name.encode()))
    return torch.randn(shape, generator=random, dtype=torch.float64)


def restated(
    state: State, seen: Tensor, ids: Tensor | None, *, eps: float = 1e-12, reads: tuple[int, ...] = (0, 2),
    places: str = "text", shared: bool = False, pre_norm: bool = False, gelu: str = "none",
    order: tuple[str, ...] = ("query_tokens", "extra_query_tokens"),
) -> Tensor:  # fmt: skip
    """One sample without padding: tokens ``[P D]`` and ids ``[L]`` -> ``[Q out]``."""

    def linear(x: Tensor, name: str) -> Tensor:
        return F.linear(x, state[f"{name}.weight"], state[f"{name}.bias"])

    def norm(x: Tensor, name: str) -> Tensor:
        return F.layer_norm(x, (DIM,), state[f"{name}.weight"], state[f"{name}.bias"], eps)

    def closed(x: Tensor, y: Tensor, name: str) -> Tensor:
        y = linear(y, f"{name}.dense")
        return x + norm(y, f"{name}.LayerNorm") if pre_norm else norm(x + y, f"{name}.LayerNorm")

    def attended(x: Tensor, y: Tensor, name: str) -> Tensor:
        given = {"query": x, "key": y, "value": y}
        q, k, v = (
            linear(z, f"{name}.self.{part}").unflatten(1, (HEADS, -1)).transpose(0, 1) for part, z in given.items()
        )
        read = (q @ k.transpose(1, 2) / math.sqrt(DIM // HEADS)).softmax(-1) @ v
        return closed(x, read.transpose(0, 1).flatten(1), f"{name}.output")

    def fed(x: Tensor, layer: str, end: str) -> Tensor:
        inner = F.gelu(linear(x, f"{layer}.intermediate{end}.dense"), approximate=gelu)
        return closed(x, inner, f"{layer}.output{end}")

    x = torch.cat([state[name][0] for name in order])
    count = len(x)
    if ids is not None:
        table = state["qformer.bert.embeddings.position_embeddings.weight"]
        words = state["qformer.bert.embeddings.word_embeddings.weight"][ids]
        if places == "all":
            x = x + table[:count]
        if places != "none":
            words = words + table[count : count + len(ids)] if places == "after" else words + table[: len(ids)]
        x = torch.cat([x, words])
    x = norm(x, "qformer.bert.embeddings.LayerNorm")
    for number in range(LAYERS):
        layer = f"qformer.bert.encoder.layer.{number}"
        x = attended(x, x, f"{layer}.attention")
        asked, text = x[:count], x[count:]
        if number in reads:  # a layer that officially reads nothing borrows from the one below
            asked = attended(asked, seen, f"qformer.bert.encoder.layer.{number // 2 * 2}.crossattention")
        asked = fed(asked, layer, "_query")
        x = torch.cat([asked, fed(text, layer, "_query" if shared else "")]) if len(text) else asked
    return linear(x[:count], "mistral_proj")


def padded(rows: list[Tensor], hidden: float) -> Features:
    """Rows ``[L D]`` of several lengths, one token a moment; ``hidden`` fills up."""
    longest = max(map(len, rows)) + 1
    tokens = torch.stack([F.pad(row, (0, 0, 0, longest - len(row)), value=hidden) for row in rows])
    mask = torch.arange(longest) < torch.tensor([len(row) for row in rows])[:, None]
    return Features.of(tokens[:, :, None], mask)


@torch.no_grad()
def apart(text: bool, words: str = "as given", **wrong: Any) -> Tensor:
    """For both samples the greatest difference to the restatement."""
    state = official(text)
    made = QFormer(
        IN_DIM, OUT_DIM, num_queries=QUERIES, extra_queries=EXTRA, hidden_size=DIM, num_hidden_layers=LAYERS,
        num_attention_heads=HEADS, intermediate_size=HIDDEN, text=text, vocab_size=VOCAB,
    ).eval().double()  # fmt: skip
    ours, _ = from_official(state)
    made.load_state_dict({name.removeprefix("projectors.general."): tensor for name, tensor in ours.items()})
    seen = [drawn(f"tokens {count}", (count, IN_DIM)) for count in SEEN]
    ids = [torch.arange(count) * 7 % VOCAB for count in WORDS]
    condition = padded([row[:, None].float() for row in ids], 3.0) if text else None
    tokens = made(padded(seen, 9.0), condition).tokens[:, 0]
    heard: list[Tensor | None] = [row.flip(0) if words == "turned" else row for row in ids]
    if not text or words == "left out":
        heard = [None, None]
    other = [restated(state, *one, **wrong) for one in zip(seen, heard, strict=True)]
    return (tokens - torch.stack(other)).abs().amax(dim=(1, 2))


@pytest.mark.parametrize("text", [False, True])
def test_equals_the_restatement(text: bool) -> None:
    """Two samples of different lengths beside each other, as each is alone."""
    assert apart(text).max() < ATOL


@pytest.mark.parametrize("text", [False, True])
@pytest.mark.parametrize(
    "wrong",
    [
        {"eps": 1e-5},
        {"reads": (0, 1, 2, 3)},
        {"reads": (1, 3)},
        {"reads": (0,)},
        {"reads": ()},
        {"pre_norm": True},
        {"gelu": "tanh"},
        {"order": ("extra_query_tokens", "query_tokens")},
    ],
    ids=str,
)
def test_what_must_differ(text: bool, wrong: dict[str, Any]) -> None:
    assert apart(text, **wrong).min() > 1e-5


@pytest.mark.parametrize(
    "wrong",
    [
        {"words": "left out"},
        {"words": "turned"},
        {"places": "all"},
        {"places": "none"},
        {"places": "after"},
        {"shared": True},
    ],
    ids=str,
)
def test_what_must_differ_with_words(wrong: dict[str, Any]) -> None:
    assert apart(True, **wrong).min() > 1e-5
