"""Cross-attention from a face to its frame."""

from typing import Any

import pytest
import torch

from omnihuman.fusion.frame_attend import FrameAttend
from omnihuman.types import Features, Layout

VIDEO = [[1, 1, 1, 1], [1, 1, 1, 0]]
FACE = [[1, 0, 1, 1], [0, 0, 0, 0]]


def stream(seed: int, tokens: int, width: int, mask: list[list[int]], grid: tuple[int, int] | None = None) -> Features:
    valid = torch.tensor(mask, dtype=torch.bool)
    random = torch.Generator().manual_seed(seed)
    return Features.of(torch.randn(*valid.shape, tokens, width, generator=random), valid, grid)


def late_fusion(**options: Any) -> FrameAttend:
    torch.manual_seed(0)
    return FrameAttend({"video": 8, "face": 8}, ["video", "face"], "video", heads=2, **options)


def early_fusion(**options: Any) -> FrameAttend:
    """Return an early fusion: different widths, and the video stays."""
    torch.manual_seed(0)
    return FrameAttend({"video": 12, "face": 8}, ["face"], "face", "video", heads=2, **options)


def one_frame(part: FrameAttend, video: Features, face: Features, b: int, t: int) -> torch.Tensor:
    q, k, v = (
        part.attention.q_proj(face.tokens[b, t]),
        *(f(video.tokens[b, t]) for f in (part.attention.k_proj, part.attention.v_proj)),
    )
    heads = zip(q.split(4, dim=-1), k.split(4, dim=-1), v.split(4, dim=-1), strict=True)
    return torch.cat([(a @ c.T / 2).softmax(dim=-1) @ d for a, c, d in heads], dim=-1)


def test_a_face_attends_to_its_own_frame() -> None:
    part, video, face = late_fusion(), stream(1, 9, 8, VIDEO), stream(2, 4, 8, FACE)
    merged = part({"video": video, "face": face})["video"]
    assert merged.tokens.shape == (2, 4, 13, 8)
    assert torch.equal(merged.tokens[:, :, :9], video.tokens) and torch.equal(merged.mask[:, :, :9], video.mask)
    assert torch.equal(merged.mask[:, :, 9:], face.mask)
    for t in (0, 2, 3):
        torch.testing.assert_close(merged.tokens[0, t, 9:], one_frame(part, video, face, 0, t))
    assert not torch.allclose(merged.tokens[0, 2, 9:], one_frame(part, video, stream(2, 4, 8, FACE), 0, 3))


def test_without_the_video_beside_the_grid_stays() -> None:
    streams = {"video": stream(1, 9, 8, VIDEO), "face": stream(2, 4, 8, FACE, (2, 2))}
    merged, beside = late_fusion(beside=False)(streams)["video"], late_fusion()(streams)["video"]
    torch.testing.assert_close(merged.tokens, beside.tokens[:, :, 9:])
    assert merged.grid == (2, 2) and beside.grid is None


def test_before_the_projectors_the_video_stays() -> None:
    part, video, face = early_fusion(), stream(1, 9, 12, VIDEO), stream(2, 4, 8, FACE)
    merged = part({"video": video, "face": face})
    assert merged["video"] is video and part.out_dim == 8 and merged["face"].tokens.shape == (2, 4, 4, 8)
    torch.testing.assert_close(merged["face"].tokens[0, 2], one_frame(part, video, face, 0, 2))
    assert part.layout([Layout(4, 4, (2, 2))]) == Layout(4, 4, (2, 2))


def test_residual_adds_the_face() -> None:
    streams = {"video": stream(1, 9, 12, VIDEO), "face": stream(2, 4, 8, FACE)}
    added, plain = early_fusion(residual=True)(streams)["face"], early_fusion()(streams)["face"]
    torch.testing.assert_close(added.tokens[plain.mask], (plain.tokens + streams["face"].tokens)[plain.mask])


def test_missing_stream_gives_no_valid_face_tokens() -> None:
    """No sample of the batch has a face, or none has a video."""
    video, face = stream(1, 9, 8, VIDEO), stream(2, 4, 8, FACE)
    no_face = late_fusion()({"video": video, "face": stream(2, 4, 8, [[0], [0]])})["video"]
    assert torch.equal(no_face.mask[:, :, :9], video.mask) and not no_face.mask[:, :, 9:].any()
    no_video = late_fusion()({"video": stream(1, 9, 8, [[0], [0]]), "face": face})["video"]
    assert no_video.tokens.shape == (2, 4, 13, 8) and not no_video.mask.any()
    assert no_video.tokens.isfinite().all()


@pytest.mark.parametrize(("face", "total"), [(784, 7840), (49, 1960)])
def test_counts_of_the_paper(face: int, total: int) -> None:
    layouts = [Layout(8, 196, (14, 14)), Layout(8, face)]
    assert late_fusion().layout(layouts).num_tokens == total
    assert late_fusion(beside=False).layout(layouts).num_tokens == 8 * face


def test_bad_options_raise() -> None:
    dims = {"video": 8, "face": 8, "body": 8}
    with pytest.raises(ValueError, match=r"inputs=\[face\] and condition=video.*inputs=\['face'\] and condition=None"):
        FrameAttend(dims, ["face"], "video")
    with pytest.raises(ValueError, match=r"inputs=\['video', 'face'\] and condition=body"):
        FrameAttend(dims, ["video", "face"], "video", "body")
    with pytest.raises(ValueError, match=r"heads=3\b.*width 8\b"):
        FrameAttend(dims, ["video", "face"], "video", heads=3)
    with pytest.raises(ValueError, match=r"frame_attend .*frame by frame.*\{'video': 8, 'face': 1\}"):
        late_fusion().layout([Layout(8, 196), Layout(1, 96)])
