"""FaVChat's cascade against Equation 2, computed frame by frame."""

from dataclasses import replace
from typing import Any

import pytest
import torch

from omnihuman.fusion.cascade import Cascade
from omnihuman.nn.attention import CrossAttention
from omnihuman.types import Features, Layout, Width

LEVELS = {4: (4, 4), 6: (3, 3), 10: (2, 2)}
"""Width and grid of the levels, shallow to deep."""
DIMS = {"face": Width(8, tuple(LEVELS)), "video": 12}
VIDEO = [[1, 1, 1, 1], [1, 1, 1, 0]]
FACE = [[1, 0, 1, 1], [0, 1, 0, 0]]


def cascade(**options: Any) -> Cascade:
    torch.manual_seed(0)
    return Cascade(DIMS, ["face"], "face", "video", **{"heads": 1} | options).double()


def stream(seed: int, tokens: int, width: int, mask: list[list[int]], grid: tuple[int, int] | None = None) -> Features:
    mask_tensor = torch.tensor(mask, dtype=torch.bool)
    random = torch.Generator().manual_seed(seed)
    return Features.of(torch.randn(*mask_tensor.shape, tokens, width, generator=random).double(), mask_tensor, grid)


def face(mask: list[list[int]] = FACE) -> Features:
    levels = tuple(stream(width, grid[0] * grid[1], width, mask, grid) for width, grid in LEVELS.items())
    return Features(levels[0].tokens, levels[0].mask, (4, 4), levels)


def video(mask: list[list[int]] = VIDEO) -> Features:
    return stream(1, 9, 12, mask, (3, 3))


