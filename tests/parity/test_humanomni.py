"""Our STC, pooling and gate against a plain restatement of the official ones, and against what must not equal it."""

from collections.abc import Mapping

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from omnihuman.fusion.gate import InstructionGate
from omnihuman.projector.mlp import MLPProjector
from omnihuman.projector.stc import STCProjector
from omnihuman.types import Features

IN_DIM, DIM, WORDS, GRID, FRAMES = 12, 16, 10, 7, 5
ATOL = 1e-5

State = Mapping[str, Tensor]


def norm(x: Tensor, state: State, key: str, eps: float) -> Tensor:
    """LayerNorm over the channels of a map."""
    centred = x - x.mean(1, keepdim=True)
    scaled = centred / (centred.square().mean(1, keepdim=True) + eps).sqrt()
    return scaled * state[f"{key}.weight"][:, None, None] + state[f"{key}.bias"][:, None, None]


def bottleneck(x: Tensor, state: State, key: str, eps: float) -> Tensor:
    """1x1, depthwise 3x3, squeeze-excite, 1x1, shortcut."""

    def conv(x: Tensor, name: str) -> Tensor:
        weight = state[f"{key}.{name}.conv.weight"]
        groups = len(weight) if name == "conv2" else 1
        return norm(F.conv2d(x, weight, padding=weight.shape[-1] // 2, groups=groups), state, f"{key}.{name}.bn", eps)

    def dense(x: Tensor, name: str) -> Tensor:
        return F.conv2d(x, state[f"{key}.se.{name}.weight"], state[f"{key}.se.{name}.bias"])

    y = F.silu(conv(F.silu(conv(x, "conv1")), "conv2"))
    y = conv(y * dense(F.silu(dense(y.mean((2, 3), keepdim=True), "fc1")), "fc2").sigmoid(), "conv3")
    return F.silu(y + (conv(x, "downsample") if f"{key}.downsample.conv.weight" in state else x))


def stc(
    x: Tensor, state: State, depth: int, eps: float = 1e-5, gelu: str = "none", cut: slice = slice(None, -1)
) -> Tensor:
    """One video ``[T N D]`` -> ``[T N' D']``."""
    maps = x.unflatten(1, (GRID, GRID)).permute(0, 3, 1, 2)
    for block in range(1, depth + 1):
        maps = bottleneck(maps, state, f"s1.b{block}", eps)
    maps = F.silu(F.conv3d(maps.transpose(0, 1)[None], state["sampler.0.weight"], state["sampler.0.bias"],
                           stride=(1, 2, 2), padding=1))[0, :, cut].transpose(0, 1)  # fmt: skip
    for block in range(1, depth + 1):
        maps = bottleneck(maps, state, f"s2.b{block}", eps)
    y = F.linear(maps.flatten(2).transpose(1, 2), state["readout.0.weight"], state["readout.0.bias"])
    return F.linear(F.gelu(y, approximate=gelu), state["readout.2.weight"], state["readout.2.bias"])


def face(x: Tensor, state: State, gelu: str = "none", align_corners: bool = False, antialias: bool = False) -> Tensor:
    """The face branch, resized after its last Linear, as the official code does it."""
    y = F.gelu(F.linear(x, state["layers.0.weight"], state["layers.0.bias"]), approximate=gelu)
    y = F.linear(y, state["layers.2.weight"], state["layers.2.bias"])
    maps = y.unflatten(1, (GRID, GRID)).permute(0, 3, 1, 2)
    half = -(-GRID // 2)
    maps = F.interpolate(maps, (half, half), mode="bilinear", align_corners=align_corners, antialias=antialias)
    return maps.flatten(2).transpose(1, 2)


def gate(
    streams: list[Tensor], words: Tensor, state: State, gelu: str = "none", softmax: bool = True, order: str = "012"
) -> Tensor:
    """One sample: a weight for each stream."""
    y = F.gelu(F.linear(words, state["layers.0.weight"], state["layers.0.bias"]), approximate=gelu)
    logits = F.linear(y, state["layers.2.weight"], state["layers.2.bias"])
    weights = logits.softmax(-1) if softmax else logits
    return sum((weights[int(k)] * stream for k, stream in zip(order, streams, strict=True)), torch.zeros(()))


@pytest.fixture(scope="module")
def parts() -> tuple[STCProjector, MLPProjector, InstructionGate]:
    """Parts with weights that make every detail count: norms that scale and shift, maps of small variance."""
    torch.manual_seed(0)
    made = (
        STCProjector(IN_DIM, DIM, depth=2),
        MLPProjector(IN_DIM, DIM, resize="ceil_half"),
        InstructionGate(dict.fromkeys("abc", DIM) | {"words": WORDS}, "abc", "video", "words", hidden=24),
    )
    with torch.no_grad():
        for name, parameter in [pair for part in made for pair in part.named_parameters()]:
            torch.nn.init.normal_(parameter, mean=1.0 if name.endswith("bn.weight") else 0.0, std=0.3)
    stc_part, face_part, gate_part = made
    return stc_part.double(), face_part.double(), gate_part.double()


@pytest.fixture(scope="module")
def video() -> Tensor:
    return torch.randn(FRAMES, GRID * GRID, IN_DIM, generator=torch.Generator().manual_seed(1)).double() * 0.5


def features(tokens: Tensor, grid: int) -> Features:
    return Features.of(tokens[None], torch.ones(1, len(tokens), dtype=torch.bool), (grid, grid))


def apart(made: Tensor, restated: Tensor) -> float:
    return float((made - restated).abs().max())


@torch.no_grad()
@pytest.mark.parametrize("wrong", [{}, {"eps": 1e-6}, {"gelu": "tanh"}, {"cut": slice(1, None)}], ids=str)
def test_stc(parts: tuple[STCProjector, ...], video: Tensor, wrong: dict[str, object]) -> None:
    made = parts[0](features(video, GRID)).tokens[0]
    restated = stc(video, parts[0].state_dict(), depth=2, **wrong)  # type: ignore[arg-type]
    assert (apart(made, restated) < ATOL) == (not wrong), apart(made, restated)


@torch.no_grad()
@pytest.mark.parametrize("wrong", [{}, {"gelu": "tanh"}, {"align_corners": True}, {"antialias": True}], ids=str)
def test_face(parts: tuple[STCProjector, MLPProjector], video: Tensor, wrong: dict[str, object]) -> None:
    made = parts[1](features(video, GRID)).tokens[0]
    restated = face(video, parts[1].state_dict(), **wrong)  # type: ignore[arg-type]
    assert (apart(made, restated) < ATOL) == (not wrong), apart(made, restated)


@torch.no_grad()
@pytest.mark.parametrize("wrong", [{}, {"gelu": "tanh"}, {"softmax": False}, {"order": "210"}], ids=str)
def test_gate(parts: tuple[STCProjector, MLPProjector, InstructionGate], wrong: dict[str, object]) -> None:
    random = torch.Generator().manual_seed(2)
    streams = torch.randn(3, FRAMES, 16, DIM, generator=random).double()
    words = torch.randn(WORDS, generator=random).double()
    given = {name: features(stream, 4) for name, stream in zip("abc", streams, strict=True)}
    given["words"] = Features.of(words[None, None, None], torch.ones(1, 1, dtype=torch.bool))
    made = parts[2](given)["video"].tokens[0]
    restated = gate(list(streams), words, parts[2].state_dict(), **wrong)  # type: ignore[arg-type]
    assert (apart(made, restated) < ATOL) == (not wrong), apart(made, restated)
