"""Splicing of streams into the packed sequence."""

from collections.abc import Mapping, Sequence
from itertools import accumulate, pairwise

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from omnihuman.modality import SLOTS
from omnihuman.types import Features


def splice(
    embeds: Float[Tensor, "1 L D"],
    input_ids: Int[Tensor, "1 L"],
    bounds: Sequence[int],
    streams: Mapping[str, Features],
    has_gaps: bool = False,
    rows: Sequence[int] = (),
) -> tuple[Float[Tensor, "1 L D"], Bool[Tensor, " L"]]:
    """Overwrite every placeholder of a slot by the valid tokens of that slot's stream, sample by sample.

    Args:
        embeds: of the packed sequence.
        input_ids: of the packed sequence; a placeholder is a run of the slot's id, one per token.
        bounds: start of every sample, and the end.
        streams: by slot.
        has_gaps: a sample may have fewer valid tokens than placeholders, such as for a frame without a face.
        rows: numbers of rows that each sample has in the streams, see ``Batch.rows``; each fills as many placeholders.

    Returns:
        The packed sequence, and a mask of the positions to keep: all but placeholders without a token.

    Raises:
        ValueError: a slot has no stream, or a sample has more or (without gaps) fewer placeholders than tokens.

    >>> ids = torch.tensor([[5, -201, -201, 7]])
    >>> stream = Features.of(torch.ones(1, 1, 2, 8), torch.ones(1, 1, dtype=torch.bool))
    >>> splice(torch.zeros(1, 4, 8), ids, [0, 4], {"video": stream})[0][0, :, 0]
    tensor([0., 1., 1., 0.])
    """
    mask = torch.ones_like(input_ids[0], dtype=torch.bool)
    for slot, slot_id in SLOTS.items():
        places = input_ids == slot_id
        if slot not in streams:
            if places.any():
                raise ValueError(f"the text has a placeholder <{slot}>, but the model has no stream of that name.")
            continue
        row_bounds = split_rows(places, bounds, rows) if rows else bounds
        tokens, valid = streams[slot].flat()
        num_tokens = valid.sum(dim=1)
        if has_gaps:
            filled = _first_places(places, row_bounds, num_tokens)
            mask &= ~(places & ~filled)[0]
            places = filled
        num_places = torch.stack([places[0, start:end].sum() for start, end in pairwise(row_bounds)])
        if not torch.equal(num_places, num_tokens):
            raise ValueError(
                f"<{slot}>: the samples of this packed sequence have {num_places.tolist()} places for "
                f"{num_tokens.tolist()} tokens; the layouts that planned it disagree with the features."
            )
        # also without a placeholder: the stream stays in the graph, so that no rank waits for another's gradients
        embeds = embeds.masked_scatter(places.unsqueeze(-1), tokens[valid].to(embeds.dtype))
    return embeds, mask


def split_rows(places: Bool[Tensor, "1 L"], bounds: Sequence[int], rows: Sequence[int]) -> list[int]:
    """Return the bounds of the rows of every sample, each of which has the same number of its places.

    >>> split_rows(torch.tensor([[True, False, True, True, False]]), [0, 2, 5], [1, 2])
    [0, 2, 3, 5]
    """
    row_bounds = [0]
    for (start, end), num_rows in zip(pairwise(bounds), rows, strict=True):
        positions = (places[0, start:end].nonzero().squeeze(-1) + start).tolist()
        num_places = len(positions) // num_rows
        for row in range(1, num_rows):
            row_bounds.append(positions[row * num_places] if positions else end)
        row_bounds.append(end)
    return row_bounds


def drop_positions(
    mask: Bool[Tensor, " L"], bounds: Sequence[int], *tensors: Tensor
) -> tuple[list[int], Int[Tensor, "1 M"], list[Tensor]]:
    """Return a packed sequence without the positions outside the mask: bounds, new position ids, and its tensors.

    >>> drop_positions(torch.tensor([True, False, True, True]), [0, 3, 4], torch.tensor([[5, 6, 7, 8]]))
    ([0, 2, 3], tensor([[0, 1, 0]]), [tensor([[5, 7, 8]])])
    """
    lengths = [int(mask[start:end].sum()) for start, end in pairwise(bounds)]
    positions = torch.cat([torch.arange(length, device=mask.device) for length in lengths])[None]
    return [0, *accumulate(lengths)], positions, [tensor[:, mask] for tensor in tensors]


def _first_places(
    places: Bool[Tensor, "1 L"], bounds: Sequence[int], num_tokens: Int[Tensor, " B"]
) -> Bool[Tensor, "1 L"]:
    """Return the places of every sample that its tokens fill: the first ones."""
    counts = torch.cat([places[0, start:end].cumsum(dim=0) for start, end in pairwise(bounds)])
    lengths = torch.tensor([end - start for start, end in pairwise(bounds)], device=num_tokens.device)
    return places & (counts <= num_tokens.repeat_interleave(lengths))
