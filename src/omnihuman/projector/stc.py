"""Spatial-temporal convolution: the connector of VideoLLaMA2 in the form that HumanOmni gave it."""

from collections.abc import Sequence
from typing import TypeVar

import torch
import torch.nn.functional as F
from einops import rearrange
from timm.layers import LayerNorm2d
from timm.models.regnet import RegStage
from torch import Tensor, nn

from omnihuman.nn.rows import on_real
from omnihuman.projector.base import Projector
from omnihuman.types import Features, Layout

_Length = TypeVar("_Length", int, Tensor)


def _triple(numbers: Sequence[int]) -> tuple[int, int, int]:
    time, rows, columns = numbers
    return time, rows, columns


class STCProjector(Projector):
    """Frames on a grid ``[B T N in_dim]`` -> fewer tokens ``[B T' N' out_dim]``.

    RegStage, Conv3d with SiLU, cut, RegStage, two Linears. The defaults halve the grid (27 x 27 to 14 x 14) and keep
    every frame: output frame k sees the input frames k - 1 and k.

    Reference: HumanOmni ``projector.py``, ``AllInOne`` (stride (1, 2, 2), padding 1, the last slice cut) and
    ``AllInOneSmall`` (depth 2, padding (1, 0, 0)); VideoLLaMA2's ``stc_connector`` is stride 2, padding 1, no cut, and
    ``stc_connector_v35`` the same with padding 0.

    Args:
        in_dim: width of the stream it reads.
        out_dim: width of the language model.
        depth: blocks of each RegStage.
        mlp_depth: Linears at the end.
        kernel: of the Conv3d in time, rows and columns; VideoLLaMA2's ``spatial_conv`` has (1, 2, 2).
        stride: of the Conv3d.
        padding: of the Conv3d.
        cut: drop the last moment that the padding added.
        grad_checkpointing: recompute the RegStages in the backward pass.

    Raises:
        ValueError: the stream has no grid, or too few frames for a kernel without padding.

    >>> projector = STCProjector(in_dim=8, out_dim=16, depth=1)
    >>> frames = Features.of(torch.zeros(2, 3, 49, 8), torch.ones(2, 3, dtype=torch.bool), grid=(7, 7))
    >>> projector(frames).tokens.shape
    torch.Size([2, 3, 16, 16])
    """

    def __init__(
        self,
        in_dim: int,
        out_dim: int,
        depth: int = 4,
        mlp_depth: int = 2,
        kernel: Sequence[int] = (2, 2, 2),
        stride: Sequence[int] = (1, 2, 2),
        padding: Sequence[int] = (1, 1, 1),
        cut: bool = True,
        grad_checkpointing: bool = False,
    ) -> None:
        super().__init__(in_dim, out_dim)
        self.kernel, self.stride, self.padding = _triple(kernel), _triple(stride), _triple(padding)
        self.cut = cut
        self.least = max(0, self.kernel[0] - 2 * self.padding[0] + self.stride[0] * cut)
        options = {"stride": 1, "dilation": 1, "act_layer": nn.SiLU, "norm_layer": LayerNorm2d}
        self.s1 = RegStage(depth, in_dim, out_dim, **options)
        self.sampler = nn.Sequential(
            nn.Conv3d(out_dim, out_dim, kernel_size=self.kernel, stride=self.stride, padding=self.padding), nn.SiLU()
        )
        self.s2 = RegStage(depth, out_dim, out_dim, **options)
        self.s1.grad_checkpointing = self.s2.grad_checkpointing = grad_checkpointing
        layers: list[nn.Module] = [nn.Linear(out_dim, out_dim)]
        for _ in range(mlp_depth - 1):
            layers += [nn.GELU(), nn.Linear(out_dim, out_dim)]
        self.readout = nn.Sequential(*layers)

    def layout(self, layout: Layout) -> Layout:
        if layout.grid is None:
            raise ValueError("stc convolves over a grid, but the stream it reads has none: choose mlp or linear.")
        if layout.moments < self.least:
            raise ValueError(
                f"stc needs {self.least} frames or more, got {layout.moments}: its kernel spans {self.kernel[0]} and "
                f"its padding in time is {self.padding[0]}. Raise the number of frames, or set padding=[1,1,1]."
            )
        rows, columns = self._out(layout.grid[0], 1), self._out(layout.grid[1], 2)
        return Layout(self._out(layout.moments, 0) - self.cut, rows * columns, (rows, columns))

    def forward(self, features: Features) -> Features:
        tokens, real = features.tokens, features.mask.any(dim=2)
        if real.shape[1] < self.least and not real.any():  # nothing to refuse: blank moments let the layer take part
            short = self.least - real.shape[1]
            tokens, real = F.pad(tokens, (0, 0, 0, 0, 0, short)), F.pad(real, (0, short))
        batch, moments = real.shape
        out = self.layout(Layout(moments, tokens.shape[2], features.grid))
        assert features.grid is not None and out.grid is not None
        maps = rearrange(tokens, "B T (H W) D -> (B T) D H W", H=features.grid[0])
        maps = rearrange(self._stage(self.s1, maps, real), "(B T) D H W -> B D T H W", B=batch)
        maps = self.sampler(maps)
        if self.cut:
            maps = maps[:, :, :-1]
        kept = self._kept(real, out.moments)
        maps = self._stage(self.s2, rearrange(maps, "B D T H W -> (B T) D H W"), kept)
        tokens = self.readout(rearrange(maps, "(B T) D H W -> B T (H W) D", B=batch))
        return Features.of(tokens, kept, out.grid)

    def _stage(self, stage: nn.Module, maps: Tensor, real: Tensor) -> Tensor:
        """A RegStage on the real frames; zeros for the others, so that nothing of them reaches a neighbour."""
        return on_real(lambda rows: stage(maps[rows]), real.flatten(), (self.out_dim, *maps.shape[2:]), maps.dtype)

    def _kept(self, real: Tensor, moments: int) -> Tensor:
        """Which moments come out of each sample's own frames, as if it were alone."""
        lengths = real.sum(dim=1)
        counts = torch.where(lengths > 0, self._out(lengths, 0) - int(self.cut), 0)
        return torch.arange(moments, device=real.device) < counts[:, None]

    def _out(self, length: _Length, axis: int) -> _Length:
        return (length + 2 * self.padding[axis] - self.kernel[axis]) // self.stride[axis] + 1
