"""The Q-Former equals a reference implementation of VideoChat2's, and differs from modified ones."""

import math
import zlib
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from omnihuman.official.videochat2.keys import convert_state
from omnihuman.projector.qformer import QFormer
from omnihuman.types import Features

IN_DIM, OUT_DIM, DIM, HEADS, HIDDEN, LAYERS, QUERIES, EXTRA, VOCAB = 10, 6, 16, 2, 24, 4, 3, 2, 20
NUM_TOKENS, NUM_IDS = (9, 5), (4, 6)
"""Media tokens and token ids of the two samples."""
ATOL = 1e-10
BERT = "qformer.bert"

State = dict[str, Tensor]


def list_official_shapes(text: bool) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {}

    def add_linear(name: str, out_dim: int, in_dim: int) -> None:
        shapes[f"{name}.weight"], shapes[f"{name}.bias"] = (out_dim, in_dim), (out_dim,)

    def add_norm(name: str) -> None:
        shapes[f"{name}.weight"] = shapes[f"{name}.bias"] = (DIM,)

    def add_attention(name: str, key_dim: int) -> None:
        for part, in_dim in (("query", DIM), ("key", key_dim), ("value", key_dim)):
            add_linear(f"{name}.self.{part}", DIM, in_dim)
        add_linear(f"{name}.output.dense", DIM, DIM)
        add_norm(f"{name}.output.LayerNorm")

    def add_mlp(layer: str, suffix: str) -> None:
        add_linear(f"{layer}.intermediate{suffix}.dense", HIDDEN, DIM)
        add_linear(f"{layer}.output{suffix}.dense", DIM, HIDDEN)
        add_norm(f"{layer}.output{suffix}.LayerNorm")

    add_linear("mistral_proj", OUT_DIM, DIM)
    add_norm(f"{BERT}.embeddings.LayerNorm")
    if text:
        shapes[f"{BERT}.embeddings.word_embeddings.weight"] = (VOCAB, DIM)
        shapes[f"{BERT}.embeddings.position_embeddings.weight"] = (512, DIM)
    for number in range(LAYERS):
        layer = f"{BERT}.encoder.layer.{number}"
        add_attention(f"{layer}.attention", DIM)
        add_mlp(layer, "_query")
        if number % 2 == 0:
            add_attention(f"{layer}.crossattention", IN_DIM)
        if text:
            add_mlp(layer, "")
    return shapes


def draw_official_state(text: bool) -> State:
    """Return a checkpoint of VideoChat2; the name of a tensor is its seed."""
    state = {}
    for name, shape in list_official_shapes(text).items():
        state[name] = 0.3 * draw_tensor(name, shape) + float(name.endswith("Norm.weight"))
    # as small as the official initialization, so that eps has an effect
    state["query_tokens"] = 0.02 * draw_tensor("query_tokens", (1, QUERIES, DIM))
    state["extra_query_tokens"] = 0.02 * draw_tensor("extra_query_tokens", (1, EXTRA, DIM))
    return state


def draw_tensor(name: str, shape: tuple[int, ...]) -> Tensor:
    random = torch.Generator().manual_seed(zlib.crc32(name.encode()))
    return torch.randn(shape, generator=random, dtype=torch.float64)


def linear(x: Tensor, state: State, name: str) -> Tensor:
    return F.linear(x, state[f"{name}.weight"], state[f"{name}.bias"])


def split_heads(x: Tensor, state: State, name: str) -> Tensor:
    return linear(x, state, name).unflatten(1, (HEADS, -1)).transpose(0, 1)


def embed(state: State, queries: Tensor, ids: Tensor | None, positions: str) -> Tensor:
    """Concatenate the queries and the embedded text; ``positions`` selects the inputs with position embeddings."""
    if ids is None:
        return queries
    table = state[f"{BERT}.embeddings.position_embeddings.weight"]
    text = state[f"{BERT}.embeddings.word_embeddings.weight"][ids]
    if positions == "all":
        queries = queries + table[: len(queries)]
    if positions == "after queries":
        text = text + table[len(queries) : len(queries) + len(ids)]
    elif positions != "none":
        text = text + table[: len(ids)]
    return torch.cat([queries, text])


