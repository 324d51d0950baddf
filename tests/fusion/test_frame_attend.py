"""Face tokens that look at their frame."""

from typing import Any

import pytest
import torch

from omnihuman.fusion.frame_attend import FrameAttend
from omnihuman.types import Features, Layout

VIDEO = [[1, 1, 1, 1], [1, 1, 1, 0]]
FACE = [[1, 0, 1, 1], [0, 0, 0, 0]]


def stream(seed: int, tokens: int, width: int, mask: list[list[int]], grid: tuple[int, int] | None = None) -> Features:
    real = torch.tensor(mask, dtype=torch.bool)
    random = torch.Generator().manual_seed(seed)
    return Features.of(torch.randn(*real.shape, tokens, width, generator=random), real, grid)


def joined(**options: Any) -> FrameAttend:
    torch.manual_seed(0)
    return FrameAttend({"video": 8, "face": 8}, ["video", "face"], "video", heads=2, **options)


def before(**options: Any) -> FrameAttend:
    """As an early fusion: other widths, the video stays."""
    torch.manual_seed(0)
    return FrameAttend({"video": 12, "face": 8}, ["face"], "face", "video", heads=2, **options)


def one_frame(part: FrameAttend, video: Features, face: Features, b: int, t: int) -> torch.Tensor:
    q, k, v = (
        part.attention.q_proj(face.tokens[b, t]),
        *(f(video.tokens[b, t]) for f in (part.attention.k_proj, part.attention.v_proj)),
    )
    heads = zip(q.split(4, dim=-1), k.split(4, dim=-1), v.split(4, dim=-1), strict=True)
    return torch.cat([(a @ c.T / 2).softmax(dim=-1) @ d for a, c, d in heads], dim=-1)


def test_each_face_reads_its_own_frame() -> None:
    part, video, face = joined(), stream(1, 9, 8, VIDEO), stream(2, 4, 8, FACE)
    made = part({"video": video, "face": face})["video"]
    assert made.tokens.shape == (2, 4, 13, 8)
    assert torch.equal(made.tokens[:, :, :9], video.tokens) and torch.equal(made.mask[:, :, :9], video.mask)
    assert torch.equal(made.mask[:, :, 9:], face.mask)
    for t in (0, 2, 3):
        torch.testing.assert_close(made.tokens[0, t, 9:], one_frame(part, video, face, 0, t))
    assert not torch.allclose(made.tokens[0, 2, 9:], one_frame(part, video, stream(2, 4, 8, FACE), 0, 3))


def test_alone_keeps_the_grid_of_the_face() -> None:
    given = {"video": stream(1, 9, 8, VIDEO), "face": stream(2, 4, 8, FACE, (2, 2))}
    made, whole = joined(beside=False)(given)["video"], joined()(given)["video"]
    torch.testing.assert_close(made.tokens, whole.tokens[:, :, 9:])
    assert made.grid == (2, 2) and whole.grid is None


def test_before_the_projectors_the_video_stays() -> None:
    part, video, face = before(), stream(1, 9, 12, VIDEO), stream(2, 4, 8, FACE)
    made = part({"video": video, "face": face})
    assert made["video"] is video and part.out_dim == 8 and made["face"].tokens.shape == (2, 4, 4, 8)
    torch.testing.assert_close(made["face"].tokens[0, 2], one_frame(part, video, face, 0, 2))
    assert part.layout([Layout(4, 4, (2, 2))]) == Layout(4, 4, (2, 2))


def test_residual_adds_the_face() -> None:
    given = {"video": stream(1, 9, 12, VIDEO), "face": stream(2, 4, 8, FACE)}
    added, plain = before(residual=True)(given)["face"], before()(given)["face"]
    torch.testing.assert_close(added.tokens[plain.mask], (plain.tokens + given["face"].tokens)[plain.mask])


def test_a_missing_stream_hides_what_would_be_read() -> None:
    """Nobody in the batch has a face, or nobody a video: one hidden moment."""
    video, face = stream(1, 9, 8, VIDEO), stream(2, 4, 8, FACE)
    no_face = joined()({"video": video, "face": stream(2, 4, 8, [[0], [0]])})["video"]
    assert torch.equal(no_face.mask[:, :, :9], video.mask) and not no_face.mask[:, :, 9:].any()
    no_video = joined()({"video": stream(1, 9, 8, [[0], [0]]), "face": face})["video"]
    assert no_video.tokens.shape == (2, 4, 13, 8) and not no_video.mask.any()
    assert no_video.tokens.isfinite().all()


@pytest.mark.parametrize(("face", "total"), [(784, 7840), (49, 1960)])
def test_counts_of_the_paper(face: int, total: int) -> None:
    layouts = [Layout(8, 196, (14, 14)), Layout(8, face)]
    assert joined().layout(layouts).total == total
    assert joined(beside=False).layout(layouts).total == 8 * face


def test_what_it_cannot_do_is_named() -> None:
    dims = {"video": 8, "face": 8, "body": 8}
    with pytest.raises(
        ValueError, match=r"inputs=\[face\] and condition=video, got inputs=\['face'\] and condition=None"
    ):
        FrameAttend(dims, ["face"], "video")
    with pytest.raises(ValueError, match=r"got inputs=\['video', 'face'\] and condition=body"):
        FrameAttend(dims, ["video", "face"], "video", "body")
    with pytest.raises(ValueError, match="heads=3 does not divide the width 8"):
        FrameAttend(dims, ["video", "face"], "video", heads=3)
    with pytest.raises(ValueError, match=r"frame_attend joins frame by frame.*\{'video': 8, 'face': 1\}"):
        joined().layout([Layout(8, 196), Layout(1, 96)])
