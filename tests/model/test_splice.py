"""The splice against a ten-line loop."""

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from omnihuman.model.splice import shortened, splice
from omnihuman.types import SLOTS, Features


def loop(embeds: torch.Tensor, ids: torch.Tensor, bounds: list[int], streams: dict[str, Features]) -> torch.Tensor:
    out = embeds.clone()
    for sample, (start, end) in enumerate(itertools.pairwise(bounds)):
        for slot, stream in streams.items():
            tokens = [
                stream.tokens[sample, t, n]
                for t in range(stream.mask.shape[1])
                for n in range(stream.mask.shape[2])
                if stream.mask[sample, t, n]
            ]
            for place in range(start, end):
                if ids[0, place] == SLOTS[slot]:
                    out[0, place] = tokens.pop(0)
    return out


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 2), st.integers(1, 4)), min_size=1, max_size=4), st.integers()
)
def test_equals_a_loop(samples: list[tuple[int, int, int]], seed: int) -> None:
    generator = torch.Generator().manual_seed(seed % 2**31)
    ids, bounds = [], [0]
    masks = {
        "video": torch.zeros(len(samples), 3, 2, dtype=torch.bool),
        "audio": torch.zeros(len(samples), 2, 1).bool(),
    }
    for row, (frames, hops, text) in enumerate(samples):
        masks["video"][row, :frames] = True
        masks["audio"][row, :hops] = True
        ids += [1] * text + [SLOTS["video"]] * (2 * frames) + [2] + [SLOTS["audio"]] * hops
        bounds.append(len(ids))
    streams = {slot: Features(torch.randn(*mask.shape, 4, generator=generator), mask) for slot, mask in masks.items()}
    row = torch.tensor([ids])
    embeds = torch.randn(1, len(ids), 4, generator=generator)
    spliced, kept = splice(embeds, row, bounds, streams)
    assert kept.all() and torch.equal(spliced, loop(embeds, row, bounds, streams))


@settings(max_examples=40, deadline=None)
@given(st.lists(st.lists(st.booleans(), min_size=1, max_size=4), min_size=1, max_size=3), st.integers(0, 2**31))
def test_places_without_a_token_go(samples: list[list[bool]], seed: int) -> None:
    """As if the samples had been planned with the frames alone whose faces are there."""
    generator = torch.Generator().manual_seed(seed)
    mask = torch.zeros(len(samples), 4, 2, dtype=torch.bool)
    planned, packed, bounds, alone = [], [], [0], [0]
    for row, faces in enumerate(samples):
        mask[row, : len(faces)] = torch.tensor(faces)[:, None]
        for ids, ends, count in ((planned, bounds, len(faces)), (packed, alone, sum(faces))):
            ids += [7, *[SLOTS["video"]] * (2 * count), 8 + row]
            ends.append(len(ids))
    streams = {"video": Features(torch.randn(*mask.shape, 4, generator=generator), mask)}
    long, short = torch.tensor([planned]), torch.tensor([packed])

    def embed(ids: torch.Tensor) -> torch.Tensor:
        return ids[..., None].float().expand(-1, -1, 4)

    spliced, kept = splice(embed(long), long, bounds, streams, has_gaps=True)
    ends, positions, (spliced,) = shortened(kept, bounds, spliced)
    assert ends == alone and torch.equal(spliced, loop(embed(short), short, alone, streams))
    assert positions[0].tolist() == [place for a, b in itertools.pairwise(alone) for place in range(b - a)]
    if any(not all(faces) for faces in samples):
        with pytest.raises(ValueError, match="places for"):
            splice(embed(long), long, bounds, streams)


def stream(tokens: int) -> Features:
    return Features.of(torch.ones(1, tokens, 1, 4), torch.ones(1, tokens, dtype=torch.bool))


def test_a_wrong_count_names_both_sides() -> None:
    row = torch.tensor([[1, SLOTS["audio"], SLOTS["audio"]]])
    with pytest.raises(ValueError, match=r"<audio>.*\[2\] places for \[3\] tokens"):
        splice(torch.zeros(1, 3, 4), row, [0, 3], {"audio": stream(3)})


def test_equal_totals_of_different_samples_are_caught() -> None:
    row = torch.tensor([[SLOTS["audio"], SLOTS["audio"], 1]])
    both = Features.of(torch.ones(2, 1, 1, 4), torch.ones(2, 1, dtype=torch.bool))
    with pytest.raises(ValueError, match=r"\[2, 0\] places for \[1, 1\] tokens"):
        splice(torch.zeros(1, 3, 4), row, [0, 2, 3], {"audio": both})


def test_a_slot_without_a_stream_is_an_error() -> None:
    with pytest.raises(ValueError, match="no stream of that name"):
        splice(torch.zeros(1, 1, 4), torch.tensor([[SLOTS["video"]]]), [0, 1], {})


def test_an_empty_stream_stays_in_the_graph() -> None:
    tokens = torch.ones(1, 2, 1, 4, requires_grad=True)
    empty = Features.of(tokens, torch.zeros(1, 2, dtype=torch.bool))
    splice(torch.zeros(1, 1, 4), torch.tensor([[1]]), [0, 1], {"audio": empty})[0].sum().backward()
    assert tokens.grad is not None and not tokens.grad.any()
