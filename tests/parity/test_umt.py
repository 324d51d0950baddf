"""Our UMT, from an official file, against a plain restatement of VideoChat2's, and against what must not equal it."""

import math
import zlib
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from omnihuman.encoder.umt import UMT
from omnihuman.types import Signal

DIM, HEADS, HIDDEN, BLOCKS, PATCH, SIDE = 32, 4, 48, 3, 4, 4
COLORS = {
    "imagenet": ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
    "clip": ([0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711]),
}
ATOL = 1e-7

State = dict[str, Tensor]


def official() -> State:
    """A checkpoint of three blocks, of which two are read; each tensor drawn from its own name."""
    shapes: dict[str, tuple[int, ...]] = {"patch_embed.proj.weight": (DIM, 3, 1, PATCH, PATCH),
                                          "patch_embed.proj.bias": (DIM,)}  # fmt: skip
    for block in range(BLOCKS):
        inside = {
            "norm1": (DIM,), "norm2": (DIM,), "attn.proj": (DIM, DIM),
            "mlp.fc1": (HIDDEN, DIM), "mlp.fc2": (DIM, HIDDEN),
        }  # fmt: skip
        shapes |= {f"blocks.{block}.{name}.weight": shape for name, shape in inside.items()}
        shapes |= {f"blocks.{block}.{name}.bias": shape[:1] for name, shape in inside.items()}
        shapes |= {f"blocks.{block}.attn.{name}": (DIM,) for name in ("q_bias", "v_bias")}
        shapes[f"blocks.{block}.attn.qkv.weight"] = (3 * DIM, DIM)
    shapes |= {f"norm.{kind}": (DIM,) for kind in ("weight", "bias")}
    named = {f"vision_encoder.encoder.{name}": shape for name, shape in shapes.items()}
    named |= {f"vision_layernorm.{kind}": (DIM,) for kind in ("weight", "bias")}
    state = {}
    for name, shape in named.items():
        drawn = torch.randn(shape, generator=torch.Generator().manual_seed(zlib.crc32(name.encode())))
        state[name] = 0.3 * drawn + float("norm" in name and name.endswith("weight"))
    return state


