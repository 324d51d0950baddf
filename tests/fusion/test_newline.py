"""Newline tokens: LLaVA's counts and positions."""

from dataclasses import replace
from typing import Any, Literal

import pytest
import torch

from omnihuman.fusion.newline import Newline
from omnihuman.types import Features, Layout, Tiling

Mode = Literal["one", "frame", "grid", "none"]


def newline(mode: Mode, width: int = 1) -> Newline:
    part = Newline({"video": width}, ["video"], "video", mode=mode)
    if mode != "none":
        torch.nn.init.constant_(part.newline, -1)
    return part


def video(*valid: int, grid: tuple[int, int] | None = (2, 2)) -> Features:
    """Return tokens whose values count up from 0."""
    tokens = torch.arange(4.0 * len(valid)).view(1, len(valid), 4, 1)
    return Features.of(tokens, torch.tensor([valid], dtype=torch.bool), grid)


def read_tokens(mode: Mode, stream: Features) -> list[float]:
    """Return the valid tokens in reading order."""
    tokens, mask = newline(mode)({"video": stream})["video"].flat()
    return tokens[mask][:, 0].tolist()


@pytest.mark.parametrize(("mode", "total"), [("one", 1569), ("frame", 1576), ("grid", 1680), ("none", 1568)])
def test_counts_of_eight_frames(mode: Mode, total: int) -> None:
    """Reference: ``mm_newline_position`` of LLaVA-NeXT; 1569 are those of transformers' LLaVA-OneVision as well."""
    part = newline(mode, width=3)
    assert part.layout([Layout(8, 196, (14, 14))]).num_tokens == total
    frames = Features.of(torch.zeros(1, 8, 196, 3), torch.ones(1, 8, dtype=torch.bool), (14, 14))
    result = part({"video": frames})["video"]
    assert result.mask.all() and result.mask.numel() == total


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        ("one", [0, 1, 2, 3, 4, 5, 6, 7, -1]),
        ("frame", [0, 1, 2, 3, -1, 4, 5, 6, 7, -1]),
        ("grid", [0, 1, -1, 2, 3, -1, 4, 5, -1, 6, 7, -1]),
        ("none", [0, 1, 2, 3, 4, 5, 6, 7]),
    ],
)
def test_positions(mode: Mode, expected: list[float]) -> None:
    assert read_tokens(mode, video(1, 1)) == expected
    assert read_tokens(mode, video(1, 1, 0, 0)) == expected


@pytest.mark.parametrize(
    ("mode", "expected"),
    [("one", [4, 5, 6, 7, -1]), ("frame", [4, 5, 6, 7, -1]), ("grid", [4, 5, -1, 6, 7, -1]), ("none", [4, 5, 6, 7])],
)
def test_masked_frames_get_none(mode: Mode, expected: list[float]) -> None:
    assert read_tokens(mode, video(0, 1, 0)) == expected
    assert read_tokens(mode, video(0)) == []


@pytest.mark.parametrize(("mode", "count"), [("one", 5), ("frame", 5), ("grid", 6), ("none", 4)])
def test_a_still_has_its_newline(mode: Mode, count: int) -> None:
    assert len(read_tokens(mode, video(1))) == count == newline(mode).layout([Layout(1, 4, (2, 2))]).num_tokens


def test_initialization_is_llavas() -> None:
    torch.manual_seed(0)
    assert Newline({"video": 4096}, ["video"], "video").newline.std().item() == pytest.approx(1 / 64, rel=0.05)
    assert not list(newline("none").parameters())


def test_mode_none_changes_nothing() -> None:
    stream: Any = video(1, 0, 1)
    result = newline("none")({"video": stream})["video"]
    assert result.tokens is stream.tokens and result.grid == (2, 2)


def test_videos_and_images_in_tiles_of_one_batch() -> None:
    """The grid of frames is halved, that of tiles is not; a row of tiles and an image end with the token."""
    part = Newline({"video": 1}, ["video"], "video", resize="ceil_half")
    torch.nn.init.constant_(part.newline, -1)
    tokens = torch.arange(4.0).view(1, 1, 4, 1).repeat(3, 3, 1, 1) + 10 * torch.arange(3.0)[None, :, None, None]
    mask = torch.tensor([[1, 1, 0], [1, 1, 1], [1, 0, 0]], dtype=torch.bool)
    tilings = [Tiling(0, 0, 0, 0), Tiling(1, 2, 40, 80), Tiling(0, 0, 40, 40)]
    stream = replace(Features.of(tokens, mask, (2, 2)), tilings=torch.tensor(tilings))
    merged, valid = part({"video": stream})["video"].flat()
    rows = [row[keep][:, 0].tolist() for row, keep in zip(merged, valid, strict=True)]
    assert rows[0] == [1.5, 11.5, -1]
    assert rows[1] == [0, 1, 2, 3, 10, 11, 20, 21, -1, 12, 13, 22, 23, -1]
    assert rows[2] == [0, 1, 2, 3, -1]
    assert part.layout([Layout(2, 4, (2, 2))]).num_tokens == 3
    for tiling, row in zip(tilings[1:], rows[1:], strict=True):
        assert part.layout([Layout(3, 4, (2, 2), tiling=tiling)]).num_tokens == len(row)
    with pytest.raises(ValueError, match=r"mode=none.*data\.tiles"):
        newline("none").layout([Layout(3, 4, (2, 2), tiling=tilings[1])])


def test_bad_options_raise() -> None:
    with pytest.raises(ValueError, match=r"one stream.*inputs=\['a', 'b'\]"):
        Newline({"a": 1, "b": 1}, ["a", "b"], "video")
    for ask in (lambda: newline("grid").layout([Layout(8, 4)]), lambda: read_tokens("grid", video(1, grid=None))):
        with pytest.raises(ValueError, match=r"grid.*'video'.*mode=frame\b"):
            ask()
