"""Concatenation of whole streams."""

import pytest
import torch

from omnihuman.fusion.clip_concat import ClipConcat
from omnihuman.types import Features, Layout


def stream(first: int, frames: int, tokens: int, valid: list[int] | None = None) -> Features:
    """Return tokens whose values count up from ``first``."""
    values = torch.arange(first, first + frames * tokens).view(1, frames, tokens, 1).float().expand(-1, -1, -1, 2)
    return Features.of(values, torch.tensor([valid or [1] * frames], dtype=torch.bool))


def join() -> ClipConcat:
    return ClipConcat({"video": 2, "face": 2}, ["video", "face"], "video")


def test_streams_follow_each_other() -> None:
    merged = join()({"video": stream(0, 3, 4), "face": stream(100, 3, 1)})["video"]
    assert merged.tokens[0, 0, :, 0].tolist() == [*range(12), 100, 101, 102]
    assert merged.mask.all() and merged.grid is None


@pytest.mark.parametrize(("face", "total"), [(3136, 26656), (784, 7840), (196, 3136), (49, 1960)])
def test_counts_of_the_paper(face: int, total: int) -> None:
    assert join().layout([Layout(8, 196, (14, 14)), Layout(8, face)]) == Layout(1, total)


def test_different_lengths_and_missing_faces() -> None:
    merged = join()({"video": stream(0, 2, 2), "face": stream(100, 4, 1, [1, 0, 0, 1])})["video"]
    assert merged.tokens[merged.mask][:, 0].tolist() == [0, 1, 2, 3, 100, 103]
    alone = join()({"video": stream(0, 2, 2), "face": stream(100, 1, 1, [0])})["video"]
    assert alone.tokens[alone.mask][:, 0].tolist() == [0, 1, 2, 3]
