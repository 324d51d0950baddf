"""The instruction as token ids."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import torch
from torch import Tensor
from transformers import AutoTokenizer


@dataclass(frozen=True)
class InstructionTokenizer:
    """Text of an instruction -> token ids ``[T]`` between [CLS] and [SEP].

    Attributes:
        tokenizer: folder or hub id.
        max_length: longest result; longer instructions are truncated.
        cut: side that is truncated, ``right`` or ``left``.
    """

    tokenizer: str
    max_length: int = 512
    cut: Literal["right", "left"] = "right"

    @cached_property
    def _tokenizer(self) -> Any:
        return AutoTokenizer.from_pretrained(self.tokenizer, trust_remote_code=False, truncation_side=self.cut)

    def __call__(self, instruction: str) -> Tensor:
        ids = self._tokenizer(instruction, truncation=True, max_length=self.max_length)["input_ids"]
        return torch.tensor(ids, dtype=torch.long)
