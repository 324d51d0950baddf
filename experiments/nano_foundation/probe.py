"""Probes: what can be read off frozen tokens of people never seen in training."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Reader(nn.Module):
    """Tokens [B N D] with a mask [B N]; class scores for every factor, from their mean or from one learned look."""

    def __init__(self, dim: int, classes: dict[str, int], attends: bool) -> None:
        super().__init__()
        self.attends = attends
        self.norm = nn.LayerNorm(dim)
        self.looks = nn.ParameterDict({name: nn.Parameter(torch.zeros(dim)) for name in classes})
        self.heads = nn.ModuleDict({name: nn.Linear(dim, count) for name, count in classes.items()})

    def forward(self, tokens: Tensor, mask: Tensor) -> dict[str, Tensor]:
        tokens = self.norm(tokens)
        scores = {}
        for name, head in self.heads.items():
            look = tokens @ self.looks[name] if self.attends else tokens.new_zeros(tokens.shape[:2])
            weights = look.masked_fill(~mask, -1e4).softmax(-1)
            scores[name] = head((weights[..., None] * tokens).sum(1))
        return scores


Facts = dict[str, Tensor]  # factor -> class of each sample, -1 where it does not apply


def accuracies(
    train: tuple[Tensor, Tensor, Facts], held_out: tuple[Tensor, Tensor, Facts], attends: bool, epochs: int = 40
) -> dict[str, float]:
    """Tokens, masks and facts of both sides; the accuracy of every factor on the held-out side."""
    (tokens, mask, facts), (other, other_mask, other_facts) = train, held_out
    classes = {name: int(max(values.max(), other_facts[name].max())) + 1 for name, values in facts.items()}
    reader = Reader(tokens.shape[-1], classes, attends)
    optimizer = torch.optim.AdamW(reader.parameters(), 1e-2, weight_decay=1e-3)
    total = epochs * (len(tokens) // 64)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-2, total_steps=total)
    for _ in range(epochs):
        order = torch.randperm(len(tokens))
        for begin in range(0, len(tokens) // 64 * 64, 64):
            some = order[begin : begin + 64]
            scores = reader(tokens[some], mask[some])
            losses = [
                F.cross_entropy(scores[name], facts[name][some], ignore_index=-1)
                for name in facts
                if (facts[name][some] >= 0).any()
            ]
            optimizer.zero_grad()
            torch.stack(losses).sum().backward()
            optimizer.step()
            schedule.step()
    with torch.no_grad():
        scores = reader(other, other_mask)
    result = {}
    for name, truth in other_facts.items():
        there = truth >= 0
        result[name] = round(float((scores[name].argmax(-1) == truth)[there].float().mean()), 3)
    return result
