"""A small caption decoder on an encoder's tokens: it trains single tokens to carry content, and is then dropped."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase


class Attention(nn.Module):
    """Self-attention `[B L D]`, or cross-attention to a memory `[B N D]`, with a mask `[B 1 L|1 N]`."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads, self.norm = heads, nn.LayerNorm(dim)
        self.query, self.pair, self.out = nn.Linear(dim, dim), nn.Linear(dim, 2 * dim), nn.Linear(dim, dim)

    def forward(self, x: Tensor, memory: Tensor | None, mask: Tensor) -> Tensor:
        x = self.norm(x)
        key, value = self.pair(x if memory is None else memory).chunk(2, -1)
        query, key, value = (t.unflatten(-1, (self.heads, -1)).transpose(1, 2) for t in (self.query(x), key, value))
        scores = (query @ key.transpose(2, 3)) * query.shape[-1] ** -0.5
        mixed = scores.float().masked_fill(~mask, -1e4).softmax(-1).to(value.dtype) @ value
        return self.out(mixed.transpose(1, 2).flatten(2))


class Layer(nn.Module):
    """Self-attention, cross-attention and a feed-forward network, each with a residual connection."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.self_attention = Attention(dim, heads)
        self.cross_attention = Attention(dim, heads)
        self.feed_forward = nn.Sequential(
            nn.LayerNorm(dim), nn.Linear(dim, 4 * dim), nn.GELU(), nn.Linear(4 * dim, dim)
        )

    def forward(self, x: Tensor, memory: Tensor, causal: Tensor, mask: Tensor) -> Tensor:
        x = x + self.self_attention(x, None, causal)
        x = x + self.cross_attention(x, memory, mask)
        return x + self.feed_forward(x)


class Captioner(nn.Module):
    """Tokens `[B N D]` with a mask, and captions `[B L]` -> mean cross-entropy of the captions."""

    def __init__(self, dim: int, tokenizer: PreTrainedTokenizerBase, layers: int = 2, heads: int = 4) -> None:
        super().__init__()
        self.start = tokenizer.convert_tokens_to_ids("<|im_start|>")
        self.embedding, self.positions = nn.Embedding(len(tokenizer), dim), nn.Embedding(96, dim)
        nn.init.normal_(self.embedding.weight, std=0.05)
        self.memory_norm = nn.LayerNorm(dim)
        self.layers = nn.ModuleList(Layer(dim, heads) for _ in range(layers))
        self.norm = nn.LayerNorm(dim)

    def forward(self, memory: Tensor, mask: Tensor, ids: Tensor, valid: Tensor) -> Tensor:
        length = ids.shape[1]
        inputs = F.pad(ids[:, :-1], (1, 0), value=self.start)
        x = self.embedding(inputs) + self.positions.weight[:length]
        causal = torch.ones(length, length, dtype=torch.bool).tril()
        memory = self.memory_norm(memory)
        for layer in self.layers:
            x = layer(x, memory, causal, mask[:, None, None])
        logits = F.linear(self.norm(x)[valid], self.embedding.weight)
        return F.cross_entropy(logits.float(), ids[valid])


def tokenize_texts(tokenizer: PreTrainedTokenizerBase, texts: list[str], max_length: int = 96) -> tuple[Tensor, Tensor]:
    """Return the tokens of texts with an end-of-turn token, padded `[B L]`, and a mask of the valid ones."""
    end = tokenizer.convert_tokens_to_ids("<|im_end|>")
    rows: list[Tensor] = []
    for ids in tokenizer(texts, add_special_tokens=False)["input_ids"]:
        rows.append(torch.tensor([*ids[: max_length - 1], end]))
    lengths = torch.tensor([len(row) for row in rows])
    padded = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=tokenizer.pad_token_id)
    return padded, torch.arange(padded.shape[1]) < lengths[:, None]
