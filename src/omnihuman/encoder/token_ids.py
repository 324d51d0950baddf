"""Token ids of the instruction, for a part that has an embedding of its own."""

from typing import Literal

import torch

from omnihuman.encoder.base import Encoder
from omnihuman.nn.instruction import InstructionTokenizer
from omnihuman.types import Features, Layout, Signal


class TokenIds(Encoder):
    """Token ids ``[B T]`` of the instruction -> the same ids as features of width 1, ``[B T 1 1]``; no parameters.

    Reference: VideoChat2 feeds the instruction to its Q-Former, truncated on the left to 512 tokens of BERT's
    vocabulary.

    Args:
        tokenizer: folder or hub id; adds [CLS] and [SEP].
        max_length: longest instruction in tokens; longer ones are truncated.
        cut: side that is truncated, ``left`` or ``right``.

    >>> encoder = TokenIds(tokenizer="loaded on first use")
    >>> encoder(Signal(torch.tensor([[7, 8]]), torch.tensor([[True, True]]))).tokens.flatten()
    tensor([7., 8.])
    """

    sample_fields = ("instruction",)

    def __init__(self, *, tokenizer: str, max_length: int = 512, cut: Literal["right", "left"] = "left") -> None:
        super().__init__()
        self.transform = InstructionTokenizer(tokenizer, max_length, cut)
        self.out_dim = 1

    def layout(self, amount: int) -> Layout:
        return Layout(amount, 1)

    def forward(self, signal: Signal) -> Features:
        # float32 represents every id exactly, bfloat16 does not: the ids stay float32 in a bfloat16 model
        ids = signal.values.to(torch.float32)[..., None, None]
        return Features.of(ids.masked_fill(~signal.mask[..., None, None], 0), signal.mask)
