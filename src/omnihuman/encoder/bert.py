"""BERT: the instruction -> one token."""

from collections.abc import Mapping
from typing import Any

import torch
from transformers import AutoTokenizer, BertConfig, BertModel

from omnihuman.encoder.base import Encoder
from omnihuman.encoder.weights import check_report, check_sizes
from omnihuman.nn.deferred import load_pretrained
from omnihuman.nn.finite import check_parameters
from omnihuman.nn.instruction import InstructionTokenizer
from omnihuman.types import Features, Layout, Signal


class Bert(Encoder):
    """Token ids ``[B T]`` of the instruction -> the [CLS] state of the last block, ``[B 1 1 D]``.

    Reference: HumanOmni ``humanomni_arch.py``, ``last_hidden_state[:, 0]`` of bert-base-uncased, without the pooler.
    Differs from the official training text, which contains the placeholders of the slots and joins lines without a
    space: here the instruction is the user's text, as in the official inference.

    Args:
        tokenizer: folder or hub id; adds [CLS] and [SEP].
        weights: folder or hub id; ``null`` initializes the sizes at random.
        hidden_size: width D of the token.
        num_hidden_layers: blocks.
        num_attention_heads: heads of a block.
        intermediate_size: width of the hidden layer of a block.
        vocab_size: entries of the embedding; ``null`` for those of the tokenizer.

    Raises:
        ValueError: a size contradicts the weights, or the weights do not fit.

    >>> encoder = Bert(tokenizer="loaded on first use", hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
    ...                intermediate_size=32, vocab_size=9)
    >>> encoder(Signal(torch.ones(2, 5, dtype=torch.long), torch.ones(2, 5, dtype=torch.bool))).tokens.shape
    torch.Size([2, 1, 1, 16])
    """

    sample_fields = ("instruction",)

    def __init__(
        self,
        *,
        tokenizer: str,
        hidden_size: int,
        num_hidden_layers: int,
        num_attention_heads: int,
        intermediate_size: int,
        vocab_size: int | None = None,
        weights: str | None = None,
    ) -> None:
        super().__init__()
        sizes = {
            "hidden_size": hidden_size,
            "num_hidden_layers": num_hidden_layers,
            "num_attention_heads": num_attention_heads,
            "intermediate_size": intermediate_size,
        }
        if vocab_size:
            sizes["vocab_size"] = vocab_size
        elif weights is None:
            sizes["vocab_size"] = len(AutoTokenizer.from_pretrained(tokenizer, trust_remote_code=False))
        self.transform = InstructionTokenizer(tokenizer)
        self.model = _build_model(weights, sizes)
        self.out_dim = hidden_size

    def layout(self, amount: int) -> Layout:
        return Layout(1, 1)

    def forward(self, signal: Signal) -> Features:
        with self.graph():
            # a sample without text attends to its first position, because a softmax over no key is nan
            attended = signal.mask.clone()
            attended[:, 0] = True
            ids = signal.values.clamp(min=0)
            state = self.model(input_ids=ids, attention_mask=attended.long()).last_hidden_state
            valid = signal.mask.any(dim=1, keepdim=True)
            token = state[:, :1].masked_fill(~valid[..., None], 0)
        return Features.of(token[:, :, None], valid)


def _build_model(weights: str | None, sizes: Mapping[str, Any]) -> BertModel:
    if weights is None:
        return BertModel(BertConfig(**sizes), add_pooling_layer=False)
    check_sizes(weights, BertConfig.from_pretrained(weights), sizes)
    model, report = load_pretrained(
        BertModel.from_pretrained, weights, add_pooling_layer=False, dtype=torch.float32, output_loading_info=True
    )
    check_report(weights, report, dropped=("*pooler.*", "cls.*"))
    check_parameters(weights, model)
    return model