def table(
    frames: int, side: int, interleaved: bool = True, order: str = "frame", time: str = "linear",
    space: str = "bicubic", corners: bool | None = False, made_for: int | None = None,
) -> Tensor:  # fmt: skip
    """Positions of a clip ``[T*N D]``."""
    made_for = made_for or (1 if frames == 1 else 4)
    rows = []
    for place in range(made_for * SIDE**2):
        angles = [place / 10000 ** (2 * (column // 2) / DIM) for column in range(DIM)]
        if interleaved:
            rows.append([math.cos(x) if column % 2 else math.sin(x) for column, x in enumerate(angles)])
        else:
            rows.append([math.sin(x) for x in angles[::2]] + [math.cos(x) for x in angles[::2]])
    made = torch.tensor(rows, dtype=torch.float64).float()
    if order == "space":
        made = made.unflatten(0, (SIDE**2, made_for)).transpose(0, 1).flatten(0, 1)
    made = made.reshape(made_for, SIDE, SIDE, DIM)
    if side != SIDE:
        made = F.interpolate(made.permute(0, 3, 1, 2), (side, side), mode=space).permute(0, 2, 3, 1)
    if frames != made_for:
        lines = made.permute(1, 2, 3, 0).reshape(side**2, DIM, made_for)
        lines = F.interpolate(lines, frames, mode=time, align_corners=corners if time == "linear" else None)
        made = lines.permute(2, 0, 1)
    return made.reshape(frames * side**2, DIM)


def restated(
    frames: Tensor, state: State, *, eps: float = 1e-6, last_eps: float = 1e-12, blocks: int = 2, bias: str = "q0v",
    gelu: str = "none", colors: str = "imagenet", joint: bool = True, final_norm: bool = False, **places: Any,
) -> Tensor:  # fmt: skip
    """One clip ``[T 3 S S]`` -> ``[T*N D]``."""
    state = {name.removeprefix("vision_encoder.encoder."): tensor.double() for name, tensor in state.items()}
    mean, deviation = (torch.tensor(values, dtype=torch.float64)[:, None, None] for values in COLORS[colors])
    pixels = ((frames.double() / 255 - mean) / deviation).transpose(0, 1)[None]
    maps = F.conv3d(pixels, state["patch_embed.proj.weight"], state["patch_embed.proj.bias"], stride=(1, PATCH, PATCH))
    x = maps.flatten(2).transpose(1, 2)[0]
    x = x + table(len(frames), maps.shape[-1], **places).double()

    def norm(x: Tensor, name: str, eps: float) -> Tensor:
        return F.layer_norm(x, (DIM,), state[f"{name}.weight"], state[f"{name}.bias"], eps)

    def linear(x: Tensor, name: str) -> Tensor:
        return F.linear(x, state[f"{name}.weight"], state[f"{name}.bias"])

    for block in (f"blocks.{number}" for number in range(blocks)):
        biases = {kind: state[f"{block}.attn.{kind}_bias"] for kind in "qv"} | {"0": torch.zeros(DIM)}
        y = norm(x, f"{block}.norm1", eps)
        y = F.linear(y, state[f"{block}.attn.qkv.weight"], torch.cat([biases[kind] for kind in bias]))
        q, k, v = y.reshape(-1, 3, HEADS, DIM // HEADS).permute(1, 2, 0, 3)
        scores = q @ k.transpose(1, 2) * (DIM // HEADS) ** -0.5
        if not joint:
            moment = torch.arange(len(x)) // (len(x) // len(frames))
            scores = scores.masked_fill(moment[:, None] != moment, -torch.inf)
        x = x + linear((scores.softmax(-1) @ v).transpose(0, 1).flatten(1), f"{block}.attn.proj")
        y = F.gelu(linear(norm(x, f"{block}.norm2", eps), f"{block}.mlp.fc1"), approximate=gelu)
        x = x + linear(y, f"{block}.mlp.fc2")
    if final_norm:
        x = norm(x, "norm", eps)
    return norm(x, "vision_layernorm", last_eps)


def clip(frames: int, side: int = SIDE) -> Tensor:
    random = torch.Generator().manual_seed(frames)
    return torch.randint(0, 256, (frames, 3, PATCH * side, PATCH * side), dtype=torch.uint8, generator=random)


def ours(state: State, folder: Path, side: int = SIDE) -> UMT:
    torch.save({"model": state}, folder / "official.pth")
    made = UMT(
        weights=str(folder / "official.pth"), image_size=PATCH * side, patch_size=PATCH, hidden_size=DIM,
        intermediate_size=HIDDEN, num_hidden_layers=BLOCKS, num_attention_heads=HEADS, table_side=SIDE,
    )  # fmt: skip
    return made.eval().double()


@torch.no_grad()
def apart(encoder: UMT, frames: Tensor, state: State, **wrong: Any) -> float:
    made = encoder(Signal(frames[None], torch.ones(1, len(frames), dtype=torch.bool))).tokens[0]
    return float((made.flatten(0, 1) - restated(frames, state, **wrong)).abs().max())


@pytest.mark.parametrize("side", [SIDE, 6, 3])
@pytest.mark.parametrize("frames", [8, 4, 1, 9, 2])
def test_equals_the_restatement(tmp_path: Path, frames: int, side: int) -> None:
    state = official()
    assert apart(ours(state, tmp_path, side), clip(frames, side), state) < ATOL


@pytest.mark.parametrize(
    ("frames", "side", "wrong"),
    [
        (8, SIDE, {"eps": 1e-5}),
        (8, SIDE, {"blocks": 3}),
        (8, SIDE, {"blocks": 1}),
        (8, SIDE, {"final_norm": True}),
        (8, SIDE, {"bias": "0qv"}),
        (8, SIDE, {"bias": "qv0"}),
        (8, SIDE, {"gelu": "tanh"}),
        (8, SIDE, {"colors": "clip"}),
        (8, SIDE, {"joint": False}),
        (8, SIDE, {"interleaved": False}),
        (8, SIDE, {"order": "space"}),
        (8, SIDE, {"time": "nearest"}),
        (9, SIDE, {"time": "nearest"}),
        (8, SIDE, {"corners": True}),
        (8, SIDE, {"made_for": 8}),
        (1, SIDE, {"made_for": 4}),
        (1, SIDE, {"interleaved": False}),
        (8, 6, {"space": "bilinear"}),
        (1, 6, {"space": "nearest"}),
    ],
    ids=str,
)
def test_what_must_differ(tmp_path: Path, frames: int, side: int, wrong: dict[str, Any]) -> None:
    state = official()
    assert apart(ours(state, tmp_path, side), clip(frames, side), state, **wrong) > 1e-5


def test_a_bias_of_the_keys_would_change_nothing(tmp_path: Path) -> None:
    """Softmax does not see it, which is why UMT has none."""
    state = official()
    assert apart(ours(state, tmp_path), clip(8), state, bias="qqv") < ATOL


def test_the_last_norm_has_an_eps_of_its_own(tmp_path: Path) -> None:
    """Seen where tokens hardly vary: the first of a still, whose position the patches' bias takes away."""
    state = official()
    for name in state:
        if name.startswith("vision_encoder") and name.endswith(("proj.weight", "fc2.weight", ".proj.bias", "fc2.bias")):
            state[name] = state[name] * 1e-3
    state["vision_encoder.encoder.patch_embed.proj.bias"] = -(torch.arange(DIM) % 2).float()
    encoder = ours(state, tmp_path)
    assert apart(encoder, clip(1), state) < ATOL
    assert apart(encoder, clip(1), state, last_eps=1e-6) > 0.01
