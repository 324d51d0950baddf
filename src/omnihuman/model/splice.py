"""Streams into their places in the text."""

from collections.abc import Mapping, Sequence
from itertools import pairwise

import torch
from jaxtyping import Float, Int
from torch import Tensor

from omnihuman.types import SLOTS, Features


def splice(
    embeds: Float[Tensor, "1 L D"],
    input_ids: Int[Tensor, "1 L"],
    bounds: Sequence[int],
    streams: Mapping[str, Features],
) -> Float[Tensor, "1 L D"]:
    """Overwrite every run of a slot's id by the real tokens of that slot's stream, sample by sample.

    Raises:
        ValueError: a slot has no stream, or a sample has more or fewer places than tokens.

    >>> row = torch.tensor([[5, -201, -201, 7]])
    >>> stream = Features.of(torch.ones(1, 1, 2, 8), torch.ones(1, 1, dtype=torch.bool))
    >>> splice(torch.zeros(1, 4, 8), row, [0, 4], {"video": stream})[0, :, 0]
    tensor([0., 1., 1., 0.])
    """
    for slot, slot_id in SLOTS.items():
        places = input_ids == slot_id
        if slot not in streams:
            if places.any():
                raise ValueError(f"the text holds a place for <{slot}>, but the model has no stream of that name.")
            continue
        tokens, mask = streams[slot].flat()
        wanted = torch.stack([places[0, start:end].sum() for start, end in pairwise(bounds)])
        if not torch.equal(wanted, given := mask.sum(dim=1)):
            raise ValueError(
                f"<{slot}>: the samples of this row hold {wanted.tolist()} places for {given.tolist()} tokens; the "
                "layouts that planned the row disagree with the features."
            )
        # also with nothing to place: the stream stays in the graph, so that no rank waits for another's gradients
        embeds = embeds.masked_scatter(places.unsqueeze(-1), tokens[mask].to(embeds.dtype))
    return embeds
