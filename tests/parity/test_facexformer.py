"""Our FaceXFormer encoder against a plain restatement of the official one, and against what must not equal it."""

from collections.abc import Mapping
from zlib import crc32

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from omnihuman.convert.facexformer import from_official
from omnihuman.encoder.facexformer import FaceXFormer
from omnihuman.types import Features, Signal

WIDTHS, DEPTHS, HEADS, WINDOW, DIM = (8, 16, 32, 64), (2, 2, 3, 1), (1, 2, 2, 4), 7, 12
SIDE = 84
"""Grids of 21, 11, 6, 3: some are padded to whole windows, some to be merged; the last two are less than a window."""
COLORS = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
ATOL = 1e-9

State = Mapping[str, Tensor]


def seeded(key: str, *shape: int) -> Tensor:
    """Values that depend on the official name alone."""
    values = torch.randn(shape, generator=torch.Generator().manual_seed(crc32(key.encode())), dtype=torch.float64)
    return values * 0.3 + (1.0 if "norm" in key and key.endswith("weight") else 0.0)


def official() -> dict[str, Tensor]:
    """A checkpoint at tiny size under the official names."""
    norms = ("weight", "bias")
    shapes: dict[str, tuple[int, ...]] = {"linear_fuse.weight": (DIM, 4 * DIM, 1, 1)}
    shapes |= {f"backbone.1.{kind}": (WIDTHS[-1],) for kind in norms}
    shapes |= {"backbone.0.0.0.weight": (WIDTHS[0], 3, 4, 4), "backbone.0.0.0.bias": (WIDTHS[0],)}
    shapes |= {f"backbone.0.0.2.{kind}": (WIDTHS[0],) for kind in norms}
    for stage, (width, depth, heads) in enumerate(zip(WIDTHS, DEPTHS, HEADS, strict=True)):
        shapes |= {f"linear_c.{stage}.proj.weight": (DIM, width), f"linear_c.{stage}.proj.bias": (DIM,)}
        for block in range(depth):
            key = f"backbone.0.{2 * stage + 1}.{block}"
            shapes |= {f"{key}.{norm}.{kind}": (width,) for norm in ("norm1", "norm2") for kind in norms}
            for name, out, into in (("attn.qkv", 3, 1), ("attn.proj", 1, 1), ("mlp.0", 4, 1), ("mlp.3", 1, 4)):
                shapes |= {f"{key}.{name}.weight": (out * width, into * width), f"{key}.{name}.bias": (out * width,)}
            shapes[f"{key}.attn.relative_position_bias_table"] = ((2 * WINDOW - 1) ** 2, heads)
        if stage < 3:
            shapes |= {f"backbone.0.{2 * stage + 2}.norm.{kind}": (4 * width,) for kind in norms}
            shapes[f"backbone.0.{2 * stage + 2}.reduction.weight"] = (2 * width, 4 * width)
    return {key: seeded(key, *shape) for key, shape in shapes.items()}


def norm(x: Tensor, state: State, key: str, eps: float) -> Tensor:
    centred = x - x.mean(-1, keepdim=True)
    scaled = centred / (centred.square().mean(-1, keepdim=True) + eps).sqrt()
    return scaled * state[f"{key}.weight"] + state[f"{key}.bias"]


def dense(x: Tensor, state: State, key: str) -> Tensor:
    return x @ state[f"{key}.weight"].T + state[f"{key}.bias"]


