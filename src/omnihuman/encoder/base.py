"""Encoder: Signal -> Features."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from omnihuman.types import Features, Layout, Signal


class Encoder(nn.Module, ABC):
    """A pretrained network that reads one field of a sample: ``Signal`` -> ``Features`` ``[B T N D]``.

    The constructor takes keyword arguments only. ``weights: null`` builds the network at random from its sizes, without
    a download; a folder or hub id loads weights, and a size that contradicts them is a ``ValueError``. Parameters are
    float32. Which field is read is wiring: the model binds one of ``sample_fields`` (``OmniModel.reads``).

    ``tests/contracts/test_parts.py`` checks every preset: tokens are as many as ``layout`` promises; values behind the
    mask and more padding change nothing; a sample has the same tokens alone and in a batch; a batch without any valid
    time step gives finite tokens and zero gradients (a rank without input takes part in every step); frozen parameters
    keep no graph; bf16 autocast works.

    Attributes:
        sample_fields: fields of a sample that it can read (see ``omnihuman.modality``), the default first. An encoder
            of images can read every field with images: frames, and faces, which are cropped frames.
        out_dim: width D of its tokens.
        level_dims: widths of the levels that it offers, shallow to deep; ``Features.levels`` holds them in this order.
        transform: field of a sample -> values of a signal, ``[T ...]``; picklable, needs no weights.
    """

    sample_fields: ClassVar[tuple[str, ...]]
    out_dim: int
    level_dims: tuple[int, ...] = ()
    transform: Callable[[Any], Tensor]

    @abstractmethod
    def layout(self, amount: int) -> Layout:
        """Return the layout of the tokens, and of the levels, for ``amount`` frames, audio samples or token ids."""

    @abstractmethod
    def forward(self, signal: Signal) -> Features:
        """Encode the valid time steps; tokens of all others are finite and hidden by the mask."""

    def graph(self) -> torch.set_grad_enabled:
        """Return a context that records a graph only if a parameter of this encoder is trainable."""
        is_trainable = any(parameter.requires_grad for parameter in self.parameters())
        return torch.set_grad_enabled(is_trainable and torch.is_grad_enabled())


def count_blocks(select_layer: int, num_hidden_layers: int) -> int:
    """Return the number of blocks below a hidden state, counted as in transformers: state 0 is the embedding.

    Raises:
        ValueError: ``select_layer`` is none of the blocks' outputs.

    >>> count_blocks(-2, 27)
    26
    """
    num_blocks = select_layer
    if select_layer < 0:
        num_blocks += num_hidden_layers + 1
    if not 0 < num_blocks <= num_hidden_layers:
        raise ValueError(f"select_layer {select_layer} is none of the {num_hidden_layers} blocks.")
    return num_blocks
