"""UMT: the frames of a clip, read together -> patch tokens."""

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Literal

import torch
import torch.nn.functional as F
from einops import rearrange
from huggingface_hub import hf_hub_download
from jaxtyping import Bool, Float, UInt8
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from omnihuman.convert import videochat2
from omnihuman.encoder.base import Encoder, blocks_read
from omnihuman.encoder.weights import load_parameters, read_folder
from omnihuman.nn.frames import COLORS, SquareFrames, normalized
from omnihuman.nn.rows import on_real
from omnihuman.types import Features, Layout, Signal

log = logging.getLogger(__name__)


@lru_cache(maxsize=16)
def positions(
    moments: int, side: int, dim: int, table_frames: int, table_side: int, device: torch.device
) -> Float[Tensor, "T N D"]:
    """The fixed sines and cosines of every place of a clip, counted through moments and places alike.

    Reference: UMT and VideoChat2 ``vit.py``: made for ``table_frames`` frames (one for a still) of ``table_side``
    squared patches; bicubic to another grid, then linear over time at every place to another number of frames.

    >>> positions(6, 2, 8, 4, 2, torch.device("cpu")).shape
    torch.Size([6, 4, 8])
    """
    frames = 1 if moments == 1 else table_frames
    with torch.inference_mode(False), torch.device("cpu"):
        place = torch.arange(frames * table_side**2, dtype=torch.float64)[:, None]
        angle = place / 10000 ** (2 * (torch.arange(dim, dtype=torch.float64) // 2) / dim)
        table = torch.where(torch.arange(dim) % 2 == 0, angle.sin(), angle.cos()).float()
        maps = rearrange(table, "(T H W) D -> T D H W", T=frames, H=table_side)
        if side != table_side:
            maps = F.interpolate(maps, (side, side), mode="bicubic", align_corners=False)
        lines = rearrange(maps, "T D H W -> (H W) D T")
        if moments != frames:
            lines = F.interpolate(lines, moments, mode="linear", align_corners=False)
        return rearrange(lines, "N D T -> T N D").contiguous().to(device)


class JointAttention(nn.Module):
    """Tokens of clips, one clip after the other ``[L D]`` -> the same, every clip attending to all of itself.

    Args:
        dim: width D.
        num_heads: heads.
    """

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.qkv, self.proj = nn.Linear(dim, 3 * dim, bias=False), nn.Linear(dim, dim)
        # keys have no bias: softmax would not see it
        self.q_bias, self.v_bias = nn.Parameter(torch.zeros(dim)), nn.Parameter(torch.zeros(dim))

    def forward(self, x: Float[Tensor, "L D"], clips: Sequence[tuple[int, int]]) -> Float[Tensor, "L D"]:
        """``clips``: how many of which length, in their order."""
        bias = torch.cat([self.q_bias, torch.zeros_like(self.q_bias), self.v_bias])
        packed = torch.split(F.linear(x, self.qkv.weight, bias), [count * length for count, length in clips])
        seen = []
        for part, (count, _) in zip(packed, clips, strict=True):
            q, k, v = rearrange(part, "(B L) (K H D) -> K B H L D", B=count, K=3, H=self.num_heads)
            seen.append(rearrange(F.scaled_dot_product_attention(q, k, v), "B H L D -> (B L) (H D)"))
        mixed: Tensor = self.proj(torch.cat(seen))
        return mixed


class Block(nn.Module):
    """Attention and MLP, each behind its norm and beside a shortcut: ``[L D]`` -> ``[L D]``.

    Args:
        dim: width D.
        num_heads: heads of the attention.
        hidden: width inside the MLP.
    """

    def __init__(self, dim: int, num_heads: int, hidden: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(dim, eps=1e-6), nn.LayerNorm(dim, eps=1e-6)
        self.attn = JointAttention(dim, num_heads)
        self.mlp = nn.ModuleDict({"fc1": nn.Linear(dim, hidden), "fc2": nn.Linear(hidden, dim)})

    def forward(self, x: Float[Tensor, "L D"], clips: Sequence[tuple[int, int]]) -> Float[Tensor, "L D"]:
        x = x + self.attn(self.norm1(x), clips)
        inner: Tensor = self.mlp["fc2"](F.gelu(self.mlp["fc1"](self.norm2(x))))
        return x + inner


class UMT(Encoder):
    """Frames ``[B T 3 S S]`` uint8 -> patch tokens ``[B T N D]`` of one inner block, all frames of a clip attending.

    Each clip is read as if it had its real frames only, whatever their number, in one pass for the whole batch: ranks
    that hold clips of other lengths take as many steps through the blocks. The blocks above the one that is read are
    never built, and the final norm is not kept; a norm of VideoChat2 follows.

    Reference: UMT-L/16 as VideoChat2 builds it, ``vit.py`` with ``return_index: -2``, and its ``vision_layernorm``.
    Differs from the official code, which fixes the number of frames when it builds its table of positions.

    Args:
        weights: folder with ``config.json`` and ``model.safetensors`` under our names, an official file of VideoChat2
            or UMT, or a hub id with ``file``; ``null`` builds the sizes at random.
        file: name of the official file in that folder or hub repository.
        image_size: side S of a frame in pixels.
        patch_size: side of a patch in pixels.
        hidden_size: width D of a token.
        intermediate_size: width inside a block.
        num_hidden_layers: blocks of the whole tower, also those that are not built.
        num_attention_heads: heads of a block.
        select_layer: which state is read; -1 is the last block's, -2 that of the block before it.
        table_frames: frames of the table of positions that the weights grew up with.
        table_side: rows and columns of that table.
        normalize: the colours' mean and deviation: ``imagenet`` as in training, ``clip`` as in VideoChat2's demos.
        grad_checkpointing: so many blocks, from the first, are computed again in the backward pass.
        reads: ``frames``, or ``faces`` for frames cropped to the face.
        aspect: what is done to frames that are not square: ``squash``, as officially, or ``pad``.

    Raises:
        ValueError: a size contradicts the weights, the weights do not fit, or there is no such layer.

    >>> tower = UMT(image_size=32, patch_size=16, hidden_size=16, intermediate_size=32, num_hidden_layers=3,
    ...             num_attention_heads=2, table_side=2)
    >>> frames = torch.zeros(1, 5, 3, 32, 32, dtype=torch.uint8)
    >>> tower(Signal(frames, torch.ones(1, 5, dtype=torch.bool))).tokens.shape
    torch.Size([1, 5, 4, 16])
    """

    def __init__(
        self,
        *,
        image_size: int,
        patch_size: int,
        hidden_size: int,
        intermediate_size: int,
        num_hidden_layers: int,
        num_attention_heads: int,
        weights: str | None = None,
        file: str | None = None,
        select_layer: int = -2,
        table_frames: int = 4,
        table_side: int = 14,
        normalize: Literal["imagenet", "clip"] = "imagenet",
        grad_checkpointing: int = 0,
        reads: Literal["frames", "faces"] = "frames",
        aspect: Literal["pad", "squash"] = "squash",
    ) -> None:
        super().__init__()
        built = blocks_read(select_layer, num_hidden_layers)
        if normalize not in COLORS:
            raise ValueError(f"umt: normalize {normalize!r} is none of {', '.join(COLORS)}.")
        self.reads, self.out_dim = reads, hidden_size
        self.grid = (image_size // patch_size, image_size // patch_size)
        self.transform = SquareFrames(image_size, aspect)
        self.normalize, self.grad_checkpointing = normalize, grad_checkpointing
        self.table = (table_frames, table_side)
        patch = (1, patch_size, patch_size)
        self.patch_embed = nn.Conv3d(3, hidden_size, kernel_size=patch, stride=patch)
        self.blocks = nn.ModuleList(Block(hidden_size, num_attention_heads, intermediate_size) for _ in range(built))
        self.vision_layernorm = nn.LayerNorm(hidden_size, eps=1e-12)
        if weights is not None:
            sizes = {
                "patch_size": patch_size, "hidden_size": hidden_size, "intermediate_size": intermediate_size,
                "num_hidden_layers": num_hidden_layers, "num_attention_heads": num_attention_heads,
                "table_frames": table_frames, "table_side": table_side,
            }  # fmt: skip
            self._load(weights, file, sizes)

    def layout(self, amount: int) -> Layout:
        return Layout(amount, self.grid[0] * self.grid[1], self.grid)

    def forward(self, signal: Signal) -> Features:
        frames, mask = signal.values, signal.mask
        size = (mask.shape[1], self.grid[0] * self.grid[1], self.out_dim)
        with self.graph():
            tokens = on_real(
                lambda rows: self._read(frames[rows], mask[rows]), mask.any(dim=1), size, self.patch_embed.weight.dtype
            )
        return Features.of(tokens, mask, self.grid)

    def _read(self, frames: UInt8[Tensor, "B T 3 S S"], mask: Bool[Tensor, "B T"]) -> Float[Tensor, "B T N D"]:
        """The real frames only, clips of one length beside each other."""
        if not mask.any():  # the row that runs where nothing is real
            mask = torch.arange(mask.shape[1], device=mask.device).expand_as(mask) == 0
        order = mask.sum(dim=1).argsort(stable=True)
        rows, moments = mask[order].nonzero(as_tuple=True)
        rows = order[rows]
        groups = sorted(Counter(mask.sum(dim=1).tolist()).items())
        pixels = normalized(frames[rows, moments], self.normalize, self.patch_embed.weight.dtype)
        x = rearrange(self.patch_embed(pixels.unsqueeze(2)), "K D 1 H W -> K (H W) D")
        table = [
            positions(length, self.grid[0], self.out_dim, *self.table, x.device).repeat(count, 1, 1)
            for length, count in groups
        ]
        x = (x + torch.cat(table).type_as(x)).flatten(0, 1)
        clips = [(count, length * self.grid[0] ** 2) for length, count in groups]
        for depth, block in enumerate(self.blocks):
            if depth < self.grad_checkpointing and torch.is_grad_enabled():
                x = checkpoint(block, x, clips, use_reentrant=False)
            else:
                x = block(x, clips)
        x = self.vision_layernorm(x).unflatten(0, (len(rows), -1))
        tokens: Tensor = x.new_zeros(*mask.shape, *x.shape[1:]).index_put((rows, moments), x)
        return tokens

    def _load(self, weights: str, file: str | None, sizes: Mapping[str, int]) -> None:
        path = Path(weights)
        ours = path.is_dir() and file is None
        above = tuple(f"blocks.{block}.*" for block in range(len(self.blocks), sizes["num_hidden_layers"]))
        state = read_folder(path, sizes) if ours else self._official(_located(weights, file))
        load_parameters(self, weights, state, dropped=above)

    def _official(self, path: Path) -> dict[str, Tensor]:
        """Our part of an official checkpoint."""
        state, report = videochat2.from_official(videochat2.read(path), blocks=len(self.blocks))
        log.info("%s: %d tensors are read, %d are not", path, len(report.taken), len(report.dropped))
        prefix = "encoders.video."
        ours = {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}
        if "patch_embed.weight" not in ours:
            raise ValueError(
                f"{path} has no vision encoder, as VideoChat2's stage 1: take UMT's own file, or stage 2's."
            )
        if len(ours) == len(state) and not any(name.startswith("vision_layernorm.") for name in ours):
            log.warning("%s is UMT's own and has no vision_layernorm, which begins as 1 and 0, as in stage 1", path)
            ours |= {name: tensor for name, tensor in self.state_dict().items() if name.startswith("vision_layernorm.")}
        return ours


def _located(weights: str, file: str | None) -> Path:
    """The official file: here, in a folder, or fetched from the hub."""
    path = Path(weights)
    if path.is_file():
        return path
    if file is None:
        raise ValueError(f"umt: {weights!r} is no file or folder here; of a hub repository say which `file`.")
    return path / file if path.is_dir() else Path(hf_hub_download(weights, file))
