"""Spatial-temporal convolution: VideoLLaMA2's connector as HumanOmni uses it."""

from collections.abc import Sequence
from typing import TypeVar

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Bool, Float
from timm.layers import LayerNorm2d
from timm.models.regnet import RegStage
from torch import Tensor, nn

from omnihuman.mirror import range_like
from omnihuman.nn.masking import run_on_valid
from omnihuman.projector.base import Projector
from omnihuman.types import Features, Layout

_Length = TypeVar("_Length", int, Tensor)


def _triple(numbers: Sequence[int]) -> tuple[int, int, int]:
    time, rows, columns = numbers
    return time, rows, columns


class STCProjector(Projector):
    """Frames on a grid ``[B T N in_dim]`` -> fewer tokens ``[B T' N' out_dim]``.

    RegStage, Conv3d with SiLU, cut, RegStage, two Linears. The defaults halve the grid (27 x 27 to 14 x 14) and keep
    the number of frames: output frame k depends on the input frames k - 1 and k.

    Reference: HumanOmni ``projector.py``, ``AllInOne`` (stride (1, 2, 2), padding 1, the last time step cut) and
    ``AllInOneSmall`` (depth 2, padding (1, 0, 0)); VideoLLaMA2's ``stc_connector`` has stride 2, padding 1 and no cut,
    ``stc_connector_v35`` also padding 0.

    Args:
        in_dim: width of the input stream.
        out_dim: width of the language model.
        depth: blocks of each RegStage.
        mlp_depth: Linears at the end.
        kernel: of the Conv3d in time, rows and columns; VideoLLaMA2's ``spatial_conv`` has (1, 2, 2).
        stride: of the Conv3d.
        padding: of the Conv3d.
        cut: remove the last time step, which the padding added.
        grad_checkpointing: recompute the RegStages in the backward pass.

    Raises:
        ValueError: the stream has no grid, or fewer frames than the kernel needs without padding.

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
        self.min_frames = max(0, self.kernel[0] - 2 * self.padding[0] + self.stride[0] * cut)
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
            raise ValueError("stc: expected a stream on a grid, got one without; choose mlp or linear.")
        if layout.time_steps < self.min_frames:
            raise ValueError(
                f"stc needs {self.min_frames} frames or more, got {layout.time_steps}: its kernel spans "
                f"{self.kernel[0]} and its padding in time is {self.padding[0]}. Raise the number of frames, or set "
                "padding=[1,1,1]."
            )
        rows, columns = self._output_length(layout.grid[0], 1), self._output_length(layout.grid[1], 2)
        return Layout(self._output_length(layout.time_steps, 0) - self.cut, rows * columns, (rows, columns))

    def forward(self, features: Features) -> Features:
        tokens, valid = features.tokens, features.mask.any(dim=2)
        if valid.shape[1] < self.min_frames and not valid.any():
            # a batch without any frame still takes part in the step: padding makes it long enough for the kernel
            padding = self.min_frames - valid.shape[1]
            tokens, valid = F.pad(tokens, (0, 0, 0, 0, 0, padding)), F.pad(valid, (0, padding))
        batch, time_steps = valid.shape
        output = self.layout(Layout(time_steps, tokens.shape[2], features.grid))
        assert features.grid is not None and output.grid is not None
        maps = rearrange(tokens, "B T (H W) D -> (B T) D H W", H=features.grid[0])
        maps = rearrange(self._run_stage(self.s1, maps, valid), "(B T) D H W -> B D T H W", B=batch)
        maps = self.sampler(maps)
        if self.cut:
            maps = maps[:, :, :-1]
        output_valid = self._output_mask(valid, output.time_steps)
        maps = self._run_stage(self.s2, rearrange(maps, "B D T H W -> (B T) D H W"), output_valid)
        tokens = self.readout(rearrange(maps, "(B T) D H W -> B T (H W) D", B=batch))
        return Features.of(tokens, output_valid, output.grid)

    def _run_stage(
        self, stage: nn.Module, maps: Float[Tensor, "K _ H W"], valid: Bool[Tensor, "B T"]
    ) -> Float[Tensor, "K D H W"]:
        """Run a RegStage on the valid frames; the others are zeros, as the convolution pads a clip in time."""
        size = (self.out_dim, *maps.shape[2:])
        return run_on_valid(lambda index: stage(maps[index]), valid.flatten(), size, maps.dtype)

    def _output_mask(self, valid: Bool[Tensor, "B T"], time_steps: int) -> Bool[Tensor, "B S"]:
        """Return the output frames that each clip would have alone."""
        lengths = valid.sum(dim=1)
        counts = torch.where(lengths > 0, self._output_length(lengths, 0) - int(self.cut), 0)
        return range_like(time_steps, valid) < counts[:, None]

    def _output_length(self, length: _Length, axis: int) -> _Length:
        """Return the length of an axis after the Conv3d: time, rows or columns."""
        return (length + 2 * self.padding[axis] - self.kernel[axis]) // self.stride[axis] + 1
