"""FaVChat's cascade against Equation 2, written down frame by frame."""

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
    real = torch.tensor(mask, dtype=torch.bool)
    random = torch.Generator().manual_seed(seed)
    return Features.of(torch.randn(*real.shape, tokens, width, generator=random).double(), real, grid)


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
    found = attention(part.attentions[0], part.maps[0](levels[0]), general)
    for i in range(1, len(levels)):
        found = attention(part.attentions[i], part.maps[i](levels[i]), found)
    return found


def test_is_equation_2_frame_by_frame() -> None:
    part, given = cascade(), {"face": face(), "video": video()}
    made = part(given)
    assert made["video"] is given["video"] and made["face"].grid == (2, 2) and part.out_dim == 8
    assert made["face"].mask[..., 0].tolist() == torch.tensor(FACE).bool().tolist()
    for b, t in made["face"].mask[..., 0].nonzero().tolist():
        levels = [level.tokens[b, t] for level in given["face"].levels]
        expected = equation_2(part, given["video"].tokens[b, t], levels)
        torch.testing.assert_close(made["face"].tokens[b, t], expected, atol=1e-12, rtol=1e-9)
        # the general features of another frame, or the levels in another order, give something else
        other = equation_2(part, given["video"].tokens[b, t - 1], levels)
        assert not torch.allclose(made["face"].tokens[b, t], other, atol=1e-4)


def test_by_clip_a_face_reads_all_real_frames() -> None:
    part, given = cascade(by="clip"), {"face": face(), "video": video()}
    made = part(given)["face"]
    for b in range(2):
        frames, shown = (torch.tensor(mask[b]).bool() for mask in (VIDEO, FACE))
        levels = [level.tokens[b, shown].flatten(0, 1) for level in given["face"].levels]
        expected = equation_2(part, given["video"].tokens[b, frames].flatten(0, 1), levels)
        torch.testing.assert_close(made.tokens[b][made.mask[b]], expected, atol=1e-12, rtol=1e-9)
    still = {"face": face([[1]]), "video": video([[1]])}
    torch.testing.assert_close(part(still)["face"].tokens, cascade()(still)["face"].tokens)


def test_chosen_levels_end_at_the_last_of_them() -> None:
    part, given = cascade(levels=[0, 1], dim=16), {"face": face(), "video": video()}
    made = part(given)["face"]
    assert made.tokens.shape == (2, 4, 9, 16) and made.grid == (3, 3) and part.out_dim == 16
    layouts = tuple(Layout(4, rows * columns, (rows, columns)) for rows, columns in LEVELS.values())
    assert part.layout([Layout(4, 16, (4, 4), layouts)]) == layouts[1]
    assert cascade().layout([Layout(4, 16, (4, 4), layouts)]) == layouts[2]


def test_the_general_features_enter_once() -> None:
    """Each later level reads the result before it: with one token there, all of them read that token."""
    part, given = cascade(levels=[2, 0]), {"face": face([[1]]), "video": video([[1]])}
    assert [attention.k_proj.in_features for attention in part.attentions] == [12, 8]
    one = Features(given["face"].tokens, given["face"].mask, None, (*given["face"].levels[:2], _first(face([[1]]))))
    made = part(given | {"face": one})["face"]
    found = attention(part.attentions[0], part.maps[0](one.levels[2].tokens[0, 0]), given["video"].tokens[0, 0])
    torch.testing.assert_close(made.tokens[0, 0], part.attentions[1].v_proj(found).expand(16, 8))


def _first(given: Features) -> Features:
    level = given.levels[2]
    return Features(level.tokens[:, :, :1], level.mask[:, :, :1])


def test_residual_and_norm_are_options() -> None:
    given = {"face": face(), "video": video()}
    plain, added, normed = (cascade(**o)(given)["face"] for o in ({}, {"residual": True}, {"norm": True}))
    part = cascade(residual=True, levels=[2])
    alone = cascade(levels=[2])(given)["face"]
    level = part.maps[0](given["face"].levels[2].tokens)
    torch.testing.assert_close(part(given)["face"].tokens[alone.mask], (alone.tokens + level)[alone.mask])
    for other in (added, normed):
        assert not torch.allclose(plain.tokens[plain.mask], other.tokens[plain.mask], atol=1e-3)
    louder = stream(1, 9, 12, VIDEO)
    louder = Features(louder.tokens * 100, louder.mask)
    again = cascade(norm=True)(given | {"video": louder})["face"]
    torch.testing.assert_close(again.tokens[again.mask], normed.tokens[again.mask], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("by", ["frame", "clip"])
def test_where_one_side_is_missing_nothing_is_found(by: str) -> None:
    for given in ({"face": face([[0], [0]]), "video": video()}, {"face": face(), "video": video([[0], [0]])}):
        made = cascade(by=by)(given)["face"]
        assert made.tokens.shape == (2, 4, 4, 8) and not made.mask.any() and made.tokens.isfinite().all()
    half = cascade(by=by)({"face": face(), "video": video([[1, 0, 1, 0], [0, 0, 0, 0]])})["face"].mask[..., 0]
    assert half.tolist() == [[True, False, True, by == "clip"], [False] * 4]


def test_with_a_residual_a_face_that_has_nothing_to_read_is_what_it_shows() -> None:
    part = cascade(residual=True)
    whole = face([[1] * 4] * 2)
    made = part({"face": whole, "video": video([[1, 1, 1, 1], [0, 0, 0, 0]])})["face"]
    assert made.mask.all()
    shown = part({"face": whole, "video": video([[0, 0, 0, 0], [0, 0, 0, 0]])})["face"].tokens
    torch.testing.assert_close(made.tokens[1], shown[1])
    louder = video([[0, 0, 0, 0], [0, 0, 0, 0]])
    again = part({"face": whole, "video": replace(louder, tokens=louder.tokens + 7)})["face"].tokens
    assert torch.equal(again, shown), "what is hidden changes nothing"
    assert not part({"face": face([[0], [0]]), "video": video()})["face"].mask.any()


def test_what_it_cannot_do_is_named() -> None:
    with pytest.raises(ValueError, match=r"levels of 'video', but the encoder.*offers none; only \['face'\] has them"):
        Cascade(DIMS, ["video"], "video", "face")
    with pytest.raises(ValueError, match=r"levels of 'face', but the encoder.*offers none; facexformer offers them"):
        Cascade({"face": 8, "video": Width(8)}, ["face"], "face", "video")
    with pytest.raises(ValueError, match=r"got inputs=\['face'\] and condition=None"):
        Cascade(DIMS, ["face"], "face")
    with pytest.raises(ValueError, match=r"levels=\[1, 3\], but 'face' offers \[0, 1, 2\]"):
        cascade(levels=[1, 3])
    with pytest.raises(ValueError, match="heads=3 does not divide the width 8"):
        cascade(heads=3)
