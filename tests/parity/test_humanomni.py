"""STC, face branch and gate equal a reference implementation, and differ from modified references."""

from collections.abc import Mapping

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from omnihuman.fusion.gate import InstructionGate
from omnihuman.projector.mlp import MLPProjector
from omnihuman.projector.stc import STCProjector
from omnihuman.types import Features

IN_DIM, DIM, TEXT_DIM, GRID, FRAMES = 12, 16, 10, 7, 5
ATOL = 1e-5

State = Mapping[str, Tensor]
Parts = tuple[STCProjector, MLPProjector, InstructionGate]


def norm(x: Tensor, state: State, key: str, eps: float) -> Tensor:
    """LayerNorm over the channels of a map."""
    centered = x - x.mean(1, keepdim=True)
    scaled = centered / (centered.square().mean(1, keepdim=True) + eps).sqrt()
    return scaled * state[f"{key}.weight"][:, None, None] + state[f"{key}.bias"][:, None, None]


def linear(x: Tensor, state: State, key: str) -> Tensor:
    return F.linear(x, state[f"{key}.weight"], state[f"{key}.bias"])


def mlp(x: Tensor, state: State, key: str, gelu: str) -> Tensor:
    """Linear, GELU, Linear."""
    return linear(F.gelu(linear(x, state, f"{key}.0"), approximate=gelu), state, f"{key}.2")


