"""Mixture of experts on one stream."""

from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor, nn

from omnihuman.nn.soft_gate import SoftGate
from omnihuman.nn.streams import mean_pool
from omnihuman.projector.base import Projector
from omnihuman.types import Features, Layout


class MoEAdapter(Projector):
    """Sum of several MLPs, weighted by a soft gate: ``[B T N in_dim]`` -> ``[B T N out_dim]``.

    All experts run on every token; there is no top-k and no balancing loss. ``weights`` ``[B K]`` are the gate's
    weights of the last call, their mean over the valid tokens of each sample.

    Reference: the "MoE-enhanced adapter" of FaVChat v1 §3, with the experts on one stream; its Eq. 3, a gate over two
    streams, is the fusion ``moe``.

    Args:
        in_dim: width of the input stream.
        out_dim: width of the language model.
        experts: number of experts.
        hidden: width of an expert's hidden layer; ``null`` for that of the language model.
        gate_on: input of the gate: every ``token``, or the mean of the ``stream``.

    >>> adapter = MoEAdapter(in_dim=8, out_dim=32, experts=3)
    >>> adapter(Features.of(torch.zeros(2, 3, 4, 8), torch.ones(2, 3, dtype=torch.bool))).tokens.shape
    torch.Size([2, 3, 4, 32])
    """

    weights: Tensor | None = None

    def __init__(
        self,
        in_dim: int,
        out_dim: int,
        experts: int = 4,
        hidden: int | None = None,
        gate_on: Literal["token", "stream"] = "token",
    ) -> None:
        super().__init__(in_dim, out_dim)
        if experts < 1:
            raise ValueError(f"moe_adapter: experts={experts}; expected 1 or more.")
        self.gate_on = gate_on
        self.gate = SoftGate(in_dim, experts)
        width = hidden or out_dim
        self.experts = nn.ModuleList()
        for _ in range(experts):
            self.experts.append(nn.Sequential(nn.Linear(in_dim, width), nn.GELU(), nn.Linear(width, out_dim)))

    def layout(self, layout: Layout) -> Layout:
        return layout

    def forward(self, features: Features) -> Features:
        tokens = features.tokens
        gate_input = tokens
        if self.gate_on == "stream":
            gate_input = mean_pool(features)[:, None, None]
        weights: Tensor = self.gate(gate_input)
        mixed = torch.zeros((), device=tokens.device)
        for expert, weight in zip(self.experts, weights.unbind(dim=-1), strict=True):
            mixed = expert(tokens) * weight[..., None].to(tokens.dtype) + mixed
        token_weights = weights.detach().expand(*tokens.shape[:3], -1)
        self.weights = mean_pool(Features(token_weights, features.mask))
        return replace(features, tokens=mixed, levels=())
