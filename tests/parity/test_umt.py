"""UMT from an official file equals a reference implementation of VideoChat2's, and differs from modified ones."""

import math
import zlib
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from omnihuman.encoder.umt import UMT
from omnihuman.official.videochat2.keys import convert_state
from omnihuman.types import Features, Signal

DIM, HEADS, HIDDEN, BLOCKS, PATCH, SIDE = 32, 4, 48, 3, 4, 4
COLORS = {
    "imagenet": ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
    "clip": ([0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711]),
}
ATOL = 1e-7
ENCODER = "vision_encoder.encoder."

State = dict[str, Tensor]
Shapes = dict[str, tuple[int, ...]]


def list_linear_shapes(name: str, out_dim: int, in_dim: int) -> Shapes:
    return {f"{name}.weight": (out_dim, in_dim), f"{name}.bias": (out_dim,)}


def list_norm_shapes(name: str) -> Shapes:
    return {f"{name}.weight": (DIM,), f"{name}.bias": (DIM,)}


def list_official_shapes() -> Shapes:
    shapes: Shapes = {
        f"{ENCODER}patch_embed.proj.weight": (DIM, 3, 1, PATCH, PATCH),
        f"{ENCODER}patch_embed.proj.bias": (DIM,),
    }
    for number in range(BLOCKS):
        block = f"{ENCODER}blocks.{number}"
        shapes |= list_norm_shapes(f"{block}.norm1") | list_norm_shapes(f"{block}.norm2")
        shapes |= list_linear_shapes(f"{block}.attn.proj", DIM, DIM)
        shapes |= list_linear_shapes(f"{block}.mlp.fc1", HIDDEN, DIM) | list_linear_shapes(
            f"{block}.mlp.fc2", DIM, HIDDEN
        )
        shapes |= {f"{block}.attn.q_bias": (DIM,), f"{block}.attn.v_bias": (DIM,)}
        shapes[f"{block}.attn.qkv.weight"] = (3 * DIM, DIM)
    return shapes | list_norm_shapes(f"{ENCODER}norm") | list_norm_shapes("vision_layernorm")


def draw_official_state() -> State:
    """Return a checkpoint of three blocks, of which two are used; the name of a tensor is its seed."""
    state = {}
    for name, shape in list_official_shapes().items():
        values = torch.randn(shape, generator=torch.Generator().manual_seed(zlib.crc32(name.encode())))
        state[name] = 0.3 * values + float("norm" in name and name.endswith("weight"))
    return state