def bottleneck(x: Tensor, state: State, key: str, eps: float) -> Tensor:
    """1x1, depthwise 3x3, squeeze-excite, 1x1, shortcut."""

    def conv(x: Tensor, name: str) -> Tensor:
        weight = state[f"{key}.{name}.conv.weight"]
        groups = len(weight) if name == "conv2" else 1
        return norm(F.conv2d(x, weight, padding=weight.shape[-1] // 2, groups=groups), state, f"{key}.{name}.bn", eps)

    def pointwise(x: Tensor, name: str) -> Tensor:
        return F.conv2d(x, state[f"{key}.se.{name}.weight"], state[f"{key}.se.{name}.bias"])

    y = F.silu(conv(F.silu(conv(x, "conv1")), "conv2"))
    y = conv(y * pointwise(F.silu(pointwise(y.mean((2, 3), keepdim=True), "fc1")), "fc2").sigmoid(), "conv3")
    if f"{key}.downsample.conv.weight" in state:
        x = conv(x, "downsample")
    return F.silu(y + x)


def stc(
    x: Tensor, state: State, depth: int, eps: float = 1e-5, gelu: str = "none", cut: slice = slice(None, -1)
) -> Tensor:
    """Encode a video: ``[T N D]`` -> ``[T N' D']``."""
    maps = x.unflatten(1, (GRID, GRID)).permute(0, 3, 1, 2)
    for block in range(1, depth + 1):
        maps = bottleneck(maps, state, f"s1.b{block}", eps)
    weight, bias = state["sampler.0.weight"], state["sampler.0.bias"]
    volume = F.silu(F.conv3d(maps.transpose(0, 1)[None], weight, bias, stride=(1, 2, 2), padding=1))
    maps = volume[0, :, cut].transpose(0, 1)
    for block in range(1, depth + 1):
        maps = bottleneck(maps, state, f"s2.b{block}", eps)
    return mlp(maps.flatten(2).transpose(1, 2), state, "readout", gelu)


def face(x: Tensor, state: State, gelu: str = "none", align_corners: bool = False, antialias: bool = False) -> Tensor:
    """Apply the face branch, which is resized after its last Linear, as in the official code."""
    maps = mlp(x, state, "layers", gelu).unflatten(1, (GRID, GRID)).permute(0, 3, 1, 2)
    half = -(-GRID // 2)
    maps = F.interpolate(maps, (half, half), mode="bilinear", align_corners=align_corners, antialias=antialias)
    return maps.flatten(2).transpose(1, 2)


def gate(
    streams: list[Tensor],
    instruction: Tensor,
    state: State,
    gelu: str = "none",
    softmax: bool = True,
    order: str = "012",
) -> Tensor:
    """Sum the weighted streams of one sample."""
    weights = mlp(instruction, state, "layers", gelu)
    if softmax:
        weights = weights.softmax(-1)
    total = torch.zeros(())
    for index, stream in zip(order, streams, strict=True):
        total = total + weights[int(index)] * stream
    return total


def randomize(part: nn.Module) -> None:
    """Draw weights that make every detail visible: norms that scale and shift, maps of small variance."""
    for name, parameter in part.named_parameters():
        mean = 1.0 if name.endswith("bn.weight") else 0.0
        nn.init.normal_(parameter, mean=mean, std=0.3)


@pytest.fixture(scope="module")
def parts() -> Parts:
    torch.manual_seed(0)
    stc_part = STCProjector(IN_DIM, DIM, depth=2)
    face_part = MLPProjector(IN_DIM, DIM, resize="ceil_half")
    dims = dict.fromkeys("abc", DIM) | {"instruction": TEXT_DIM}
    gate_part = InstructionGate(dims, "abc", "video", "instruction", hidden=24)
    for part in (stc_part, face_part, gate_part):
        randomize(part)
    return stc_part.double(), face_part.double(), gate_part.double()


@pytest.fixture(scope="module")
def video() -> Tensor:
    return torch.randn(FRAMES, GRID * GRID, IN_DIM, generator=torch.Generator().manual_seed(1)).double() * 0.5


def as_features(tokens: Tensor, grid: int) -> Features:
    return Features.of(tokens[None], torch.ones(1, len(tokens), dtype=torch.bool), (grid, grid))


def max_difference(x: Tensor, y: Tensor) -> float:
    return float((x - y).abs().max())


@torch.no_grad()
@pytest.mark.parametrize("changes", [{}, {"eps": 1e-6}, {"gelu": "tanh"}, {"cut": slice(1, None)}], ids=str)
def test_stc_equals_only_the_unmodified_reference(parts: Parts, video: Tensor, changes: dict[str, object]) -> None:
    tokens = parts[0](as_features(video, GRID)).tokens[0]
    difference = max_difference(tokens, stc(video, parts[0].state_dict(), depth=2, **changes))  # type: ignore[arg-type]
    assert (difference < ATOL) == (not changes), difference


@torch.no_grad()
@pytest.mark.parametrize("changes", [{}, {"gelu": "tanh"}, {"align_corners": True}, {"antialias": True}], ids=str)
def test_face_equals_only_the_unmodified_reference(parts: Parts, video: Tensor, changes: dict[str, object]) -> None:
    tokens = parts[1](as_features(video, GRID)).tokens[0]
    difference = max_difference(tokens, face(video, parts[1].state_dict(), **changes))  # type: ignore[arg-type]
    assert (difference < ATOL) == (not changes), difference


@torch.no_grad()
@pytest.mark.parametrize("changes", [{}, {"gelu": "tanh"}, {"softmax": False}, {"order": "210"}], ids=str)
def test_gate_equals_only_the_unmodified_reference(parts: Parts, changes: dict[str, object]) -> None:
    random = torch.Generator().manual_seed(2)
    streams = torch.randn(3, FRAMES, 16, DIM, generator=random).double()
    instruction = torch.randn(TEXT_DIM, generator=random).double()
    inputs = {name: as_features(stream, 4) for name, stream in zip("abc", streams, strict=True)}
    inputs["instruction"] = Features.of(instruction[None, None, None], torch.ones(1, 1, dtype=torch.bool))
    tokens = parts[2](inputs)["video"].tokens[0]
    expected = gate(list(streams), instruction, parts[2].state_dict(), **changes)  # type: ignore[arg-type]
    difference = max_difference(tokens, expected)
    assert (difference < ATOL) == (not changes), difference
