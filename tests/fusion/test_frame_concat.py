"""Streams interleaved frame by frame."""

import pytest
import torch

from omnihuman.fusion.frame_concat import FrameConcat
from omnihuman.types import Features, Layout


def stream(first: int, frames: int, tokens: int, valid: list[int] | None = None) -> Features:
    """Return tokens whose values count up from ``first``."""
    values = torch.arange(first, first + frames * tokens).view(1, frames, tokens, 1).float().expand(-1, -1, -1, 2)
    return Features.of(values, torch.tensor([valid or [1] * frames], dtype=torch.bool))


def join() -> FrameConcat:
    return FrameConcat({"video": 2, "face": 2}, ["video", "face"], "video")


def read_tokens(video: Features, face: Features) -> list[float]:
    """Return the valid tokens in reading order."""
    tokens, mask = join()({"video": video, "face": face})["video"].flat()
    return tokens[mask][:, 0].tolist()


def test_streams_alternate_frame_by_frame() -> None:
    assert read_tokens(stream(0, 3, 2), stream(100, 3, 1)) == [0, 1, 100, 2, 3, 101, 4, 5, 102]


def test_missing_faces_leave_the_order() -> None:
    assert read_tokens(stream(0, 3, 2), stream(100, 3, 1, [0, 0, 1])) == [0, 1, 2, 3, 4, 5, 102]
    assert read_tokens(stream(0, 3, 2), stream(100, 1, 1, [0])) == [0, 1, 2, 3, 4, 5]
    assert read_tokens(stream(0, 1, 2, [0]), stream(100, 2, 1)) == [100, 101]


@pytest.mark.parametrize(("face", "total"), [(3136, 26656), (784, 7840), (196, 3136), (49, 1960)])
def test_counts_of_the_paper(face: int, total: int) -> None:
    layout = join().layout([Layout(8, 196, (14, 14)), Layout(8, face)])
    assert layout == Layout(8, 196 + face) and layout.num_tokens == total


def test_different_time_steps_raise() -> None:
    with pytest.raises(ValueError, match=r"frame_concat .*frame by frame.*\{'video': 8, 'face': 1\}"):
        join().layout([Layout(8, 196), Layout(1, 96)])
