"""The spatial-temporal convolution: token counts of all its forms, and the frames that an output depends on."""

from typing import Any

import pytest
import torch

from omnihuman.build import build, compose_part
from omnihuman.projector.stc import STCProjector
from omnihuman.types import Features, Layout

FORMS: dict[str, dict[str, Any]] = {
    "humanomni": {},
    "humanomni_small": {"padding": (1, 0, 0)},
    "videollama2": {"stride": (2, 2, 2), "cut": False},
    "videollama2_v35": {"stride": (2, 2, 2), "padding": (0, 0, 0), "cut": False},
    "spatial_conv": {"kernel": (1, 2, 2), "cut": False},
}
INPUTS = [(32, 27), (16, 27), (8, 27), (1, 27), (8, 14), (1, 14)]
COUNTS: dict[str, list[int | None]] = {
    "humanomni": [6272, 3136, 1568, 196, 512, 64],
    "humanomni_small": [5408, 2704, 1352, 169, 392, 49],
    "videollama2": [3332, 1764, 980, 196, 320, 64],
    "videollama2_v35": [2704, 1352, 676, None, 196, None],
    "spatial_conv": [6664, 3528, 1960, 588, 640, 192],
}
"""Tokens of the official connectors for each (frames, side of the grid); ``None`` where they raise."""
PRESETS = [
    ("stc", "7b", "humanomni", 4),
    ("stc", "nano", "humanomni", 1),
    ("stc", "0_5b", "humanomni_small", 2),
    ("stc_videollama2", "7b", "videollama2", 4),
    ("stc_videollama2", "nano", "videollama2", 4),
    ("stc_videollama2_v35", "nano", "videollama2_v35", 4),
]
"""Preset, size, form and depth."""


def build_projector(form: str, **options: Any) -> STCProjector:
    torch.manual_seed(0)
    return STCProjector(4, 8, **{"depth": 1} | FORMS[form] | options).eval()


def draw_frames(count: int, side: int) -> Features:
    tokens = torch.randn(1, count, side * side, 4, generator=torch.Generator().manual_seed(count))
    return Features.of(tokens, torch.ones(1, count, dtype=torch.bool), (side, side))


@pytest.mark.parametrize("form", FORMS)
@torch.no_grad()
def test_token_counts_equal_the_official_ones(form: str) -> None:
    stc = build_projector(form)
    for (count, side), expected in zip(INPUTS, COUNTS[form], strict=True):
        layout = Layout(count, side * side, (side, side))
        if expected is None:
            with pytest.raises(ValueError, match=r"\b2 frames.* 1\b.*padding=\[1,1,1\]"):
                stc.layout(layout)
            continue
        assert stc.layout(layout).num_tokens == expected
        if count <= 8:
            projected = stc(draw_frames(count, side))
            assert int(projected.mask.sum()) == projected.tokens.shape[1] * projected.tokens.shape[2] == expected


@pytest.mark.parametrize(("preset", "size", "form", "depth"), PRESETS)
def test_presets_equal_the_forms(preset: str, size: str, form: str, depth: int) -> None:
    with torch.device("meta"):
        stc = build(compose_part("projector", preset, size=size))(in_dim=4, out_dim=8)
        expected = build_projector(form)
    for option in ("kernel", "stride", "padding", "cut"):
        assert getattr(stc, option) == getattr(expected, option), option
    assert [len(list(stage.children())) for stage in (stc.s1, stc.s2)] == [depth, depth]
    assert [len(layer.weight) for layer in stc.readout if isinstance(layer, torch.nn.Linear)] == [8, 8]


@torch.no_grad()
@pytest.mark.parametrize("form", ["humanomni", "humanomni_small"])
def test_output_depends_on_its_frame_and_the_one_before(form: str) -> None:
    stc, frames = build_projector(form), draw_frames(6, 5)
    changed = frames.tokens.clone()
    changed[:, 2] += 1
    difference = stc(frames).tokens != stc(Features.of(changed, frames.mask[..., 0], (5, 5))).tokens
    assert difference.flatten(2).any(-1)[0].nonzero().squeeze(-1).tolist() == [2, 3]


def test_parameters_have_the_official_names() -> None:
    state = STCProjector(4, 8, depth=2).state_dict()
    assert {name.split(".")[0] for name in state} == {"s1", "sampler", "s2", "readout"}
    assert state["s1.b1.downsample.conv.weight"].shape == (8, 4, 1, 1)
    assert state["s2.b2.conv2.conv.weight"].shape == (8, 1, 3, 3)
    assert state["sampler.0.weight"].shape == (8, 8, 2, 2, 2)


def test_recomputed_stages_have_the_same_gradients() -> None:
    gradients = []
    for recompute in (False, True):
        stc = build_projector("humanomni", depth=2, grad_checkpointing=recompute).train()
        stc(draw_frames(3, 5)).tokens.pow(2).sum().backward()
        gradients.append([parameter.grad for parameter in stc.parameters()])
    torch.testing.assert_close(gradients[0], gradients[1])


def test_invalid_frames_do_not_run() -> None:
    stc, frames = build_projector("humanomni"), draw_frames(4, 5)
    counts: list[int] = []
    stc.s1.register_forward_pre_hook(lambda module, inputs: counts.append(len(inputs[0])))
    stc(Features.of(frames.tokens, torch.tensor([[True, True, False, False]]), (5, 5)))
    assert counts == [2]


def test_missing_grid_raises() -> None:
    with pytest.raises(ValueError, match=r"stc: .*grid.*mlp or linear"):
        build_projector("humanomni").layout(Layout(4, 25))
