"""Stream after stream."""

import pytest
import torch

from omnihuman.fusion.clip_concat import ClipConcat
from omnihuman.types import Features, Layout


def stream(first: int, frames: int, tokens: int, real: list[int] | None = None) -> Features:
    """Tokens that count on from ``first``."""
    values = torch.arange(first, first + frames * tokens).view(1, frames, tokens, 1).float().expand(-1, -1, -1, 2)
    return Features.of(values, torch.tensor([real or [1] * frames], dtype=torch.bool))


def join() -> ClipConcat:
    return ClipConcat({"video": 2, "face": 2}, ["video", "face"], "video")


def test_the_whole_first_then_the_whole_next() -> None:
    made = join()({"video": stream(0, 3, 4), "face": stream(100, 3, 1)})["video"]
    assert made.tokens[0, 0, :, 0].tolist() == [*range(12), 100, 101, 102]
    assert made.mask.all() and made.grid is None


@pytest.mark.parametrize(("face", "total"), [(3136, 26656), (784, 7840), (196, 3136), (49, 1960)])
def test_counts_of_the_paper(face: int, total: int) -> None:
    assert join().layout([Layout(8, 196, (14, 14)), Layout(8, face)]) == Layout(1, total)


def test_streams_of_other_lengths_and_frames_without_a_face() -> None:
    made = join()({"video": stream(0, 2, 2), "face": stream(100, 4, 1, [1, 0, 0, 1])})["video"]
    assert made.tokens[made.mask][:, 0].tolist() == [0, 1, 2, 3, 100, 103]
    alone = join()({"video": stream(0, 2, 2), "face": stream(100, 1, 1, [0])})["video"]
    assert alone.tokens[alone.mask][:, 0].tolist() == [0, 1, 2, 3]
