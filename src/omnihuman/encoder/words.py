"""The user's words themselves: token ids, for a part that has embeddings of its own."""

from typing import Literal

import torch

from omnihuman.encoder.base import Encoder
from omnihuman.nn.words import InstructionIds
from omnihuman.types import Features, Layout, Signal


class Words(Encoder):
    """Token ids ``[B T]`` of the instruction -> the same ids as features of width 1, ``[B T 1 1]``; no parameters.

    Reference: VideoChat2 gives its Q-Former the instruction, cut on the left to 512 tokens of BERT's vocabulary.

    Args:
        tokenizer: folder or hub id; makes [CLS] ... [SEP].
        max_length: longer instructions are cut to this.
        cut: which end of them goes.

    >>> words = Words(tokenizer="read when first used")
    >>> words(Signal(torch.tensor([[7, 8]]), torch.tensor([[True, True]]))).tokens.flatten()
    tensor([7., 8.])
    """

    reads = "instruction"

    def __init__(self, *, tokenizer: str, max_length: int = 512, cut: Literal["right", "left"] = "left") -> None:
        super().__init__()
        self.transform = InstructionIds(tokenizer, max_length, cut)
        self.out_dim = 1

    def layout(self, amount: int) -> Layout:
        return Layout(amount, 1)

    def forward(self, signal: Signal) -> Features:
        ids = signal.values.to(torch.float32)[..., None, None]
        return Features.of(ids.masked_fill(~signal.mask[..., None, None], 0), signal.mask)
