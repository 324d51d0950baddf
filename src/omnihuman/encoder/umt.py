"""UMT: the frames of a clip, encoded jointly -> patch tokens."""

from collections import Counter
from collections.abc import Sequence
from functools import lru_cache
from typing import Literal

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Bool, Float, UInt8
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from omnihuman.encoder.base import Encoder, count_blocks
from omnihuman.encoder.weights import load_parameters, read_folder
from omnihuman.mirror import range_like
from omnihuman.nn.frames import COLORS, Aspect, SquareFrames, normalize_colors
from omnihuman.nn.levels import select_blocks, split_states, stack_states
from omnihuman.nn.masking import run_on_valid
from omnihuman.types import Features, Layout, Signal


@lru_cache(maxsize=16)
def compute_positions(
    num_frames: int, side: int, dim: int, table_frames: int, table_side: int, device: torch.device
) -> Float[Tensor, "T N D"]:
    """Return the fixed sine and cosine position embedding of every patch of a clip.

    Reference: UMT and VideoChat2 ``vit.py``: the table is computed for ``table_frames`` frames (one for a still) of
    ``table_side`` squared patches, which are numbered through all frames; it is resized bicubically to another grid,
    and then linearly over time to another number of frames.

    >>> compute_positions(6, 2, 8, 4, 2, torch.device("cpu")).shape
    torch.Size([6, 4, 8])
    """
    frames = 1 if num_frames == 1 else table_frames
    # a cached tensor must be usable in training, although the first call may be in inference mode
    with torch.inference_mode(False), torch.device("cpu"):
        patch = torch.arange(frames * table_side**2, dtype=torch.float64)[:, None]
        angle = patch / 10000 ** (2 * (torch.arange(dim, dtype=torch.float64) // 2) / dim)
        table = torch.where(torch.arange(dim) % 2 == 0, angle.sin(), angle.cos()).float()
        maps = rearrange(table, "(T H W) D -> T D H W", T=frames, H=table_side)
        if side != table_side:
            maps = F.interpolate(maps, (side, side), mode="bicubic", align_corners=False)
        lines = rearrange(maps, "T D H W -> (H W) D T")
        if num_frames != frames:
            lines = F.interpolate(lines, num_frames, mode="linear", align_corners=False)
        return rearrange(lines, "N D T -> T N D").contiguous().to(device)


class JointAttention(nn.Module):
    """Concatenated tokens of several clips ``[L D]`` -> ``[L D]``; every clip attends to all of its own tokens.

    Args:
        dim: width D.
        num_heads: heads.
    """

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.qkv = nn.Linear(dim, 3 * dim, bias=False)
        self.proj = nn.Linear(dim, dim)
        # keys have no bias: softmax is invariant to it
        self.q_bias = nn.Parameter(torch.zeros(dim))
        self.v_bias = nn.Parameter(torch.zeros(dim))

    def forward(self, x: Float[Tensor, "L D"], clips: Sequence[tuple[int, int]]) -> Float[Tensor, "L D"]:
        """Attend within each clip.

        Args:
            x: tokens; clips of one length follow each other.
            clips: number of clips and tokens per clip, of each length.
        """
        bias = torch.cat([self.q_bias, torch.zeros_like(self.q_bias), self.v_bias])
        packed = torch.split(F.linear(x, self.qkv.weight, bias), [count * length for count, length in clips])
        outputs = []
        for part, (count, _) in zip(packed, clips, strict=True):
            q, k, v = rearrange(part, "(B L) (K H D) -> K B H L D", B=count, K=3, H=self.num_heads)
            outputs.append(rearrange(F.scaled_dot_product_attention(q, k, v), "B H L D -> (B L) (H D)"))
        projected: Tensor = self.proj(torch.cat(outputs))
        return projected


class Block(nn.Module):
    """A pre-norm Transformer block, ``[L D]`` -> ``[L D]``.

    Args:
        dim: width D.
        num_heads: heads of the attention.
        hidden: width of the MLP's hidden layer.
    """

    def __init__(self, dim: int, num_heads: int, hidden: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=1e-6)
        self.norm2 = nn.LayerNorm(dim, eps=1e-6)
        self.attn = JointAttention(dim, num_heads)
        self.mlp = nn.ModuleDict({"fc1": nn.Linear(dim, hidden), "fc2": nn.Linear(hidden, dim)})

    def forward(self, x: Float[Tensor, "L D"], clips: Sequence[tuple[int, int]]) -> Float[Tensor, "L D"]:
        x = x + self.attn(self.norm1(x), clips)
        update: Tensor = self.mlp["fc2"](F.gelu(self.mlp["fc1"](self.norm2(x))))
        return x + update


class UMT(Encoder):
    """Frames ``[B T 3 S S]`` uint8 -> patch tokens ``[B T N D]`` of one inner block, attending to the whole clip.

    Each clip is encoded as if it had its valid frames only. Clips of all lengths form one forward pass, so that ranks
    with clips of different lengths call every block equally often. The blocks after the selected one and the final norm
    are not built; VideoChat2's ``vision_layernorm`` follows.

    Reference: UMT-L/16 as VideoChat2 builds it, ``vit.py`` with ``return_index: -2``, and its ``vision_layernorm``.
    Differs from the official code, which fixes the number of frames when it builds its table of positions.

    Args:
        weights: folder that ``omnihuman convert official=umt`` writes; ``null`` initializes at random.
        image_size: side S of a frame in pixels.
        patch_size: side of a patch in pixels.
        hidden_size: width D of a token.
        intermediate_size: width of the hidden layer of a block.
        num_hidden_layers: blocks of the original model, including those that are not built.
        num_attention_heads: heads of a block.
        select_layer: the block whose output becomes the tokens: -1 is the last one, -2 the one before it.
        levels: blocks whose hidden states, before ``vision_layernorm``, become levels (1 is the first block), or a
            number of blocks at even distances; 0 computes and stores no levels.
        table_frames: frames of the position table that the weights were trained with.
        table_side: rows and columns of that table.
        normalize: mean and deviation of the colors: ``imagenet`` as in training, ``clip`` as in VideoChat2's demos.
        grad_checkpointing: number of blocks, from the first, that are recomputed in the backward pass.
        aspect: resizing of frames that are not square: ``squash``, as officially, ``pad`` or ``crop``.

    Raises:
        ValueError: a size contradicts the weights, the weights do not fit, or a selected block does not exist.

    >>> encoder = UMT(image_size=32, patch_size=16, hidden_size=16, intermediate_size=32, num_hidden_layers=3,
    ...               num_attention_heads=2, table_side=2, levels=[1, 2])
    >>> frames = torch.zeros(1, 5, 3, 32, 32, dtype=torch.uint8)
    >>> features = encoder(Signal(frames, torch.ones(1, 5, dtype=torch.bool)))
    >>> features.tokens.shape, len(features.levels)
    (torch.Size([1, 5, 4, 16]), 2)
    """

    sample_fields = ("frames", "faces")

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
        select_layer: int = -2,
        levels: int | Sequence[int] = 0,
        table_frames: int = 4,
        table_side: int = 14,
        normalize: Literal["imagenet", "clip"] = "imagenet",
        grad_checkpointing: int = 0,
        aspect: Aspect = "squash",
    ) -> None:
        super().__init__()
        if normalize not in COLORS:
            raise ValueError(f"umt: unknown normalize={normalize!r}; expected one of {', '.join(COLORS)}.")
        num_blocks = count_blocks(select_layer, num_hidden_layers)
        self.level_blocks = select_blocks(levels, num_blocks, "umt")
        self.level_dims = (hidden_size,) * len(self.level_blocks)
        self.out_dim = hidden_size
        self.grid = (image_size // patch_size, image_size // patch_size)
        self.transform = SquareFrames(image_size, aspect)
        self.normalize, self.grad_checkpointing = normalize, grad_checkpointing
        self.table = (table_frames, table_side)
        patch = (1, patch_size, patch_size)
        self.patch_embed = nn.Conv3d(3, hidden_size, kernel_size=patch, stride=patch)
        blocks = [Block(hidden_size, num_attention_heads, intermediate_size) for _ in range(num_blocks)]
        self.blocks = nn.ModuleList(blocks)
        self.vision_layernorm = nn.LayerNorm(hidden_size, eps=1e-12)
        if weights is not None:
            sizes = {
                "patch_size": patch_size,
                "hidden_size": hidden_size,
                "intermediate_size": intermediate_size,
                "num_hidden_layers": num_hidden_layers,
                "num_attention_heads": num_attention_heads,
                "table_frames": table_frames,
                "table_side": table_side,
            }
            above = range(num_blocks, num_hidden_layers)
            dropped = tuple(f"blocks.{block}.*" for block in above)
            load_parameters(self, weights, read_folder(weights, sizes, "umt"), dropped)

    def layout(self, amount: int) -> Layout:
        layout = Layout(amount, self.grid[0] * self.grid[1], self.grid)
        return layout._replace(levels=(layout,) * len(self.level_blocks))

    def forward(self, signal: Signal) -> Features:
        frames, mask = signal.values, signal.mask
        size = (mask.shape[1], len(self.level_blocks) + 1, self.grid[0] * self.grid[1], self.out_dim)
        dtype = self.patch_embed.weight.dtype
        with self.graph():
            states = run_on_valid(lambda index: self._encode(frames[index], mask[index]), mask.any(dim=1), size, dtype)
        return split_states(states, mask, self.grid)

    def _encode(self, frames: UInt8[Tensor, "B T 3 _ _"], mask: Bool[Tensor, "B T"]) -> Float[Tensor, "B T S N D"]:
        """Return the levels and then the tokens of each clip, zeros for invalid frames.

        The valid frames of all clips are packed into one sequence, sorted by the length of their clip: clips of equal
        length then form one batch of the attention, and no padding is computed.
        """
        if not mask.any():  # a sample without input that only takes part in the step: its first frame runs
            mask = range_like(mask.shape[1], mask).expand_as(mask) == 0
        order = mask.sum(dim=1).argsort(stable=True)
        samples, time_steps = mask[order].nonzero(as_tuple=True)
        samples = order[samples]
        counts = sorted(Counter(mask.sum(dim=1).tolist()).items())
        pixels = normalize_colors(frames[samples, time_steps], self.normalize, self.patch_embed.weight.dtype)
        x = rearrange(self.patch_embed(pixels.unsqueeze(2)), "K D 1 H W -> K (H W) D")
        x = (x + self._positions(counts, x.device).type_as(x)).flatten(0, 1)
        clips = [(count, length * self.grid[0] ** 2) for length, count in counts]
        states = []
        for number, block in enumerate(self.blocks, start=1):
            if number <= self.grad_checkpointing and torch.is_grad_enabled():
                x = checkpoint(block, x, clips, use_reentrant=False)
            else:
                x = block(x, clips)
            if number in self.level_blocks:
                states.append(x)
        states.append(self.vision_layernorm(x))
        packed = stack_states([state.unflatten(0, (len(samples), -1)) for state in states])
        padded: Tensor = packed.new_zeros(*mask.shape, *packed.shape[1:])
        return padded.index_put((samples, time_steps), packed)

    def _positions(self, counts: Sequence[tuple[int, int]], device: torch.device) -> Float[Tensor, "K N D"]:
        """Return the positions of all packed frames; ``counts`` pairs each length with its number of clips."""
        tables = []
        for length, count in counts:
            table = compute_positions(length, self.grid[0], self.out_dim, *self.table, device)
            tables.append(table.repeat(count, 1, 1))
        return torch.cat(tables)
