"""FaceXFormer's encoder: faces -> fused tokens and the levels of a Swin."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float, UInt8
from torch import Tensor, nn
from torchvision.models.swin_transformer import SwinTransformer

from omnihuman.encoder.base import Encoder
from omnihuman.encoder.weights import load_parameters, read_folder
from omnihuman.nn.frames import Aspect, SquareFrames, normalize_colors
from omnihuman.nn.masking import run_on_valid
from omnihuman.types import Features, Layout, Signal

PATCH = 4
"""Side of a patch in pixels."""


class FaceXFormer(Encoder):
    """Frames ``[B T 3 S S]`` uint8 -> tokens ``[B T N D]`` fused from all stages of a Swin; the stages are the levels.

    All valid frames of a batch form one forward pass. The encoder is always in eval mode, even if it is trainable.

    Reference: FaceXFormer ``network/models/facexformer.py``: torchvision's Swin, its stages before they are merged and
    before the final norm, then an MLP that fuses them on the grid of the first stage.
    Differs from the official code, which collects the stages by hooks and adds positions in its decoder only; tokens
    can be pooled to a smaller grid, and a frame without a face has no tokens.

    Args:
        weights: folder that ``omnihuman convert official=facexformer`` writes; ``null`` initializes at random.
        image_size: side S of a frame in pixels.
        embed_dim: width of the first stage; it doubles with every stage.
        depths: blocks of each stage.
        num_heads: heads of each stage.
        window_size: side of an attention window in patches.
        dim: width D of a fused token.
        pool: side of the grid to which tokens are averaged; ``null`` keeps the grid of the first stage.
        aspect: resizing of frames that are not square: ``squash``, as officially, ``pad`` or ``crop``.

    Raises:
        ValueError: a size contradicts the weights, the weights do not fit, or ``pool`` is larger than the grid.

    >>> encoder = FaceXFormer(image_size=32, embed_dim=8, depths=[1, 1], num_heads=[1, 2], dim=16, pool=4)
    >>> faces = torch.zeros(1, 5, 3, 32, 32, dtype=torch.uint8)
    >>> features = encoder(Signal(faces, torch.ones(1, 5, dtype=torch.bool)))
    >>> [part.tokens.shape[2:] for part in (features, *features.levels)]
    [torch.Size([16, 16]), torch.Size([64, 8]), torch.Size([16, 16])]
    """

    sample_fields = ("frames", "faces")

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
        aspect: Aspect = "squash",
    ) -> None:
        super().__init__()
        sides = [image_size // PATCH]
        for _ in depths[1:]:
            sides.append(-(-sides[-1] // 2))
        if pool is not None and not 0 < pool <= sides[0]:
            raise ValueError(f"facexformer: pool={pool}; expected 1 to {sides[0]}, the side of the first stage's grid.")
        self.out_dim = dim
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
        self.linears = nn.ModuleList([nn.Linear(width, dim) for width in self.level_dims])
        self.fuse = nn.Conv2d(dim * len(depths), dim, kernel_size=1, bias=False)
        if weights is not None:
            sizes = {
                "embed_dim": embed_dim,
                "depths": list(depths),
                "num_heads": list(num_heads),
                "window_size": window_size,
                "dim": dim,
            }
            load_parameters(self, weights, read_folder(weights, sizes, "facexformer"))
        self.eval()

    def train(self, mode: bool = True) -> "FaceXFormer":
        return super().train(False)

    def layout(self, amount: int) -> Layout:
        levels = tuple(Layout(amount, rows * columns, (rows, columns)) for rows, columns in self.level_grids)
        return Layout(amount, self.grid[0] * self.grid[1], self.grid, levels)

    def forward(self, signal: Signal) -> Features:
        frames, mask = signal.values.flatten(0, 1), signal.mask
        grids, dims = (*self.level_grids, self.grid), (*self.level_dims, self.out_dim)
        sizes = [rows * columns * dim for (rows, columns), dim in zip(grids, dims, strict=True)]
        with self.graph():
            # levels differ in shape, but run_on_valid returns one tensor: all of them in one vector per frame
            flat = run_on_valid(
                lambda index: self._encode(frames[index]), mask.flatten(), (sum(sizes),), self.fuse.weight.dtype
            )
        features = []
        for part, grid, dim in zip(torch.split(flat, sizes, dim=1), grids, dims, strict=True):
            features.append(Features.of(part.reshape(*mask.shape, -1, dim), mask, grid))
        *levels, fused = features
        return Features(fused.tokens, fused.mask, fused.grid, tuple(levels))

    def _encode(self, frames: UInt8[Tensor, "K 3 S S"]) -> Float[Tensor, "K _"]:
        """Return every level and then the fused tokens, as one vector per frame."""
        x = normalize_colors(frames, "imagenet", self.fuse.weight.dtype)
        levels: list[Tensor] = []
        for index, part in enumerate(self.features):  # patches, stage, merging, stage, ...
            x = part(x)
            if index % 2:
                levels.append(x)
        maps = []
        for linear, level in zip(self.linears, levels, strict=True):
            projected = rearrange(linear(level), "K H W D -> K D H W")
            maps.append(F.interpolate(projected, self.level_grids[0], mode="bilinear"))
        fused = F.adaptive_avg_pool2d(self.fuse(torch.cat(maps[::-1], dim=1)), self.grid)
        vectors = [level.flatten(1) for level in levels]
        return torch.cat([*vectors, rearrange(fused, "K D H W -> K (H W D)")], dim=1)
