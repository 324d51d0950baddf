"""The spatial-temporal convolution: token counts of all its forms, and what a frame may see."""

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
"""Tokens that the official connectors make of (frames, side of the grid); ``None`` where they raise."""


def projector(form: str, **options: Any) -> STCProjector:
    torch.manual_seed(0)
    return STCProjector(4, 8, **{"depth": 1} | FORMS[form] | options).eval()


def frames(count: int, grid: int) -> Features:
    tokens = torch.randn(1, count, grid * grid, 4, generator=torch.Generator().manual_seed(count))
    return Features.of(tokens, torch.ones(1, count, dtype=torch.bool), (grid, grid))


@pytest.mark.parametrize("form", FORMS)
@torch.no_grad()
def test_token_counts_are_the_official_ones(form: str) -> None:
    stc = projector(form)
    for (count, grid), expected in zip(INPUTS, COUNTS[form], strict=True):
        layout = Layout(count, grid * grid, (grid, grid))
        if expected is None:
            with pytest.raises(ValueError, match="needs 2 frames or more, got 1"):
                stc.layout(layout)
            continue
        assert stc.layout(layout).total == expected
        if count <= 8:
            made = stc(frames(count, grid))
            assert int(made.mask.sum()) == made.tokens.shape[1] * made.tokens.shape[2] == expected


PRESETS = {
    "stc/7b": "humanomni",
    "stc/nano": "humanomni",
    "stc/0_5b": "humanomni_small",
    "stc_videollama2": "videollama2",
    "stc_videollama2_v35": "videollama2_v35",
}


@pytest.mark.parametrize(("preset", "form"), PRESETS.items())
def test_presets_are_these_forms(preset: str, form: str) -> None:
    with torch.device("meta"):
        made, expected = (
            build(compose_part("projector", preset))(in_dim=4, out_dim=8),
            projector(form),
        )
    for option in ("kernel", "stride", "padding", "cut"):
        assert getattr(made, option) == getattr(expected, option), option
    depth = {"stc/nano": 1, "stc/0_5b": 2}.get(preset, 4)
    assert [len(list(stage.children())) for stage in (made.s1, made.s2)] == [depth, depth]
    assert [len(layer.weight) for layer in made.readout if isinstance(layer, torch.nn.Linear)] == [8, 8]


@torch.no_grad()
@pytest.mark.parametrize("form", ["humanomni", "humanomni_small"])
def test_a_frame_sees_itself_and_the_one_before(form: str) -> None:
    stc, video = projector(form), frames(6, 5)
    changed = video.tokens.clone()
    changed[:, 2] += 1
    moved = (stc(video).tokens != stc(Features.of(changed, video.mask[..., 0], (5, 5))).tokens).flatten(2).any(-1)
    assert moved[0].nonzero().squeeze(-1).tolist() == [2, 3]


def test_parts_have_the_official_names() -> None:
    names = STCProjector(4, 8, depth=2).state_dict()
    assert {name.split(".")[0] for name in names} == {"s1", "sampler", "s2", "readout"}
    assert names["s1.b1.downsample.conv.weight"].shape == (8, 4, 1, 1)
    assert names["s2.b2.conv2.conv.weight"].shape == (8, 1, 3, 3)
    assert names["sampler.0.weight"].shape == (8, 8, 2, 2, 2)


def test_recomputing_changes_no_gradient() -> None:
    gradients = []
    for recompute in (False, True):
        stc = projector("humanomni", depth=2, grad_checkpointing=recompute).train()
        stc(frames(3, 5)).tokens.pow(2).sum().backward()
        gradients.append([parameter.grad for parameter in stc.parameters()])
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other)


def test_hidden_frames_do_not_run() -> None:
    stc, video = projector("humanomni"), frames(4, 5)
    seen: list[int] = []
    stc.s1.register_forward_pre_hook(lambda module, given: seen.append(len(given[0])))
    stc(Features.of(video.tokens, torch.tensor([[True, True, False, False]]), (5, 5)))
    assert seen == [2]


def test_no_grid_is_named() -> None:
    with pytest.raises(ValueError, match=r"stc convolves over a grid, .* has none: choose mlp or linear"):
        projector("humanomni").layout(Layout(4, 25))