def attention(x: Tensor, state: State, key: str, heads: int, shift: int) -> Tensor:
    """A map ``[H W C]``, one query after the other: each place attends to its window, of which a shift cuts parts off.

    A window may reach over the edge, where zeros stand that are attended to as well; a shifted one that reaches over
    the far edge goes on at the near one, but attends only to what lies on the same side of that edge as the query.
    """
    high, wide = (-(-side // WINDOW) * WINDOW for side in x.shape[:2])
    padded = F.pad(x, (0, 0, 0, wide - x.shape[1], 0, high - x.shape[0]))
    q, k, v = dense(padded, state, f"{key}.qkv").chunk(3, -1)
    table, places = state[f"{key}.relative_position_bias_table"], torch.arange(WINDOW)
    down, right = (shift if side > WINDOW else 0 for side in (high, wide))
    made = torch.zeros_like(padded)
    for top in range(down, high + down, WINDOW):
        for left in range(right, wide + right, WINDOW):
            row, column = (grid.flatten() for grid in torch.meshgrid(top + places, left + places, indexing="ij"))
            apart = (row[:, None] - row + WINDOW - 1) * (2 * WINDOW - 1) + column[:, None] - column + WINDOW - 1
            same = ((row >= high)[:, None] == (row >= high)) & ((column >= wide)[:, None] == (column >= wide))
            row, column = row % high, column % wide
            for head, some in enumerate(torch.arange(x.shape[2]).chunk(heads)):
                query, keys, values = (part[row, column][:, some] for part in (q, k, v))
                scores = query @ keys.T / len(some) ** 0.5 + table[apart, head]
                # torchvision's own minus a hundred, not minus infinity
                made[row[:, None], column[:, None], some] = (scores - 100.0 * ~same).softmax(-1) @ values
    return dense(made, state, f"{key}.proj")[: x.shape[0], : x.shape[1]]


def restated(
    picture: Tensor,
    state: State,
    eps: float = 1e-5,
    align_corners: bool = False,
    order: tuple[int, ...] = (3, 2, 1, 0),
    normed: bool = False,
    shifts: bool = True,
) -> tuple[Tensor, list[Tensor]]:
    """One frame ``[3 S S]`` uint8 -> fused tokens ``[N D]`` and the maps of the stages ``[H W C]``."""
    mean, deviation = torch.tensor(COLORS, dtype=torch.float64)[..., None, None]
    pixels = (picture.double() / 255 - mean) / deviation
    x = F.conv2d(pixels[None], state["backbone.0.0.0.weight"], state["backbone.0.0.0.bias"], stride=4)[0]
    x = norm(x.permute(1, 2, 0), state, "backbone.0.0.2", eps)
    levels = []
    for stage, (depth, heads) in enumerate(zip(DEPTHS, HEADS, strict=True)):
        if stage:
            x = F.pad(x, (0, 0, 0, x.shape[1] % 2, 0, x.shape[0] % 2))
            x = torch.cat([x[0::2, 0::2], x[1::2, 0::2], x[0::2, 1::2], x[1::2, 1::2]], -1)
            x = norm(x, state, f"backbone.0.{2 * stage}.norm", eps)
            x = x @ state[f"backbone.0.{2 * stage}.reduction.weight"].T
        for block in range(depth):
            key, shift = f"backbone.0.{2 * stage + 1}.{block}", WINDOW // 2 * (block % 2) * shifts
            x = x + attention(norm(x, state, f"{key}.norm1", eps), state, f"{key}.attn", heads, shift)
            y = F.gelu(dense(norm(x, state, f"{key}.norm2", eps), state, f"{key}.mlp.0"))
            x = x + dense(y, state, f"{key}.mlp.3")
        levels.append(x)
    if normed:
        levels[-1] = norm(levels[-1], state, "backbone.1", eps)
    maps = [dense(level, state, f"linear_c.{stage}.proj").permute(2, 0, 1)[None] for stage, level in enumerate(levels)]
    side = levels[0].shape[:2]
    maps = [F.interpolate(each, side, mode="bilinear", align_corners=align_corners)[0] for each in maps]
    fused = torch.einsum("oi,ihw->hwo", state["linear_fuse.weight"][..., 0, 0], torch.cat([maps[k] for k in order]))
    return fused.flatten(0, 1), levels


@pytest.fixture(scope="module")
def picture() -> Tensor:
    return torch.randint(0, 256, (3, SIDE, SIDE), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)


@pytest.fixture(scope="module")
def made(picture: Tensor) -> Features:
    encoder = FaceXFormer(image_size=SIDE, embed_dim=WIDTHS[0], depths=DEPTHS, num_heads=HEADS, dim=DIM).double()
    ours, _ = from_official(official())
    assert not encoder.load_state_dict(ours, strict=False).unexpected_keys
    with torch.no_grad():
        return encoder(Signal(picture[None, None], torch.ones(1, 1, dtype=torch.bool)))


def apart(made: Tensor, other: Tensor) -> float:
    return float((made - other).abs().max())


@pytest.mark.parametrize(
    "wrong",
    [{}, {"order": (0, 1, 2, 3)}, {"eps": 1e-6}, {"normed": True}, {"align_corners": True}, {"shifts": False}],
    ids=str,
)
def test_fused_tokens(made: Features, picture: Tensor, wrong: dict[str, object]) -> None:
    tokens, _ = restated(picture, official(), **wrong)  # type: ignore[arg-type]
    difference = apart(made.tokens[0, 0], tokens)
    assert (difference < ATOL) == (not wrong), difference


@pytest.mark.parametrize("wrong", [{}, {"eps": 1e-6}, {"shifts": False}, {"normed": True}], ids=str)
def test_levels(made: Features, picture: Tensor, wrong: dict[str, object]) -> None:
    _, levels = restated(picture, official(), **wrong)  # type: ignore[arg-type]
    assert [level.grid for level in made.levels] == [tuple(level.shape[:2]) for level in levels]
    difference = max(
        apart(ours.tokens[0, 0], theirs.flatten(0, 1)) for ours, theirs in zip(made.levels, levels, strict=True)
    )
    assert (difference < ATOL) == (not wrong), difference
