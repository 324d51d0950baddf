"""FaceXFormer's encoder equals a reference implementation, and differs from modified references."""

from collections.abc import Mapping
from zlib import crc32

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from omnihuman.encoder.facexformer import FaceXFormer
from omnihuman.official.facexformer.keys import convert_state
from omnihuman.types import Features, Signal

WIDTHS, DEPTHS, HEADS, WINDOW, DIM = (8, 16, 32, 64), (2, 2, 3, 1), (1, 2, 2, 4), 7, 12
SIDE = 84
"""Grids of 21, 11, 6, 3: some need padding to full windows, some before merging; two are smaller than a window."""
COLORS = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
ATOL = 1e-9
LINEARS = (("attn.qkv", 3, 1), ("attn.proj", 1, 1), ("mlp.0", 4, 1), ("mlp.3", 1, 4))
"""Name, output width and input width of a block's Linears, as multiples of its width."""

State = Mapping[str, Tensor]
Shapes = dict[str, tuple[int, ...]]


def draw_tensor(key: str, shape: tuple[int, ...]) -> Tensor:
    """Draw values; the official name is the seed."""
    random = torch.Generator().manual_seed(crc32(key.encode()))
    values = torch.randn(shape, generator=random, dtype=torch.float64) * 0.3
    if "norm" in key and key.endswith("weight"):
        return values + 1.0
    return values


def list_norm_shapes(key: str, width: int) -> Shapes:
    return {f"{key}.weight": (width,), f"{key}.bias": (width,)}


def list_linear_shapes(key: str, out_dim: int, in_dim: int) -> Shapes:
    return {f"{key}.weight": (out_dim, in_dim), f"{key}.bias": (out_dim,)}


def list_block_shapes(key: str, width: int, heads: int) -> Shapes:
    shapes = list_norm_shapes(f"{key}.norm1", width) | list_norm_shapes(f"{key}.norm2", width)
    for name, output, inputs in LINEARS:
        shapes |= list_linear_shapes(f"{key}.{name}", output * width, inputs * width)
    shapes[f"{key}.attn.relative_position_bias_table"] = ((2 * WINDOW - 1) ** 2, heads)
    return shapes


def draw_official_state() -> dict[str, Tensor]:
    """Return a tiny checkpoint with the official names."""
    shapes: Shapes = {
        "linear_fuse.weight": (DIM, 4 * DIM, 1, 1),
        "backbone.0.0.0.weight": (WIDTHS[0], 3, 4, 4),
        "backbone.0.0.0.bias": (WIDTHS[0],),
    }
    shapes |= list_norm_shapes("backbone.1", WIDTHS[-1]) | list_norm_shapes("backbone.0.0.2", WIDTHS[0])
    for stage, (width, depth, heads) in enumerate(zip(WIDTHS, DEPTHS, HEADS, strict=True)):
        shapes |= list_linear_shapes(f"linear_c.{stage}.proj", DIM, width)
        for block in range(depth):
            shapes |= list_block_shapes(f"backbone.0.{2 * stage + 1}.{block}", width, heads)
        if stage < 3:
            shapes |= list_norm_shapes(f"backbone.0.{2 * stage + 2}.norm", 4 * width)
            shapes[f"backbone.0.{2 * stage + 2}.reduction.weight"] = (2 * width, 4 * width)
    return {key: draw_tensor(key, shape) for key, shape in shapes.items()}


def norm(x: Tensor, state: State, key: str, eps: float) -> Tensor:
    centered = x - x.mean(-1, keepdim=True)
    scaled = centered / (centered.square().mean(-1, keepdim=True) + eps).sqrt()
    return scaled * state[f"{key}.weight"] + state[f"{key}.bias"]


def linear(x: Tensor, state: State, key: str) -> Tensor:
    return x @ state[f"{key}.weight"].T + state[f"{key}.bias"]


def window_offsets(height: int, width: int, shift: int) -> tuple[int, int]:
    """Return the shift along rows and columns; torchvision does not shift an axis of a single window."""
    offsets = [shift if side > WINDOW else 0 for side in (height, width)]
    return offsets[0], offsets[1]


