"""Newlines: LLaVA's counts and places."""

from typing import Any, Literal

import pytest
import torch

from omnihuman.fusion.newline import Newline
from omnihuman.types import Features, Layout

Mode = Literal["one", "frame", "grid", "none"]


def end(mode: Mode, width: int = 1) -> Newline:
    part = Newline({"video": width}, ["video"], "video", mode=mode)
    if mode != "none":
        torch.nn.init.constant_(part.newline, -1)
    return part


def video(*real: int, grid: tuple[int, int] | None = (2, 2)) -> Features:
    """Tokens that count on from 0."""
    tokens = torch.arange(4.0 * len(real)).view(1, len(real), 4, 1)
    return Features.of(tokens, torch.tensor([real], dtype=torch.bool), grid)


def read(mode: Mode, given: Features) -> list[float]:
    """What the language model reads."""
    tokens, mask = end(mode)({"video": given})["video"].flat()
    return tokens[mask][:, 0].tolist()


@pytest.mark.parametrize(("mode", "total"), [("one", 1569), ("frame", 1576), ("grid", 1680), ("none", 1568)])
def test_counts_of_eight_frames(mode: Mode, total: int) -> None:
    """Reference: ``mm_newline_position`` of LLaVA-NeXT; 1569 are those of transformers' LLaVA-OneVision as well."""
    part = end(mode, width=3)
    assert part.layout([Layout(8, 196, (14, 14))]).total == total
    frames = Features.of(torch.zeros(1, 8, 196, 3), torch.ones(1, 8, dtype=torch.bool), (14, 14))
    made = part({"video": frames})["video"]
    assert made.mask.all() and made.mask.numel() == total


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        ("one", [0, 1, 2, 3, 4, 5, 6, 7, -1]),
        ("frame", [0, 1, 2, 3, -1, 4, 5, 6, 7, -1]),
        ("grid", [0, 1, -1, 2, 3, -1, 4, 5, -1, 6, 7, -1]),
        ("none", [0, 1, 2, 3, 4, 5, 6, 7]),
    ],
)
def test_places(mode: Mode, expected: list[float]) -> None:
    assert read(mode, video(1, 1)) == expected
    assert read(mode, video(1, 1, 0, 0)) == expected


@pytest.mark.parametrize(
    ("mode", "expected"),
    [("one", [4, 5, 6, 7, -1]), ("frame", [4, 5, 6, 7, -1]), ("grid", [4, 5, -1, 6, 7, -1]), ("none", [4, 5, 6, 7])],
)
def test_what_is_hidden_gets_none(mode: Mode, expected: list[float]) -> None:
    assert read(mode, video(0, 1, 0)) == expected
    assert read(mode, video(0)) == []


@pytest.mark.parametrize(("mode", "count"), [("one", 5), ("frame", 5), ("grid", 6), ("none", 4)])
def test_a_still_has_its_newline(mode: Mode, count: int) -> None:
    assert len(read(mode, video(1))) == count == end(mode).layout([Layout(1, 4, (2, 2))]).total


def test_starts_as_llava_does() -> None:
    torch.manual_seed(0)
    assert Newline({"video": 4096}, ["video"], "video").newline.std().item() == pytest.approx(1 / 64, rel=0.05)
    assert not list(end("none").parameters())


def test_off_leaves_the_stream() -> None:
    given: Any = video(1, 0, 1)
    made = end("none")({"video": given})["video"]
    assert made.tokens is given.tokens and made.grid == (2, 2)


def test_what_it_cannot_do_is_named() -> None:
    with pytest.raises(ValueError, match=r"ends one stream, got \['a', 'b'\]"):
        Newline({"a": 1, "b": 1}, ["a", "b"], "video")
    for ask in (lambda: end("grid").layout([Layout(8, 4)]), lambda: read("grid", video(1, grid=None))):
        with pytest.raises(ValueError, match="rows of a grid, but the stream 'video' has none: set mode=frame"):
            ask()
