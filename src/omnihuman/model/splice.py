"""Streams into their places in the text."""

from collections.abc import Mapping, Sequence
from itertools import accumulate, pairwise

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from omnihuman.types import SLOTS, Features


def splice(
    embeds: Float[Tensor, "1 L D"],
    input_ids: Int[Tensor, "1 L"],
    bounds: Sequence[int],
    streams: Mapping[str, Features],
    has_gaps: bool = False,
) -> tuple[Float[Tensor, "1 L D"], Bool[Tensor, " L"]]:
    """Overwrite every run of a slot's id by the real tokens of that slot's stream, sample by sample.

    Args:
        embeds: of the packed row.
        input_ids: of the packed row.
        bounds: where its samples start, and the end.
        streams: by slot.
        has_gaps: fewer tokens than places may be real, as where a frame shows no face.

    Returns:
        The row, and which of its positions stay: a place that no token fills does not.

    Raises:
        ValueError: a slot has no stream, or a sample has more or (without gaps) fewer places than tokens.

    >>> row = torch.tensor([[5, -201, -201, 7]])
    >>> stream = Features.of(torch.ones(1, 1, 2, 8), torch.ones(1, 1, dtype=torch.bool))
    >>> splice(torch.zeros(1, 4, 8), row, [0, 4], {"video": stream})[0][0, :, 0]
    tensor([0., 1., 1., 0.])
    """
    kept = torch.ones_like(input_ids[0], dtype=torch.bool)
    for slot, slot_id in SLOTS.items():
        places = input_ids == slot_id
        if slot not in streams:
            if places.any():
                raise ValueError(f"the text holds a place for <{slot}>, but the model has no stream of that name.")
            continue
        tokens, mask = streams[slot].flat()
        wanted = torch.stack([places[0, start:end].sum() for start, end in pairwise(bounds)])
        given = mask.sum(dim=1)
        if has_gaps and bool((given < wanted).any()):
            # the first places of every sample's run are filled
            before = torch.cat([places[0, start:end].cumsum(dim=0) for start, end in pairwise(bounds)])
            filled = places & (before <= given.repeat_interleave(_lengths(bounds, given)))
            kept &= ~(places & ~filled)[0]
            places, wanted = filled, torch.minimum(wanted, given)
        if not torch.equal(wanted, given):
            raise ValueError(
                f"<{slot}>: the samples of this row hold {wanted.tolist()} places for {given.tolist()} tokens; the "
                "layouts that planned the row disagree with the features."
            )
        # also with nothing to place: the stream stays in the graph, so that no rank waits for another's gradients
        embeds = embeds.masked_scatter(places.unsqueeze(-1), tokens[mask].to(embeds.dtype))
    return embeds, kept


def shortened(
    kept: Bool[Tensor, " L"], bounds: Sequence[int], *rows: Tensor
) -> tuple[list[int], Int[Tensor, "1 M"], list[Tensor]]:
    """A packed row without the positions that do not stay: bounds, positions counted anew, and what else lies on it.

    >>> shortened(torch.tensor([True, False, True, True]), [0, 3, 4], torch.tensor([[5, 6, 7, 8]]))
    ([0, 2, 3], tensor([[0, 1, 0]]), [tensor([[5, 7, 8]])])
    """
    lengths = [int(kept[start:end].sum()) for start, end in pairwise(bounds)]
    positions = torch.cat([torch.arange(length, device=kept.device) for length in lengths])[None]
    return [0, *accumulate(lengths)], positions, [row[:, kept] for row in rows]


def _lengths(bounds: Sequence[int], like: Tensor) -> Tensor:
    return torch.tensor([end - start for start, end in pairwise(bounds)], device=like.device)
