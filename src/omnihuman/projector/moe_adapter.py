"""A mixture of experts on one stream."""

from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor, nn

from omnihuman.nn.soft_gate import SoftGate
from omnihuman.nn.streams import pooled
from omnihuman.projector.base import Projector
from omnihuman.types import Features, Layout


class MoEAdapter(Projector):
    """Several MLPs, weighed by a soft gate, and added up: ``[B T N in_dim]`` -> ``[B T N out_dim]``.

    All experts run on every token; there is no top-k and no balancing loss. The last call's weights stay in
    ``weights``, ``[B K]``, the mean over the real tokens.

    Reference: the "MoE-enhanced adapter" of FaVChat v1 §3, read as experts on one stream; its Eq. 3, a gate over two
    streams, is the fusion ``moe``.

    Args:
        in_dim: width of the stream it reads.
        out_dim: width of the language model.
        experts: how many.
        hidden: width inside an expert; ``null`` for that of the language model.
        gate_on: what the gate sees, each ``token`` or the mean of the ``stream``.

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
            raise ValueError(f"moe_adapter: experts={experts}; 1 or more.")
        self.gate_on, width = gate_on, hidden or out_dim
        self.gate = SoftGate(in_dim, experts)
        self.experts = nn.ModuleList(
            nn.Sequential(nn.Linear(in_dim, width), nn.GELU(), nn.Linear(width, out_dim)) for _ in range(experts)
        )

    def layout(self, layout: Layout) -> Layout:
        return layout

    def forward(self, features: Features) -> Features:
        tokens = features.tokens
        weights: Tensor = self.gate(tokens if self.gate_on == "token" else pooled(features)[:, None, None])
        mixed = torch.zeros(())
        for expert, weight in zip(self.experts, weights.unbind(dim=-1), strict=True):
            mixed = expert(tokens) * weight[..., None].to(tokens.dtype) + mixed.to(tokens.device)
        seen = weights.detach().expand(*tokens.shape[:3], -1)
        self.weights = pooled(Features(seen, features.mask))
        return replace(features, tokens=mixed, levels=())
