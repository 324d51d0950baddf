"""BERT: the user's words -> one token."""

import torch
from transformers import AutoTokenizer, BertConfig, BertModel

from omnihuman.encoder.base import Encoder
from omnihuman.encoder.weights import check_sizes, load_report
from omnihuman.nn.words import InstructionIds
from omnihuman.types import Features, Layout, Signal


class Bert(Encoder):
    """Token ids ``[B T]`` of the instruction -> the raw [CLS] state ``[B 1 1 D]``.

    Reference: HumanOmni ``humanomni_arch.py``, ``last_hidden_state[:, 0]`` of bert-base-uncased, not the pooler's.
    Differs from the official training text, which leaves the slots' marks in and glues words at line ends: this reads
    the user's words, as the official inference does.

    Args:
        tokenizer: folder or hub id; makes [CLS] ... [SEP].
        weights: folder or hub id; ``null`` builds the sizes at random.
        hidden_size: width D of the token.
        num_hidden_layers: blocks.
        num_attention_heads: heads of a block.
        intermediate_size: width inside a block.
        vocab_size: ``null`` takes the tokenizer's.

    Raises:
        ValueError: a size contradicts the weights, or the weights do not fit.

    >>> reader = Bert(tokenizer="read when first used", hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
    ...               intermediate_size=32, vocab_size=9)
    >>> reader(Signal(torch.ones(2, 5, dtype=torch.long), torch.ones(2, 5, dtype=torch.bool))).tokens.shape
    torch.Size([2, 1, 1, 16])
    """

    reads = "instruction"

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
        sizes = {"hidden_size": hidden_size, "num_hidden_layers": num_hidden_layers,
                 "num_attention_heads": num_attention_heads, "intermediate_size": intermediate_size}  # fmt: skip
        self.transform = InstructionIds(tokenizer)
        if weights is None:
            entries = vocab_size or len(AutoTokenizer.from_pretrained(tokenizer))
            self.model = BertModel(BertConfig(**sizes, vocab_size=entries), add_pooling_layer=False)
        else:
            asked = sizes | ({"vocab_size": vocab_size} if vocab_size else {})
            check_sizes(weights, BertConfig.from_pretrained(weights), asked)
            self.model, info = BertModel.from_pretrained(
                weights, add_pooling_layer=False, dtype=torch.float32, output_loading_info=True
            )
            load_report(weights, info, dropped=("*pooler.*", "cls.*"))
        self.out_dim = hidden_size

    def layout(self, amount: int) -> Layout:
        return Layout(1, 1)

    def forward(self, signal: Signal) -> Features:
        with self.graph():
            mask = signal.mask
            # a sample without words still has one position to attend to, and its token is hidden
            seen = mask.clone()
            seen[:, 0] = True
            state = self.model(input_ids=signal.values.clamp(min=0), attention_mask=seen.long()).last_hidden_state
            real = mask.any(dim=1, keepdim=True)
            token = state[:, :1].masked_fill(~real[..., None], 0)
        return Features.of(token[:, :, None], real)
