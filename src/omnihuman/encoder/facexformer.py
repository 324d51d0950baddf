"""FaceXFormer's encoder: faces -> tokens fused of four levels, and the levels."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from einops import rearrange
from huggingface_hub import hf_hub_download
from jaxtyping import Float, UInt8
from torch import Tensor, nn
from torchvision.models.swin_transformer import SwinTransformer

from omnihuman.convert import facexformer as official
from omnihuman.encoder.base import Encoder
from omnihuman.encoder.weights import load_parameters, read_folder
from omnihuman.nn.frames import SquareFrames, normalized
from omnihuman.nn.rows import on_real
from omnihuman.types import Features, Layout, Signal

log = logging.getLogger(__name__)

PATCH = 4
"""Side of a patch in pixels."""


class FaceXFormer(Encoder):
    """Frames ``[B T 3 S S]`` uint8 -> tokens ``[B T N D]`` fused of all stages of a Swin, which are the levels.

    All real frames of a batch go through in one pass. It is in eval mode always, also where it learns.

    Reference: FaceXFormer ``network/models/facexformer.py``: torchvision's Swin, its stages before they are merged and
    before the final norm, then an MLP fusion of them on the grid of the first.
    Differs from the official code, which reads the stages through hooks and adds positions in its decoder only; tokens
    can be pooled to a smaller grid, and a frame without a face is left out.

    Args:
        weights: folder with ``config.json`` and ``model.safetensors`` under our names, the official file, or the hub id
            of its repository; ``null`` builds the sizes at random.
        image_size: side S of a frame in pixels.
        embed_dim: width of the first stage; each further one is twice as wide.
        depths: blocks of each stage.
        num_heads: heads of each stage.
        window_size: side of a window of attention in patches.
        dim: width D of a fused token.
        pool: side of the grid to which tokens are averaged; ``null`` keeps the grid of the first stage.
        reads: ``frames``, or ``faces`` for frames cropped to the face.
        aspect: what is done to frames that are not square: ``squash``, as officially, or ``pad``.

    Raises:
        ValueError: a size contradicts the weights, the weights do not fit, or ``pool`` is larger than the grid.

    >>> tower = FaceXFormer(image_size=32, embed_dim=8, depths=[1, 1], num_heads=[1, 2], dim=16, pool=4)
    >>> faces = torch.zeros(1, 5, 3, 32, 32, dtype=torch.uint8)
    >>> made = tower(Signal(faces, torch.ones(1, 5, dtype=torch.bool)))
    >>> [part.tokens.shape[2:] for part in (made, *made.levels)]
    [torch.Size([16, 16]), torch.Size([64, 8]), torch.Size([16, 16])]
    """

    def __init__(
        self,
        *,
        image_size: int,
        embed_dim: int,
        depths: Sequence[int],
        num_heads: Sequence[int],
        dim: int,
        window_size: int = 7,
        weights: str | None = None,
        pool: int | None = None,
        reads: Literal["frames", "faces"] = "frames",
        aspect: Literal["pad", "squash"] = "squash",
    ) -> None:
        super().__init__()
        sides = [image_size // PATCH]
        for _ in depths[1:]:
            sides.append(-(-sides[-1] // 2))
        if pool is not None and not 0 < pool <= sides[0]:
            raise ValueError(f"facexformer: pool {pool} is no side of a grid made from {sides[0]} x {sides[0]} tokens.")
        self.reads, self.out_dim = reads, dim
        self.level_dims = tuple(embed_dim * 2**stage for stage in range(len(depths)))
        self.level_grids = tuple((side, side) for side in sides)
        self.grid = self.level_grids[0] if pool is None else (pool, pool)
        self.transform = SquareFrames(image_size, aspect)
        swin = SwinTransformer(
            [PATCH, PATCH],
            embed_dim,
            list(depths),
            list(num_heads),
            [window_size, window_size],
            stochastic_depth_prob=0.0,
            num_classes=1,
        )
        self.features = swin.features
        self.linears = nn.ModuleList(nn.Linear(width, dim) for width in self.level_dims)
        self.fuse = nn.Conv2d(dim * len(depths), dim, kernel_size=1, bias=False)
        if weights is not None:
            sizes = {"embed_dim": embed_dim, "depths": list(depths), "num_heads": list(num_heads),
                     "window_size": window_size, "dim": dim}  # fmt: skip
            self._load(weights, sizes)
        self.eval()

    def train(self, mode: bool = True) -> "FaceXFormer":
        return super().train(False)

    def layout(self, amount: int) -> Layout:
        levels = tuple(Layout(amount, grid[0] * grid[1], grid) for grid in self.level_grids)
        return Layout(amount, self.grid[0] * self.grid[1], self.grid, levels)

    def forward(self, signal: Signal) -> Features:
        frames, mask = signal.values.flatten(0, 1), signal.mask
        grids, dims = (*self.level_grids, self.grid), (*self.level_dims, self.out_dim)
        sizes = [rows * columns * dim for (rows, columns), dim in zip(grids, dims, strict=True)]
        with self.graph():
            # one row of numbers a frame, which is what goes through a batch that may have nothing real
            flat = on_real(lambda rows: self._read(frames[rows]), mask.flatten(), (sum(sizes),), self.fuse.weight.dtype)
        *levels, fused = (
            Features.of(part.reshape(*mask.shape, -1, dim), mask, grid)
            for part, grid, dim in zip(torch.split(flat, sizes, dim=1), grids, dims, strict=True)
        )
        return Features(fused.tokens, fused.mask, fused.grid, tuple(levels))

    def _read(self, frames: UInt8[Tensor, "K 3 S S"]) -> Float[Tensor, "K _"]:
        """Every level, then the fused tokens, of each frame in one row."""
        x = normalized(frames, "imagenet", self.fuse.weight.dtype)
        levels: list[Tensor] = []
        for place, part in enumerate(self.features):  # patches, stage, merging, stage, ...
            x = part(x)
            if place % 2:
                levels.append(x)
        maps = [
            F.interpolate(rearrange(linear(level), "K H W D -> K D H W"), self.level_grids[0], mode="bilinear")
            for linear, level in zip(self.linears, levels, strict=True)
        ]
        fused = F.adaptive_avg_pool2d(self.fuse(torch.cat(maps[::-1], dim=1)), self.grid)
        return torch.cat([*(level.flatten(1) for level in levels), rearrange(fused, "K D H W -> K (H W D)")], dim=1)

    def _load(self, weights: str, sizes: dict[str, Any]) -> None:
        path = Path(weights)
        if (path / "model.safetensors").is_file():
            state = read_folder(path, sizes)
        else:
            if not path.is_file():
                path = path / official.FILE if path.is_dir() else Path(hf_hub_download(weights, official.FILE))
            state, report = official.from_official(official.read(path))
            log.info("%s: %d tensors are read, %d are not", path, len(report.taken), len(report.dropped))
        load_parameters(self, weights, state)
