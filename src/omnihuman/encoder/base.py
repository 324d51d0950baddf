"""Encoder: Signal -> Features."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor, nn

from omnihuman.types import Features, Layout, Signal


class Encoder(nn.Module, ABC):
    """A pretrained network that reads one modality.

    Attributes:
        reads: the field of a sample that it reads. What reads frames can read faces: a face is a frame cropped.
        out_dim: width D of its tokens.
        level_dims: widths of the levels that it offers, shallow to deep.
        transform: turns that field into the moments of a signal, ``[T ...]``; picklable, needs no weights.
    """

    reads: Literal["frames", "faces", "waveform", "instruction"]
    out_dim: int
    level_dims: tuple[int, ...] = ()
    transform: Callable[[Any], Tensor]

    @abstractmethod
    def layout(self, amount: int) -> Layout:
        """Tokens made of ``amount`` frames, 16 kHz sound samples or instruction tokens."""

    @abstractmethod
    def forward(self, signal: Signal) -> Features:
        """Read the real moments; the tokens of all others are hidden by the mask and finite."""

    def graph(self) -> torch.set_grad_enabled:
        """A context in which a graph is kept only if something here learns."""
        learns = any(parameter.requires_grad for parameter in self.parameters())
        return torch.set_grad_enabled(learns and torch.is_grad_enabled())


def blocks_read(select_layer: int, num_hidden_layers: int) -> int:
    """How many blocks stand below the hidden state that is read, counted as transformers counts: 0 is the embedding.

    Raises:
        ValueError: no block stands there.

    >>> blocks_read(-2, 27)
    26
    """
    read = select_layer + (num_hidden_layers + 1 if select_layer < 0 else 0)
    if not 0 < read <= num_hidden_layers:
        raise ValueError(f"select_layer {select_layer} is none of the {num_hidden_layers} blocks.")
    return read
