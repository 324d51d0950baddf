"""The slow-fast compressor: the official counts and order, for any number of frames."""

import pytest
import torch
import torch.nn.functional as F

from omnihuman.fusion.slow_fast import SlowFast
from omnihuman.types import Features, Layout


def compress(pool: int = 2, every: int | None = 4) -> SlowFast:
    return SlowFast({"video": 8}, ["video"], "video", pool=pool, every=every)


def video(frames: int, grid: tuple[int, int]) -> Features:
    tokens = torch.randn(1, frames, grid[0] * grid[1], 8, generator=torch.Generator().manual_seed(frames))
    return Features.of(tokens, torch.ones(1, frames, dtype=torch.bool), grid)


@pytest.mark.parametrize(("frames", "total"), [(8, 784), (16, 1568), (32, 3136), (1, 245), (2, 294)])
def test_counts_of_the_official_compressor(frames: int, total: int) -> None:
    assert compress().layout([Layout(frames, 196, (14, 14))]) == Layout(1, total)
    made = compress()({"video": video(frames, (14, 14))})["video"]
    assert made.tokens.shape == (1, 1, total, 8) and made.mask.all() and made.grid is None


@pytest.mark.parametrize("frames", [1, 2, 5, 6, 9])
@pytest.mark.parametrize("grid", [(4, 4), (7, 7), (5, 4)])
def test_fast_first_then_slow(frames: int, grid: tuple[int, int]) -> None:
    """Frame by frame, as one would do it by hand."""
    given = video(frames, grid)
    expected = []
    for frame in given.tokens[0]:
        expected.append(F.avg_pool2d(frame.T.reshape(8, *grid), 2).flatten(1).T)
    expected += [given.tokens[0, t] for t in (range(1, frames, 4) if frames > 1 else [0])]
    made = compress()({"video": given})["video"]
    torch.testing.assert_close(made.tokens[0, 0], torch.cat(expected))


def test_samples_of_different_length_keep_their_own_frames() -> None:
    rows = [video(frames, (4, 4)) for frames in (9, 1, 6)]
    tokens, mask = torch.full((3, 9, 16, 8), torch.nan), torch.zeros(3, 9, dtype=torch.bool)
    for b, row in enumerate(rows):
        tokens[b, : row.tokens.shape[1]], mask[b, : row.tokens.shape[1]] = row.tokens[0], True
    made = compress()({"video": Features.of(tokens, mask, (4, 4))})["video"]
    assert not made.tokens[~made.mask].any()
    for b, row in enumerate(rows):
        torch.testing.assert_close(made.tokens[b][made.mask[b]], compress()({"video": row})["video"].tokens[0, 0])


def test_off_leaves_the_tokens_alone() -> None:
    given = video(5, (4, 4))
    made = compress(pool=1, every=None)({"video": given})["video"]
    assert torch.equal(made.tokens[0, 0], given.tokens[0].flatten(0, 1))
    assert compress(pool=1, every=None).layout([Layout(8, 49, (7, 7))]).total == 392


def test_what_it_cannot_do_is_named() -> None:
    with pytest.raises(ValueError, match=r"compresses one stream, got \['a', 'b'\]"):
        SlowFast({"a": 8, "b": 8}, ["a", "b"], "video")
    with pytest.raises(ValueError, match="pools a grid, but the stream 'video' has none"):
        compress().layout([Layout(8, 49)])
