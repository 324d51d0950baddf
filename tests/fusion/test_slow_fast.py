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
    result = compress()({"video": video(frames, (14, 14))})["video"]
    assert result.tokens.shape == (1, 1, total, 8) and result.mask.all() and result.grid is None


@pytest.mark.parametrize("frames", [1, 2, 5, 6, 9])
@pytest.mark.parametrize("grid", [(4, 4), (7, 7), (5, 4)])
def test_fast_first_then_slow(frames: int, grid: tuple[int, int]) -> None:
    """The result equals a loop over the frames."""
    stream = video(frames, grid)
    expected = []
    for frame in stream.tokens[0]:
        expected.append(F.avg_pool2d(frame.T.reshape(8, *grid), 2).flatten(1).T)
    expected += [stream.tokens[0, t] for t in (range(1, frames, 4) if frames > 1 else [0])]
    result = compress()({"video": stream})["video"]
    torch.testing.assert_close(result.tokens[0, 0], torch.cat(expected))


def test_samples_of_different_length_keep_their_own_frames() -> None:
    samples = [video(frames, (4, 4)) for frames in (9, 1, 6)]
    tokens, mask = torch.full((3, 9, 16, 8), torch.nan), torch.zeros(3, 9, dtype=torch.bool)
    for b, sample in enumerate(samples):
        tokens[b, : sample.tokens.shape[1]], mask[b, : sample.tokens.shape[1]] = sample.tokens[0], True
    result = compress()({"video": Features.of(tokens, mask, (4, 4))})["video"]
    assert not result.tokens[~result.mask].any()
    for b, sample in enumerate(samples):
        torch.testing.assert_close(
            result.tokens[b][result.mask[b]], compress()({"video": sample})["video"].tokens[0, 0]
        )


def test_off_changes_nothing() -> None:
    stream = video(5, (4, 4))
    result = compress(pool=1, every=None)({"video": stream})["video"]
    assert torch.equal(result.tokens[0, 0], stream.tokens[0].flatten(0, 1))
    assert compress(pool=1, every=None).layout([Layout(8, 49, (7, 7))]).num_tokens == 392


def test_bad_options_raise() -> None:
    with pytest.raises(ValueError, match=r"one stream.*inputs=\['a', 'b'\]"):
        SlowFast({"a": 8, "b": 8}, ["a", "b"], "video")
    with pytest.raises(ValueError, match=r"slow_fast .*grid.*'video'"):
        compress().layout([Layout(8, 49)])
