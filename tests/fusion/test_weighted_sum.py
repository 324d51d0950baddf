"""Streams added by fixed or learned weights."""

from typing import Any

import pytest
import torch

from omnihuman.fusion.weighted_sum import WeightedSum
from omnihuman.types import Features, Layout

NAMES = ["video", "face"]


def add(**options: Any) -> WeightedSum:
    return WeightedSum(dict.fromkeys(NAMES, 4), NAMES, "video", **options)


def stream(value: float, *valid: int) -> Features:
    return Features.of(torch.full((1, len(valid), 3, 4), float(value)), torch.tensor([valid], dtype=torch.bool))


@pytest.mark.parametrize(("weights", "expected"), [(None, 3), ([0.75, 0.25], 2), ([1.0, 1.0], 6), ([2.0, 0.2], 3)])
def test_fixed(weights: list[float] | None, expected: float) -> None:
    part = add(weights=weights)
    merged = part({"video": stream(1, 1, 1), "face": stream(5, 1, 1)})["video"]
    torch.testing.assert_close(merged.tokens, torch.full_like(merged.tokens, expected))
    assert part.weights is not None and not list(part.parameters())
    torch.testing.assert_close(part.weights, torch.tensor([weights or [0.5, 0.5]]).float())


def test_missing_face_leaves_the_video() -> None:
    part = add(weights=[0.75, 0.25])
    merged = part({"video": stream(1, 1, 1), "face": stream(5, 1, 0)})["video"]
    assert merged.tokens[0, :, 0, 0].tolist() == [2, 1] and merged.mask.all()
    without_face = part({"video": stream(1, 1, 1), "face": stream(5, 0)})["video"]
    assert without_face.tokens.unique().tolist() == [1]
    assert part.weights is not None and part.weights.tolist() == [[1, 0]]


def test_learned_weights_start_fixed_and_keep_their_sum() -> None:
    streams = {"video": stream(1, 1, 1), "face": stream(5, 1, 0)}
    part, fixed = add(weights=[1.0, 3.0], learned=True), add(weights=[1.0, 3.0])
    torch.testing.assert_close(part(streams)["video"].tokens, fixed(streams)["video"].tokens)
    optimizer = torch.optim.SGD(part.parameters(), lr=0.05)
    for _ in range(200):
        optimizer.zero_grad()
        (part(streams)["video"].tokens[0, 0].mean() - 8).square().backward()  # 4 at most, of the video
        optimizer.step()
    assert part.weights is not None and not part.weights.requires_grad
    torch.testing.assert_close(part(streams)["video"].tokens[0, 0], torch.full((3, 4), 8.0))
    torch.testing.assert_close(part.weights.sum(dim=1), torch.tensor([4.0]))


def test_bad_options_raise() -> None:
    for weights in ([1.0], [1.0, 0.0], [1.0, -1.0]):
        with pytest.raises(ValueError, match=r"weights=.*above 0 .*\['video', 'face'\]"):
            add(weights=weights)
    with pytest.raises(ValueError, match=r"weighted_sum .*one shape"):
        add().layout([Layout(8, 196), Layout(8, 49)])
    assert add().layout([Layout(8, 196)] * 2) == Layout(8, 196)
