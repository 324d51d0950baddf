"""Q-Former: all tokens of a clip -> a fixed number of queries."""

from collections.abc import Mapping
from typing import Any, Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from transformers import Blip2QFormerConfig, Blip2QFormerModel, InstructBlipQFormerConfig, InstructBlipQFormerModel

from omnihuman.nn.masking import run_on_valid
from omnihuman.projector.base import Projector
from omnihuman.types import Features, Layout


class QFormer(Projector):
    """Tokens ``[B T N in_dim]`` -> queries ``[B 1 Q out_dim]`` that attend to the tokens, to each other and to text.

    Reference: VideoChat2 (32 + 64 queries, cross-attention in every second layer, one Linear to the language model);
    FaVChat v1 §3 has a "lightweight Q-Former" and two linear layers. The blocks are those of transformers.
    Differs from VideoChat2, whose blocks also have stochastic depth.

    Args:
        in_dim: width of the input stream.
        out_dim: width of the language model.
        num_queries: queries, initialized at random.
        extra_queries: queries that are added for instruction tuning.
        extra_init: initialization of these, ``zeros`` as in VideoChat2 (only dropout makes them differ) or ``normal``.
        hidden_size: width of the blocks.
        num_hidden_layers: blocks.
        num_attention_heads: heads of a block.
        intermediate_size: width of the hidden layer of a block.
        cross_attention_frequency: every n-th block attends to the stream.
        dropout: of activations and attention.
        initializer_range: standard deviation of initial weights; BERT's 0.02 suits a width of 768.
        linears: 1 or 2 Linears to the language model, with GELU between them.
        text: attend to the instruction too; the model's ``conditions`` must then name a stream of token ids.
        vocab_size: entries of the text embedding.

    Raises:
        ValueError: ``linears`` is neither 1 nor 2, ``text`` contradicts the model's ``conditions``, or the condition is
            no stream of token ids of this vocabulary.

    >>> projector = QFormer(in_dim=8, out_dim=16, num_queries=4, extra_queries=2, hidden_size=12, num_hidden_layers=2,
    ...                     num_attention_heads=2, intermediate_size=24)
    >>> projector(Features.of(torch.zeros(2, 3, 49, 8), torch.ones(2, 3, dtype=torch.bool))).tokens.shape
    torch.Size([2, 1, 6, 16])
    """

    def __init__(
        self,
        in_dim: int,
        out_dim: int,
        *,
        hidden_size: int,
        num_hidden_layers: int,
        num_attention_heads: int,
        intermediate_size: int,
        num_queries: int = 32,
        extra_queries: int = 64,
        extra_init: Literal["zeros", "normal"] = "zeros",
        cross_attention_frequency: int = 2,
        dropout: float = 0.1,
        initializer_range: float = 0.02,
        linears: int = 1,
        text: bool = False,
        vocab_size: int = 30523,
    ) -> None:
        super().__init__(in_dim, out_dim)
        if linears not in (1, 2):
            raise ValueError(f"qformer: linears={linears}; expected 1 as in VideoChat2, or 2 as in FaVChat.")
        self.text = text
        self.condition_dim = 1 if text else None  # token ids
        self.queries = nn.Parameter(torch.randn(1, num_queries, hidden_size) * 0.02)
        initialize = torch.randn if extra_init == "normal" else torch.zeros
        self.extra_queries = nn.Parameter(initialize(1, extra_queries, hidden_size) * 0.02)
        sizes = {
            "vocab_size": vocab_size,
            "hidden_size": hidden_size,
            "num_hidden_layers": num_hidden_layers,
            "num_attention_heads": num_attention_heads,
            "intermediate_size": intermediate_size,
            "encoder_hidden_size": in_dim,
            "cross_attention_frequency": cross_attention_frequency,
            "hidden_dropout_prob": dropout,
            "attention_probs_dropout_prob": dropout,
            "initializer_range": initializer_range,
        }
        self.model = _build_model(sizes, text)
        layers: list[nn.Module] = [nn.Linear(hidden_size, out_dim)]
        if linears == 2:
            layers += [nn.GELU(), nn.Linear(out_dim, out_dim)]
        self.linears = nn.Sequential(*layers)

    def layout(self, layout: Layout) -> Layout:
        return Layout(1, self.queries.shape[1] + self.extra_queries.shape[1])

    def forward(self, features: Features, condition: Features | None = None) -> Features:
        tokens, mask = features.flat()
        text = self._read_condition(condition)
        valid = mask.any(dim=1)
        queries = torch.cat([self.queries, self.extra_queries], dim=1)

        def run(index: Int[Tensor, " K"]) -> Float[Tensor, "K Q D"]:
            # a sample without tokens that only takes part in the step attends to all of them
            attended = mask[index] | ~mask[index].any(dim=1, keepdim=True)
            inputs = {
                "query_embeds": queries.expand(len(index), -1, -1),
                "encoder_hidden_states": tokens[index],
                "encoder_attention_mask": attended.long(),
            }
            if text is not None:
                ids, text_mask = text
                query_mask = attended.new_ones(len(index), queries.shape[1])
                inputs["input_ids"] = ids[index]
                inputs["attention_mask"] = torch.cat([query_mask, text_mask[index]], dim=1).long()
            states: Tensor = self.model(**inputs).last_hidden_state
            projected: Tensor = self.linears(states[:, : queries.shape[1]])  # the states of the text follow
            return projected

        output = run_on_valid(run, valid, (queries.shape[1], self.out_dim), tokens.dtype)
        return Features.of(output[:, None], valid[:, None])

    def _read_condition(self, condition: Features | None) -> tuple[Int[Tensor, "B L"], Bool[Tensor, "B L"]] | None:
        """Return the token ids of the instruction, 0 where the mask is False, and the mask."""
        if not self.text:
            if condition is not None:
                raise ValueError(
                    "qformer: conditions names a stream, but text=false; set text=true or remove the condition."
                )
            return None
        if condition is None:
            raise ValueError("qformer: text=true, but no condition; name a stream of token ids in conditions.")
        tokens, mask = condition.flat()
        if tokens.shape[2] != 1:
            raise ValueError(
                f"qformer: the condition has width {tokens.shape[2]}; expected token ids of width 1; name a stream of "
                "the encoder token_ids in conditions."
            )
        ids = tokens[..., 0].long().masked_fill(~mask, 0)
        config = self.model.config
        if ids.shape[1] > config.max_position_embeddings:
            raise ValueError(
                f"qformer: an instruction of {ids.shape[1]} tokens; expected at most {config.max_position_embeddings}; "
                "lower max_length of the encoder token_ids."
            )
        if ids.is_cpu:  # to read an id of a GPU would wait for it
            self._check_ids(int(ids.max()))
        return ids, mask

    def _check_ids(self, largest: int) -> None:
        size = self.model.config.vocab_size
        if largest >= size:
            raise ValueError(
                f"qformer: the instruction has the token id {largest}, but vocab_size={size}; choose the tokenizer of "
                "these weights for the encoder token_ids, or the vocab_size of the tokenizer."
            )


def _build_model(sizes: Mapping[str, Any], text: bool) -> Blip2QFormerModel | InstructBlipQFormerModel:
    if text:
        return InstructBlipQFormerModel(InstructBlipQFormerConfig(**sizes))
    return Blip2QFormerModel(Blip2QFormerConfig(**sizes))
