"""Q-Former: all tokens of a clip -> a fixed number of queries that have read them."""

from typing import ClassVar, Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from transformers import Blip2QFormerConfig, Blip2QFormerModel, InstructBlipQFormerConfig, InstructBlipQFormerModel

from omnihuman.nn.rows import on_real
from omnihuman.projector.base import Projector
from omnihuman.types import Features, Layout


class QFormer(Projector):
    """Tokens ``[B T N in_dim]`` -> ``[B 1 Q out_dim]``: learned queries attend to each other, to the text and to them.

    Reference: VideoChat2 (32 + 64 queries, cross-attention in every second layer, one Linear to the language model);
    FaVChat v1 §3 has a "lightweight Q-Former" and two linear layers. Blocks are those of transformers.
    Differs from VideoChat2, whose blocks have stochastic depth as well.

    Args:
        in_dim: width of the stream it reads.
        out_dim: width of the language model.
        num_queries: queries, drawn at random.
        extra_queries: queries added for instruction tuning.
        extra_init: VideoChat2 starts these at ``zeros``, so that only dropout tells them apart; ``normal`` draws them.
        hidden_size: width inside.
        num_hidden_layers: blocks.
        num_attention_heads: heads of a block.
        intermediate_size: width inside a block.
        cross_attention_frequency: a block of so many reads the stream.
        dropout: of activations and attention.
        initializer_range: deviation of the drawn weights; BERT's 0.02 suits a width of 768.
        linears: 1 or 2 Linears to the language model, with GELU between.
        text: read the instruction as well; the model's ``conditions`` must then name a stream of word ids.
        vocab_size: of these words.

    Raises:
        ValueError: ``linears`` is neither 1 nor 2, ``text`` contradicts the model's ``conditions``, or the condition is
            not made of ids that this Q-Former knows.

    >>> reader = QFormer(in_dim=8, out_dim=16, num_queries=4, extra_queries=2, hidden_size=12, num_hidden_layers=2,
    ...                  num_attention_heads=2, intermediate_size=24)
    >>> reader(Features.of(torch.zeros(2, 3, 49, 8), torch.ones(2, 3, dtype=torch.bool))).tokens.shape
    torch.Size([2, 1, 6, 16])
    """

    takes_condition: ClassVar[bool] = True

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
            raise ValueError(f"qformer: linears={linears}; 1 as in VideoChat2, or 2 as in FaVChat.")
        self.text = text
        self.queries = nn.Parameter(torch.randn(1, num_queries, hidden_size) * 0.02)
        extra = torch.randn if extra_init == "normal" else torch.zeros
        self.extra_queries = nn.Parameter(extra(1, extra_queries, hidden_size) * 0.02)
        sizes = {
            "vocab_size": vocab_size, "hidden_size": hidden_size, "num_hidden_layers": num_hidden_layers,
            "num_attention_heads": num_attention_heads, "intermediate_size": intermediate_size,
            "encoder_hidden_size": in_dim, "cross_attention_frequency": cross_attention_frequency,
            "hidden_dropout_prob": dropout, "attention_probs_dropout_prob": dropout,
            "initializer_range": initializer_range,
        }  # fmt: skip
        self.model = (
            InstructBlipQFormerModel(InstructBlipQFormerConfig(**sizes))
            if text
            else Blip2QFormerModel(Blip2QFormerConfig(**sizes))
        )
        layers: list[nn.Module] = [nn.Linear(hidden_size, out_dim)]
        if linears == 2:
            layers += [nn.GELU(), nn.Linear(out_dim, out_dim)]
        self.linears = nn.Sequential(*layers)

    def layout(self, layout: Layout) -> Layout:
        return Layout(1, self.queries.shape[1] + self.extra_queries.shape[1])

    def forward(self, features: Features, condition: Features | None = None) -> Features:
        tokens, mask = features.flat()
        words = self._words(condition)
        real = mask.any(dim=1)
        queries = torch.cat([self.queries, self.extra_queries], dim=1)

        def run(rows: Int[Tensor, " K"]) -> Float[Tensor, "K Q D"]:
            # a row that only keeps step has something to attend to
            seen = mask[rows] | ~mask[rows].any(dim=1, keepdim=True)
            asked = queries.expand(len(rows), -1, -1)
            text = None if words is None else (words[0][rows], words[1][rows])
            made: Tensor = self.linears(self._read(asked, tokens[rows], seen, text))
            return made

        made = on_real(run, real, (queries.shape[1], self.out_dim), tokens.dtype)
        return Features.of(made[:, None], real[:, None])

    def _words(self, condition: Features | None) -> tuple[Int[Tensor, "B L"], Bool[Tensor, "B L"]] | None:
        """Ids of the instruction, 0 where the mask hides them."""
        if not self.text:
            if condition is not None:
                raise ValueError(
                    "qformer: text=false, but conditions names a stream for it: set text=true or drop that."
                )
            return None
        if condition is None:
            raise ValueError("qformer: text=true, but no words are given: name their stream in the model's conditions.")
        tokens, mask = condition.flat()
        if tokens.shape[2] != 1:
            raise ValueError(
                f"qformer: its condition has width {tokens.shape[2]}, where ids of words have 1: name a stream of the "
                "encoder words in the model's conditions."
            )
        ids = tokens[..., 0].long().masked_fill(~mask, 0)
        config = self.model.config
        if ids.shape[1] > config.max_position_embeddings:
            raise ValueError(
                f"qformer: an instruction of {ids.shape[1]} ids, but positions for {config.max_position_embeddings}: "
                "lower max_length of the encoder words."
            )
        if (largest := int(ids.max())) >= config.vocab_size:
            raise ValueError(
                f"qformer: the instruction has the id {largest}, but vocab_size is {config.vocab_size}: give the "
                "encoder words the tokenizer of these weights, or set vocab_size to that of the tokenizer."
            )
        return ids, mask

    def _read(
        self,
        queries: Float[Tensor, "K Q H"],
        tokens: Float[Tensor, "K P D"],
        seen: Bool[Tensor, "K P"],
        text: tuple[Int[Tensor, "K L"], Bool[Tensor, "K L"]] | None,
    ) -> Float[Tensor, "K Q H"]:
        given = {"query_embeds": queries, "encoder_hidden_states": tokens, "encoder_attention_mask": seen.long()}
        if text is not None:
            attend = torch.cat([seen.new_ones(queries.shape[:2]), text[1]], dim=1)
            given |= {"input_ids": text[0], "attention_mask": attend.long()}
        read: Tensor = self.model(**given).last_hidden_state
        return read[:, : queries.shape[1]]