def position_row(patch: int, interleaved: bool) -> list[float]:
    """Return the sines and cosines of one patch."""
    angles = [patch / 10000 ** (2 * (column // 2) / DIM) for column in range(DIM)]
    sines, cosines = [math.sin(x) for x in angles[::2]], [math.cos(x) for x in angles[::2]]
    if not interleaved:
        return sines + cosines
    row = []
    for sine, cosine in zip(sines, cosines, strict=True):
        row += [sine, cosine]
    return row


def position_table(
    frames: int,
    side: int,
    interleaved: bool = True,
    order: str = "frame",
    time: str = "linear",
    space: str = "bicubic",
    corners: bool | None = False,
    table_frames: int | None = None,
) -> Tensor:
    """Return the positions of a clip ``[T*N D]``."""
    if table_frames is None:
        table_frames = 1 if frames == 1 else 4
    rows = [position_row(patch, interleaved) for patch in range(table_frames * SIDE**2)]
    table = torch.tensor(rows, dtype=torch.float64).float()
    if order == "space":
        table = table.unflatten(0, (SIDE**2, table_frames)).transpose(0, 1).flatten(0, 1)
    table = table.reshape(table_frames, SIDE, SIDE, DIM)
    if side != SIDE:
        table = F.interpolate(table.permute(0, 3, 1, 2), (side, side), mode=space).permute(0, 2, 3, 1)
    if frames != table_frames:
        lines = table.permute(1, 2, 3, 0).reshape(side**2, DIM, table_frames)
        if time != "linear":
            corners = None
        table = F.interpolate(lines, frames, mode=time, align_corners=corners).permute(2, 0, 1)
    return table.reshape(frames * side**2, DIM)


def embed_patches(frames: Tensor, state: State, colors: str) -> Tensor:
    """Embed the patches of a clip: ``[T 3 S S]`` -> maps ``[1 D T H W]``."""
    mean, deviation = (torch.tensor(values, dtype=torch.float64)[:, None, None] for values in COLORS[colors])
    pixels = ((frames.double() / 255 - mean) / deviation).transpose(0, 1)[None]
    return F.conv3d(pixels, state["patch_embed.proj.weight"], state["patch_embed.proj.bias"], stride=(1, PATCH, PATCH))


def compute_reference(
    frames: Tensor,
    state: State,
    *,
    eps: float = 1e-6,
    last_eps: float = 1e-12,
    blocks: int = 2,
    bias: str = "q0v",
    gelu: str = "none",
    colors: str = "imagenet",
    joint: bool = True,
    last_norms: tuple[str, ...] = ("vision_layernorm",),
    **position_kwargs: Any,
) -> Tensor:
    """Encode a clip: ``[T 3 S S]`` -> ``[T*N D]``."""
    state = {name.removeprefix(ENCODER): tensor.double() for name, tensor in state.items()}

    def norm(x: Tensor, name: str, eps: float) -> Tensor:
        return F.layer_norm(x, (DIM,), state[f"{name}.weight"], state[f"{name}.bias"], eps)

    def linear(x: Tensor, name: str) -> Tensor:
        return F.linear(x, state[f"{name}.weight"], state[f"{name}.bias"])

    def attend(x: Tensor, name: str) -> Tensor:
        biases = {kind: state[f"{name}.{kind}_bias"] for kind in "qv"} | {"0": torch.zeros(DIM)}
        projected = F.linear(x, state[f"{name}.qkv.weight"], torch.cat([biases[kind] for kind in bias]))
        q, k, v = projected.reshape(-1, 3, HEADS, DIM // HEADS).permute(1, 2, 0, 3)
        scores = q @ k.transpose(1, 2) * (DIM // HEADS) ** -0.5
        if not joint:
            time_step = torch.arange(len(x)) // (len(x) // len(frames))
            scores = scores.masked_fill(time_step[:, None] != time_step, -torch.inf)
        return linear((scores.softmax(-1) @ v).transpose(0, 1).flatten(1), f"{name}.proj")

    maps = embed_patches(frames, state, colors)
    x = maps.flatten(2).transpose(1, 2)[0]
    x = x + position_table(len(frames), maps.shape[-1], **position_kwargs).double()
    for number in range(blocks):
        block = f"blocks.{number}"
        x = x + attend(norm(x, f"{block}.norm1", eps), f"{block}.attn")
        hidden = F.gelu(linear(norm(x, f"{block}.norm2", eps), f"{block}.mlp.fc1"), approximate=gelu)
        x = x + linear(hidden, f"{block}.mlp.fc2")
    for name in last_norms:
        x = norm(x, name, last_eps if name == "vision_layernorm" else eps)
    return x


def draw_clip(frames: int, side: int = SIDE) -> Tensor:
    random = torch.Generator().manual_seed(frames)
    return torch.randint(0, 256, (frames, 3, PATCH * side, PATCH * side), dtype=torch.uint8, generator=random)


def load_umt(state: State, side: int = SIDE, levels: int = 0) -> UMT:
    """Load the encoder from an official state dict."""
    encoder = UMT(
        image_size=PATCH * side,
        patch_size=PATCH,
        hidden_size=DIM,
        intermediate_size=HIDDEN,
        num_hidden_layers=BLOCKS,
        num_attention_heads=HEADS,
        table_side=SIDE,
        levels=levels,
    )
    names, _ = convert_state(state, num_blocks=BLOCKS - 1)
    encoder.load_state_dict({name.removeprefix("encoders.video."): tensor for name, tensor in names.items()})
    return encoder.eval().double()


@torch.no_grad()
def encode(encoder: UMT, frames: Tensor) -> Features:
    features: Features = encoder(Signal(frames[None], torch.ones(1, len(frames), dtype=torch.bool)))
    return features


def max_difference(features: Features, expected: Tensor) -> float:
    return float((features.tokens[0].flatten(0, 1) - expected).abs().max())


@pytest.mark.parametrize("side", [SIDE, 6, 3])
@pytest.mark.parametrize("frames", [8, 4, 1, 9, 2])
def test_tokens_equal_the_reference(frames: int, side: int) -> None:
    state, clip = draw_official_state(), draw_clip(frames, side)
    features = encode(load_umt(state, side), clip)
    assert max_difference(features, compute_reference(clip, state)) < ATOL


def test_levels_equal_the_reference_with_fewer_blocks() -> None:
    state, clip = draw_official_state(), draw_clip(8)
    features = encode(load_umt(state, levels=2), clip)
    for blocks, level in enumerate(features.levels, start=1):
        assert max_difference(level, compute_reference(clip, state, blocks=blocks, last_norms=())) < ATOL


@pytest.mark.parametrize(
    ("frames", "side", "changes"),
    [
        (8, SIDE, {"eps": 1e-5}),
        (8, SIDE, {"blocks": 3}),
        (8, SIDE, {"blocks": 1}),
        (8, SIDE, {"last_norms": ("norm", "vision_layernorm")}),
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
        (8, SIDE, {"table_frames": 8}),
        (1, SIDE, {"table_frames": 4}),
        (1, SIDE, {"interleaved": False}),
        (8, 6, {"space": "bilinear"}),
        (1, 6, {"space": "nearest"}),
    ],
    ids=str,
)
def test_modified_reference_differs(frames: int, side: int, changes: dict[str, Any]) -> None:
    state, clip = draw_official_state(), draw_clip(frames, side)
    features = encode(load_umt(state, side), clip)
    assert max_difference(features, compute_reference(clip, state, **changes)) > 1e-5


def test_key_bias_has_no_effect() -> None:
    """Softmax is invariant to it, which is why UMT has none."""
    state, clip = draw_official_state(), draw_clip(8)
    assert max_difference(encode(load_umt(state), clip), compute_reference(clip, state, bias="qqv")) < ATOL


def test_vision_layernorm_has_its_own_eps() -> None:
    """Visible where tokens hardly vary: in a still whose first position the bias of the patches cancels."""
    state, clip = draw_official_state(), draw_clip(1)
    for name in state:
        if name.startswith(ENCODER) and name.endswith(("proj.weight", "fc2.weight", ".proj.bias", "fc2.bias")):
            state[name] = state[name] * 1e-3
    state[f"{ENCODER}patch_embed.proj.bias"] = -(torch.arange(DIM) % 2).float()
    features = encode(load_umt(state), clip)
    assert max_difference(features, compute_reference(clip, state)) < ATOL
    assert max_difference(features, compute_reference(clip, state, last_eps=1e-6)) > 0.01
