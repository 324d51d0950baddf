"""A learned embedding of the time step."""

import pytest
import torch

from omnihuman.fusion.frame_embedding import FrameEmbedding
from omnihuman.types import Features, Layout


def embed(num_frames: int = 8) -> FrameEmbedding:
    part = FrameEmbedding({"video": 4}, ["video"], "video", num_frames=num_frames)
    with torch.no_grad():
        part.frames.copy_(torch.arange(1.0, num_frames + 1)[:, None].expand(-1, 4))
    return part


def blank(*real: int) -> Features:
    return Features.of(torch.zeros(1, len(real), 6, 4), torch.tensor([real], dtype=torch.bool), (2, 3))


def test_changes_nothing_at_first() -> None:
    part = FrameEmbedding({"video": 4}, ["video"], "video")
    video = Features.of(torch.randn(2, 8, 6, 4), torch.ones(2, 8, dtype=torch.bool))
    assert torch.equal(part({"video": video})["video"].tokens, video.tokens)


def test_gaps_keep_their_index() -> None:
    merged = embed()({"video": blank(1, 0, 1, 1)})["video"]
    assert merged.tokens[merged.mask][::6, 0].tolist() == [1, 3, 4]
    assert merged.grid == (2, 3) and merged.levels == ()
    assert embed().layout([Layout(8, 6, (2, 3), (Layout(8, 1),))]) == Layout(8, 6, (2, 3))


def test_too_many_frames_raise() -> None:
    with pytest.raises(ValueError, match=r"'video' .*num_frames=8\b.* 9 time steps.*raise num_frames"):
        embed().layout([Layout(9, 6)])
    with pytest.raises(ValueError, match=r"num_frames=8\b.* 10 time steps"):
        embed()({"video": blank(*[1] * 8, 0, 1, 0)})
    padded = embed()({"video": blank(*[1] * 8, 0, 0)})["video"]
    assert padded.tokens[0, :8, 0, 0].tolist() == list(range(1, 9)) and padded.tokens.shape[1] == 10


def test_two_inputs_raise() -> None:
    with pytest.raises(ValueError, match=r"one stream.*inputs=\['a', 'b'\]"):
        FrameEmbedding({"a": 4, "b": 4}, ["a", "b"], "video")
