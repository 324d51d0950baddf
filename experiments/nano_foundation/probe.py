"""Probes of frozen tokens: accuracies of linear classifiers on people who are not in the training set."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Labels = dict[str, Tensor]
"""Factor -> class of each sample, -1 where the factor does not apply."""


def collect_labels(samples: list[dict[str, int]], factors: Iterable[str]) -> Labels:
    """Return the classes of samples for every factor, -1 where a sample has no class."""
    labels: Labels = {}
    for name in factors:
        labels[name] = torch.tensor([classes.get(name, -1) for classes in samples])
    return labels


class ProbeSet(NamedTuple):
    """Tokens `[B N D]` of samples with their mask `[B N]` and labels."""

    tokens: Tensor
    mask: Tensor
    labels: Labels


class Probe(nn.Module):
    """Linear classifiers on tokens `[B N D]` with a mask `[B N]`.

    The tokens are pooled by their mean, or by one learned query per factor if ``attends``.
    """

    def __init__(self, dim: int, classes: dict[str, int], attends: bool) -> None:
        super().__init__()
        self.attends = attends
        self.norm = nn.LayerNorm(dim)
        self.queries = nn.ParameterDict({name: nn.Parameter(torch.zeros(dim)) for name in classes})
        self.heads = nn.ModuleDict({name: nn.Linear(dim, count) for name, count in classes.items()})

    def forward(self, tokens: Tensor, mask: Tensor) -> dict[str, Tensor]:
        tokens = self.norm(tokens)
        scores: dict[str, Tensor] = {}
        for name, head in self.heads.items():
            logits = tokens @ self.queries[name] if self.attends else tokens.new_zeros(tokens.shape[:2])
            weights = logits.masked_fill(~mask, -1e4).softmax(-1)
            scores[name] = head((weights[..., None] * tokens).sum(1))
        return scores


def measure_accuracies(train: ProbeSet, test: ProbeSet, attends: bool, epochs: int = 40) -> dict[str, float]:
    """Train a probe, and return the accuracy of every factor on the test set."""
    classes: dict[str, int] = {}
    for name, labels in train.labels.items():
        classes[name] = int(max(labels.max(), test.labels[name].max())) + 1
    probe = Probe(train.tokens.shape[-1], classes, attends)
    _train_probe(probe, train, epochs)
    with torch.no_grad():
        scores = probe(test.tokens, test.mask)
    accuracies: dict[str, float] = {}
    for name, labels in test.labels.items():
        applies = labels >= 0
        hits = (scores[name].argmax(-1) == labels)[applies]
        accuracies[name] = round(float(hits.float().mean()), 3)
    return accuracies


def _train_probe(probe: Probe, train: ProbeSet, epochs: int, batch_size: int = 64) -> None:
    num_batches = len(train.tokens) // batch_size
    optimizer = torch.optim.AdamW(probe.parameters(), 1e-2, weight_decay=1e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-2, total_steps=epochs * num_batches)
    for _ in range(epochs):
        order = torch.randperm(len(train.tokens))
        for batch in order[: num_batches * batch_size].split(batch_size):
            scores = probe(train.tokens[batch], train.mask[batch])
            losses: list[Tensor] = []
            for name, labels in train.labels.items():
                if (labels[batch] >= 0).any():
                    losses.append(F.cross_entropy(scores[name], labels[batch], ignore_index=-1))
            optimizer.zero_grad()
            torch.stack(losses).sum().backward()
            optimizer.step()
            schedule.step()