def attention(x: Tensor, state: State, key: str, heads: int, shift: int) -> Tensor:
    """Attend within the windows of a map ``[H W C]``, window by window and head by head.

    A window at the edge contains zero padding, which takes part in the attention. A shifted window that reaches over
    the far edge continues at the near edge, but a query attends only to keys on its own side of that edge.
    """
    height, width = (-(-side // WINDOW) * WINDOW for side in x.shape[:2])
    padded = F.pad(x, (0, 0, 0, width - x.shape[1], 0, height - x.shape[0]))
    q, k, v = linear(padded, state, f"{key}.qkv").chunk(3, -1)
    table, offsets = state[f"{key}.relative_position_bias_table"], torch.arange(WINDOW)
    down, right = window_offsets(height, width, shift)
    output = torch.zeros_like(padded)
    for top in range(down, height + down, WINDOW):
        for left in range(right, width + right, WINDOW):
            row, column = (grid.flatten() for grid in torch.meshgrid(top + offsets, left + offsets, indexing="ij"))
            distance = (row[:, None] - row + WINDOW - 1) * (2 * WINDOW - 1) + column[:, None] - column + WINDOW - 1
            same_side = (row >= height)[:, None] == (row >= height)
            same_side &= (column >= width)[:, None] == (column >= width)
            row, column = row % height, column % width
            for head, channels in enumerate(torch.arange(x.shape[2]).chunk(heads)):
                query, keys, values = (part[row, column][:, channels] for part in (q, k, v))
                scores = query @ keys.T / len(channels) ** 0.5 + table[distance, head]
                # torchvision subtracts a hundred instead of infinity
                weights = (scores - 100.0 * ~same_side).softmax(-1)
                output[row[:, None], column[:, None], channels] = weights @ values
    return linear(output, state, f"{key}.proj")[: x.shape[0], : x.shape[1]]


def merge_patches(x: Tensor, state: State, key: str, eps: float) -> Tensor:
    """Halve a map ``[H W C]`` to ``[H/2 W/2 2C]``."""
    x = F.pad(x, (0, 0, 0, x.shape[1] % 2, 0, x.shape[0] % 2))
    x = torch.cat([x[0::2, 0::2], x[1::2, 0::2], x[0::2, 1::2], x[1::2, 1::2]], -1)
    return norm(x, state, f"{key}.norm", eps) @ state[f"{key}.reduction.weight"].T


def compute_reference(
    frame: Tensor,
    state: State,
    eps: float = 1e-5,
    align_corners: bool = False,
    order: tuple[int, ...] = (3, 2, 1, 0),
    final_norm: bool = False,
    shifts: bool = True,
) -> tuple[Tensor, list[Tensor]]:
    """Encode a frame: ``[3 S S]`` uint8 -> fused tokens ``[N D]`` and the maps of the stages ``[H W C]``."""
    mean, deviation = torch.tensor(COLORS, dtype=torch.float64)[..., None, None]
    pixels = (frame.double() / 255 - mean) / deviation
    x = F.conv2d(pixels[None], state["backbone.0.0.0.weight"], state["backbone.0.0.0.bias"], stride=4)[0]
    x = norm(x.permute(1, 2, 0), state, "backbone.0.0.2", eps)
    levels = []
    for stage, (depth, heads) in enumerate(zip(DEPTHS, HEADS, strict=True)):
        if stage:
            x = merge_patches(x, state, f"backbone.0.{2 * stage}", eps)
        for block in range(depth):
            key, shift = f"backbone.0.{2 * stage + 1}.{block}", WINDOW // 2 * (block % 2) * shifts
            x = x + attention(norm(x, state, f"{key}.norm1", eps), state, f"{key}.attn", heads, shift)
            hidden = F.gelu(linear(norm(x, state, f"{key}.norm2", eps), state, f"{key}.mlp.0"))
            x = x + linear(hidden, state, f"{key}.mlp.3")
        levels.append(x)
    if final_norm:
        levels[-1] = norm(levels[-1], state, "backbone.1", eps)
    maps = []
    for stage, level in enumerate(levels):
        projected = linear(level, state, f"linear_c.{stage}.proj").permute(2, 0, 1)[None]
        side = levels[0].shape[:2]
        maps.append(F.interpolate(projected, side, mode="bilinear", align_corners=align_corners)[0])
    stacked = torch.cat([maps[stage] for stage in order])
    fused = torch.einsum("oi,ihw->hwo", state["linear_fuse.weight"][..., 0, 0], stacked)
    return fused.flatten(0, 1), levels


@pytest.fixture(scope="module")
def frame() -> Tensor:
    return torch.randint(0, 256, (3, SIDE, SIDE), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)


@pytest.fixture(scope="module")
def features(frame: Tensor) -> Features:
    encoder = FaceXFormer(image_size=SIDE, embed_dim=WIDTHS[0], depths=DEPTHS, num_heads=HEADS, dim=DIM).double()
    state, _ = convert_state(draw_official_state())
    assert not encoder.load_state_dict(state, strict=False).unexpected_keys
    with torch.no_grad():
        return encoder(Signal(frame[None, None], torch.ones(1, 1, dtype=torch.bool)))


def max_difference(x: Tensor, y: Tensor) -> float:
    return float((x - y).abs().max())


@pytest.mark.parametrize(
    "changes",
    [{}, {"order": (0, 1, 2, 3)}, {"eps": 1e-6}, {"final_norm": True}, {"align_corners": True}, {"shifts": False}],
    ids=str,
)
def test_fused_tokens_equal_only_the_unmodified_reference(
    features: Features, frame: Tensor, changes: dict[str, object]
) -> None:
    tokens, _ = compute_reference(frame, draw_official_state(), **changes)  # type: ignore[arg-type]
    difference = max_difference(features.tokens[0, 0], tokens)
    assert (difference < ATOL) == (not changes), difference


@pytest.mark.parametrize("changes", [{}, {"eps": 1e-6}, {"shifts": False}, {"final_norm": True}], ids=str)
def test_levels_equal_only_the_unmodified_reference(
    features: Features, frame: Tensor, changes: dict[str, object]
) -> None:
    _, expected = compute_reference(frame, draw_official_state(), **changes)  # type: ignore[arg-type]
    assert [level.grid for level in features.levels] == [tuple(level.shape[:2]) for level in expected]
    differences = []
    for level, stage in zip(features.levels, expected, strict=True):
        differences.append(max_difference(level.tokens[0, 0], stage.flatten(0, 1)))
    assert (max(differences) < ATOL) == (not changes), differences
