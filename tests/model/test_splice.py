"""The splice equals a ten-line loop."""

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from omnihuman.modality import SLOTS
from omnihuman.model.splice import drop_positions, splice
from omnihuman.types import Features


def splice_by_loop(
    embeds: torch.Tensor, ids: torch.Tensor, bounds: list[int], streams: dict[str, Features]
) -> torch.Tensor:
    spliced = embeds.clone()
    for sample, (start, end) in enumerate(itertools.pairwise(bounds)):
        for slot, stream in streams.items():
            tokens = list(stream.tokens[sample][stream.mask[sample]])
            for position in range(start, end):
                if ids[0, position] == SLOTS[slot]:
                    spliced[0, position] = tokens.pop(0)
    return spliced


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 2), st.integers(1, 4)), min_size=1, max_size=4), st.integers()
)
def test_equals_a_loop(samples: list[tuple[int, int, int]], seed: int) -> None:
    generator = torch.Generator().manual_seed(seed % 2**31)
    ids, bounds = [], [0]
    masks = {
        "video": torch.zeros(len(samples), 3, 2, dtype=torch.bool),
        "audio": torch.zeros(len(samples), 2, 1, dtype=torch.bool),
    }
    for sample, (frames, hops, text) in enumerate(samples):
        masks["video"][sample, :frames] = True
        masks["audio"][sample, :hops] = True
        ids += [1] * text + [SLOTS["video"]] * (2 * frames) + [2] + [SLOTS["audio"]] * hops
        bounds.append(len(ids))
    streams = {slot: Features(torch.randn(*mask.shape, 4, generator=generator), mask) for slot, mask in masks.items()}
    packed = torch.tensor([ids])
    embeds = torch.randn(1, len(ids), 4, generator=generator)
    spliced, mask = splice(embeds, packed, bounds, streams)
    assert mask.all() and torch.equal(spliced, splice_by_loop(embeds, packed, bounds, streams))


@settings(max_examples=40, deadline=None)
@given(st.lists(st.lists(st.booleans(), min_size=1, max_size=4), min_size=1, max_size=3), st.integers(0, 2**31))
def test_placeholders_without_a_token_are_dropped(samples: list[list[bool]], seed: int) -> None:
    """The result equals that of samples planned with the frames whose faces were detected."""
    generator = torch.Generator().manual_seed(seed)
    mask = torch.zeros(len(samples), 4, 2, dtype=torch.bool)
    planned, exact, planned_bounds, exact_bounds = [], [], [0], [0]
    for sample, faces in enumerate(samples):
        mask[sample, : len(faces)] = torch.tensor(faces)[:, None]
        for ids, bounds, num_frames in ((planned, planned_bounds, len(faces)), (exact, exact_bounds, sum(faces))):
            ids += [7, *[SLOTS["video"]] * (2 * num_frames), 8 + sample]
            bounds.append(len(ids))
    streams = {"video": Features(torch.randn(*mask.shape, 4, generator=generator), mask)}
    long, short = torch.tensor([planned]), torch.tensor([exact])

    spliced, mask_of_positions = splice(embed_ids(long), long, planned_bounds, streams, has_gaps=True)
    bounds, positions, (spliced,) = drop_positions(mask_of_positions, planned_bounds, spliced)
    assert bounds == exact_bounds
    assert torch.equal(spliced, splice_by_loop(embed_ids(short), short, exact_bounds, streams))
    expected = [torch.arange(end - start) for start, end in itertools.pairwise(exact_bounds)]
    assert torch.equal(positions[0], torch.cat(expected))
    if not all(map(all, samples)):
        with pytest.raises(ValueError, match="places for"):
            splice(embed_ids(long), long, planned_bounds, streams)


def embed_ids(ids: torch.Tensor) -> torch.Tensor:
    return ids[..., None].float().expand(-1, -1, 4)


def build_stream(num_tokens: int) -> Features:
    return Features.of(torch.ones(1, num_tokens, 1, 4), torch.ones(1, num_tokens, dtype=torch.bool))


def test_wrong_count_names_both_sides() -> None:
    ids = torch.tensor([[1, SLOTS["audio"], SLOTS["audio"]]])
    with pytest.raises(ValueError, match=r"<audio>.*\[2\] places for \[3\] tokens"):
        splice(torch.zeros(1, 3, 4), ids, [0, 3], {"audio": build_stream(3)})


def test_equal_totals_of_different_samples_raise() -> None:
    ids = torch.tensor([[SLOTS["audio"], SLOTS["audio"], 1]])
    stream = Features.of(torch.ones(2, 1, 1, 4), torch.ones(2, 1, dtype=torch.bool))
    with pytest.raises(ValueError, match=r"\[2, 0\] places for \[1, 1\] tokens"):
        splice(torch.zeros(1, 3, 4), ids, [0, 2, 3], {"audio": stream})


def test_slot_without_a_stream_raises() -> None:
    with pytest.raises(ValueError, match=r"<video>.*no stream"):
        splice(torch.zeros(1, 1, 4), torch.tensor([[SLOTS["video"]]]), [0, 1], {})


def test_empty_stream_stays_in_the_graph() -> None:
    tokens = torch.ones(1, 2, 1, 4, requires_grad=True)
    stream = Features.of(tokens, torch.zeros(1, 2, dtype=torch.bool))
    splice(torch.zeros(1, 1, 4), torch.tensor([[1]]), [0, 1], {"audio": stream})[0].sum().backward()
    assert tokens.grad is not None and not tokens.grad.any()