def compute_reference(
    state: State,
    tokens: Tensor,
    ids: Tensor | None,
    *,
    eps: float = 1e-12,
    cross_layers: tuple[int, ...] = (0, 2),
    positions: str = "text",
    shared_mlp: bool = False,
    pre_norm: bool = False,
    gelu: str = "none",
    order: tuple[str, ...] = ("query_tokens", "extra_query_tokens"),
) -> Tensor:
    """Encode a sample without padding: tokens ``[P D]`` and ids ``[L]`` -> ``[Q out]``."""

    def norm(x: Tensor, name: str) -> Tensor:
        return F.layer_norm(x, (DIM,), state[f"{name}.weight"], state[f"{name}.bias"], eps)

    def add(x: Tensor, update: Tensor, name: str) -> Tensor:
        update = linear(update, state, f"{name}.dense")
        if pre_norm:
            return x + norm(update, f"{name}.LayerNorm")
        return norm(x + update, f"{name}.LayerNorm")

    def attend(x: Tensor, keys: Tensor, name: str) -> Tensor:
        q = split_heads(x, state, f"{name}.self.query")
        k, v = split_heads(keys, state, f"{name}.self.key"), split_heads(keys, state, f"{name}.self.value")
        attended = (q @ k.transpose(1, 2) / math.sqrt(DIM // HEADS)).softmax(-1) @ v
        return add(x, attended.transpose(0, 1).flatten(1), f"{name}.output")

    def feed_forward(x: Tensor, layer: str, suffix: str) -> Tensor:
        hidden = F.gelu(linear(x, state, f"{layer}.intermediate{suffix}.dense"), approximate=gelu)
        return add(x, hidden, f"{layer}.output{suffix}")

    queries = torch.cat([state[name][0] for name in order])
    count = len(queries)
    x = norm(embed(state, queries, ids, positions), f"{BERT}.embeddings.LayerNorm")
    text_suffix = "_query" if shared_mlp else ""
    for number in range(LAYERS):
        layer = f"{BERT}.encoder.layer.{number}"
        x = attend(x, x, f"{layer}.attention")
        queries, text = x[:count], x[count:]
        if number in cross_layers:  # an odd layer, which officially has no cross-attention, uses that of the one below
            queries = attend(queries, tokens, f"{BERT}.encoder.layer.{number // 2 * 2}.crossattention")
        x = feed_forward(queries, layer, "_query")
        if len(text):
            x = torch.cat([x, feed_forward(text, layer, text_suffix)])
    return linear(x[:count], state, "mistral_proj")


def pad(samples: list[Tensor], padding: float) -> Features:
    """Pad samples ``[L D]`` to a stream of one token per time step."""
    longest = max(map(len, samples)) + 1
    tokens = torch.stack([F.pad(sample, (0, 0, 0, longest - len(sample)), value=padding) for sample in samples])
    mask = torch.arange(longest) < torch.tensor([len(sample) for sample in samples])[:, None]
    return Features.of(tokens[:, :, None], mask)


def build_qformer(state: State, text: bool) -> QFormer:
    qformer = QFormer(
        IN_DIM,
        OUT_DIM,
        num_queries=QUERIES,
        extra_queries=EXTRA,
        hidden_size=DIM,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        intermediate_size=HIDDEN,
        text=text,
        vocab_size=VOCAB,
    ).double()
    converted, _ = convert_state(state)
    qformer.load_state_dict({name.removeprefix("projectors.general."): x for name, x in converted.items()})
    return qformer.eval()


@torch.no_grad()
def max_differences(text: bool, instruction: str = "same", **changes: Any) -> Tensor:
    """Return the largest difference to the reference, for each of the two samples."""
    state = draw_official_state(text)
    tokens = [draw_tensor(f"tokens {count}", (count, IN_DIM)) for count in NUM_TOKENS]
    ids = [torch.arange(count) * 7 % VOCAB for count in NUM_IDS]
    condition = None
    if text:
        condition = pad([sample[:, None].float() for sample in ids], 3.0)
    output = build_qformer(state, text)(pad(tokens, 9.0), condition).tokens[:, 0]
    reference_ids: list[Tensor | None] = [None, None]
    if text and instruction == "same":
        reference_ids = list(ids)
    elif text and instruction == "reversed":
        reference_ids = [sample.flip(0) for sample in ids]
    expected = [compute_reference(state, *sample, **changes) for sample in zip(tokens, reference_ids, strict=True)]
    return (output - torch.stack(expected)).abs().amax(dim=(1, 2))


@pytest.mark.parametrize("text", [False, True])
def test_batch_equals_the_reference_of_each_sample(text: bool) -> None:
    assert max_differences(text).max() < ATOL


@pytest.mark.parametrize("text", [False, True])
@pytest.mark.parametrize(
    "changes",
    [
        {"eps": 1e-5},
        {"cross_layers": (0, 1, 2, 3)},
        {"cross_layers": (1, 3)},
        {"cross_layers": (0,)},
        {"cross_layers": ()},
        {"pre_norm": True},
        {"gelu": "tanh"},
        {"order": ("extra_query_tokens", "query_tokens")},
    ],
    ids=str,
)
def test_modified_reference_differs(text: bool, changes: dict[str, Any]) -> None:
    assert max_differences(text, **changes).min() > 1e-5


@pytest.mark.parametrize(
    "changes",
    [
        {"instruction": "none"},
        {"instruction": "reversed"},
        {"positions": "all"},
        {"positions": "none"},
        {"positions": "after queries"},
        {"shared_mlp": True},
    ],
    ids=str,
)
def test_modified_reference_of_the_text_differs(changes: dict[str, Any]) -> None:
    assert max_differences(True, **changes).min() > 1e-5