def attention(part: CrossAttention, queries: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
    q, k, v = part.q_proj(queries), part.k_proj(tokens), part.v_proj(tokens)
    return (q @ k.T / q.shape[-1] ** 0.5).softmax(dim=-1) @ v


def equation_2(part: Cascade, general: torch.Tensor, levels: list[torch.Tensor]) -> torch.Tensor:
    """e*_2 of e_1 and the general features; e*_(i+1) of e_i and e*_i."""
    result = attention(part.attentions[0], part.maps[0](levels[0]), general)
    for i in range(1, len(levels)):
        result = attention(part.attentions[i], part.maps[i](levels[i]), result)
    return result


def test_equals_equation_2_frame_by_frame() -> None:
    part, streams = cascade(), {"face": face(), "video": video()}
    merged = part(streams)
    assert merged["video"] is streams["video"] and merged["face"].grid == (2, 2) and part.out_dim == 8
    assert merged["face"].mask[..., 0].tolist() == torch.tensor(FACE).bool().tolist()
    for b, t in merged["face"].mask[..., 0].nonzero().tolist():
        levels = [level.tokens[b, t] for level in streams["face"].levels]
        expected = equation_2(part, streams["video"].tokens[b, t], levels)
        torch.testing.assert_close(merged["face"].tokens[b, t], expected, atol=1e-12, rtol=1e-9)
        # the general features of another frame, or the levels in another order, give something else
        other = equation_2(part, streams["video"].tokens[b, t - 1], levels)
        assert not torch.allclose(merged["face"].tokens[b, t], other, atol=1e-4)


def test_by_clip_attends_to_all_valid_frames() -> None:
    part, streams = cascade(by="clip"), {"face": face(), "video": video()}
    merged = part(streams)["face"]
    for b in range(2):
        frames, valid_faces = (torch.tensor(mask[b]).bool() for mask in (VIDEO, FACE))
        levels = [level.tokens[b, valid_faces].flatten(0, 1) for level in streams["face"].levels]
        expected = equation_2(part, streams["video"].tokens[b, frames].flatten(0, 1), levels)
        torch.testing.assert_close(merged.tokens[b][merged.mask[b]], expected, atol=1e-12, rtol=1e-9)
    still = {"face": face([[1]]), "video": video([[1]])}
    torch.testing.assert_close(part(still)["face"].tokens, cascade()(still)["face"].tokens)


def test_result_has_the_grid_of_the_last_level() -> None:
    part, streams = cascade(levels=[0, 1], dim=16), {"face": face(), "video": video()}
    merged = part(streams)["face"]
    assert merged.tokens.shape == (2, 4, 9, 16) and merged.grid == (3, 3) and part.out_dim == 16
    layouts = tuple(Layout(4, rows * columns, (rows, columns)) for rows, columns in LEVELS.values())
    assert part.layout([Layout(4, 16, (4, 4), layouts)]) == layouts[1]
    assert cascade().layout([Layout(4, 16, (4, 4), layouts)]) == layouts[2]


def test_the_general_features_enter_once() -> None:
    """Each later level attends to the result before it: with one token there, all queries get its value."""
    part, streams = cascade(levels=[2, 0]), {"face": face([[1]]), "video": video([[1]])}
    assert [attention.k_proj.in_features for attention in part.attentions] == [12, 8]
    one = Features(
        streams["face"].tokens, streams["face"].mask, None, (*streams["face"].levels[:2], _first(face([[1]])))
    )
    merged = part(streams | {"face": one})["face"]
    result = attention(part.attentions[0], part.maps[0](one.levels[2].tokens[0, 0]), streams["video"].tokens[0, 0])
    torch.testing.assert_close(merged.tokens[0, 0], part.attentions[1].v_proj(result).expand(16, 8))


def _first(streams: Features) -> Features:
    level = streams.levels[2]
    return Features(level.tokens[:, :, :1], level.mask[:, :, :1])


def test_residual_and_norm_are_options() -> None:
    streams = {"face": face(), "video": video()}
    plain, added, normed = (cascade(**o)(streams)["face"] for o in ({}, {"residual": True}, {"norm": True}))
    part = cascade(residual=True, levels=[2])
    alone = cascade(levels=[2])(streams)["face"]
    level = part.maps[0](streams["face"].levels[2].tokens)
    torch.testing.assert_close(part(streams)["face"].tokens[alone.mask], (alone.tokens + level)[alone.mask])
    for other in (added, normed):
        assert not torch.allclose(plain.tokens[plain.mask], other.tokens[plain.mask], atol=1e-3)
    louder = stream(1, 9, 12, VIDEO)
    louder = Features(louder.tokens * 100, louder.mask)
    again = cascade(norm=True)(streams | {"video": louder})["face"]
    torch.testing.assert_close(again.tokens[again.mask], normed.tokens[again.mask], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("by", ["frame", "clip"])
def test_missing_side_gives_no_valid_tokens(by: str) -> None:
    for streams in ({"face": face([[0], [0]]), "video": video()}, {"face": face(), "video": video([[0], [0]])}):
        merged = cascade(by=by)(streams)["face"]
        assert merged.tokens.shape == (2, 4, 4, 8) and not merged.mask.any() and merged.tokens.isfinite().all()
    half = cascade(by=by)({"face": face(), "video": video([[1, 0, 1, 0], [0, 0, 0, 0]])})["face"].mask[..., 0]
    assert half.tolist() == [[True, False, True, by == "clip"], [False] * 4]


def test_with_residual_a_face_without_video_keeps_its_queries() -> None:
    part = cascade(residual=True)
    full_face = face([[1] * 4] * 2)
    merged = part({"face": full_face, "video": video([[1, 1, 1, 1], [0, 0, 0, 0]])})["face"]
    assert merged.mask.all()
    valid_faces = part({"face": full_face, "video": video([[0, 0, 0, 0], [0, 0, 0, 0]])})["face"].tokens
    torch.testing.assert_close(merged.tokens[1], valid_faces[1])
    louder = video([[0, 0, 0, 0], [0, 0, 0, 0]])
    again = part({"face": full_face, "video": replace(louder, tokens=louder.tokens + 7)})["face"].tokens
    assert torch.equal(again, valid_faces), "masked values change nothing"
    assert not part({"face": face([[0], [0]]), "video": video()})["face"].mask.any()


def test_bad_options_raise() -> None:
    with pytest.raises(ValueError, match=r"levels of 'video'.*none.*levels: \['face'\]"):
        Cascade(DIMS, ["video"], "video", "face")
    with pytest.raises(ValueError, match=r"levels of 'face'.*none.*facexformer"):
        Cascade({"face": 8, "video": Width(8)}, ["face"], "face", "video")
    with pytest.raises(ValueError, match=r"cascade .*\['face'\].*condition.*none"):
        Cascade(DIMS, ["face"], "face")
    with pytest.raises(ValueError, match=r"levels=\[1, 3\].*'face'.*\[0, 1, 2\]"):
        cascade(levels=[1, 3])
    with pytest.raises(ValueError, match=r"heads=3\b.*width 8\b"):
        cascade(heads=3)
