"""A small text decoder over an encoder's tokens: it teaches the tokens to hold what can be said, then it is dropped."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Attend(nn.Module):
    """Queries [B L D], a memory [B N D] and a mask [B 1 L|1 N]; what the queries find in the memory [B L D]."""

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


class Captioner(nn.Module):
    """Tokens [B N D] with their mask and texts [B L] -> mean cross-entropy of the texts, word by word."""

    def __init__(self, dim: int, vocabulary: int, start: int, layers: int = 2, heads: int = 4) -> None:
        super().__init__()
        self.start = start
        self.words, self.places = nn.Embedding(vocabulary, dim), nn.Embedding(96, dim)
        nn.init.normal_(self.words.weight, std=0.05)
        self.look = nn.LayerNorm(dim)
        self.layers = nn.ModuleList(
            nn.ModuleList(
                [
                    Attend(dim, heads),
                    Attend(dim, heads),
                    nn.Sequential(nn.LayerNorm(dim), nn.Linear(dim, 4 * dim), nn.GELU(), nn.Linear(4 * dim, dim)),
                ]
            )
            for _ in range(layers)
        )
        self.norm = nn.LayerNorm(dim)

    def forward(self, memory: Tensor, mask: Tensor, ids: Tensor, real: Tensor) -> Tensor:
        length = ids.shape[1]
        before = F.pad(ids[:, :-1], (1, 0), value=self.start)
        x = self.words(before) + self.places.weight[:length]
        past = torch.ones(length, length, dtype=torch.bool).tril()
        memory = self.look(memory)
        for own, other, wide in self.layers:
            x = x + own(x, None, past)
            x = x + other(x, memory, mask[:, None, None])
            x = x + wide(x)
        logits = F.linear(self.norm(x)[real], self.words.weight)
        return F.cross_entropy(logits.float(), ids[real])


def texts(tokenizer, lines: list[str], longest: int = 96) -> tuple[Tensor, Tensor]:
    """A tokenizer and lines; their words with an end mark, padded [B L], and which are real."""
    end = tokenizer.convert_tokens_to_ids("<|im_end|>")
    rows = [[*ids[: longest - 1], end] for ids in tokenizer(lines, add_special_tokens=False)["input_ids"]]
    width = max(map(len, rows))
    real = torch.tensor([[i < len(row) for i in range(width)] for row in rows])
    return torch.tensor([row + [tokenizer.pad_token_id] * (width - len(row)) for row in rows]), real
