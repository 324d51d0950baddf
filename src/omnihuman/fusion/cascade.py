"""FaVChat's cascade over the levels of an encoder."""

from collections.abc import Mapping, Sequence
from typing import Literal

from einops import rearrange
from torch import Tensor, nn

from omnihuman.fusion.base import Fusion
from omnihuman.nn.attention import CrossAttention
from omnihuman.nn.masking import run_on_valid
from omnihuman.nn.streams import pad_to_longest
from omnihuman.types import Features, Layout, Width


class Cascade(Fusion):
    """A stream with levels ``[B T N_i D_i]`` and general features ``[B T N D]`` -> ``[B T N_last dim]``.

    Each level attends to the result of the level before it: e*_2 = attention(q = e_1, kv = general features), e*_(i+1)
    = attention(q = e_i, kv = e*_i). The queries are always the raw level, and the general features enter once.

    Reference: FaVChat v1, Eq. 2, which leaves out heads, norms and residuals, as the defaults do. A Linear per level
    brings it to the one width that the equation needs; each level has its own projections.

    Args:
        dims: width of every stream.
        inputs: one stream whose encoder offers levels, such as the face.
        output: name of the result.
        condition: the general features.
        dim: width of the cascade; ``null`` for the width of the input's tokens.
        heads: heads of each attention.
        levels: indices of the levels, shallow to deep; ``null`` for all.
        by: ``frame``, a frame attends to the general features of the same frame; ``clip``, to those of all frames.
        residual: add the queries to the attention's output. A frame without general features then keeps its queries;
            without the residual it has no valid tokens.
        norm: a LayerNorm before each attention.

    Raises:
        ValueError: there is no condition, more than one input, the levels do not exist, or the heads do not divide
            ``dim``.

    >>> cascade = Cascade({"face": Width(8, (4, 6)), "video": 5}, ["face"], "face", "video", heads=2)
    >>> mask = torch.ones(1, 3, dtype=torch.bool)
    >>> shallow, deep = Features.of(torch.ones(1, 3, 16, 4), mask), Features.of(torch.ones(1, 3, 4, 6), mask)
    >>> face = Features(deep.tokens, deep.mask, levels=(shallow, deep))
    >>> cascade({"face": face, "video": Features.of(torch.ones(1, 3, 9, 5), mask)})["face"].tokens.shape
    torch.Size([1, 3, 4, 8])
    """

    max_inputs = 1
    condition_use = "required"
    aligned_condition = True
    reads_levels = True

    def __init__(
        self,
        dims: Mapping[str, int],
        inputs: Sequence[str],
        output: str,
        condition: str | None = None,
        dim: int | None = None,
        heads: int = 8,
        levels: Sequence[int] | None = None,
        by: Literal["frame", "clip"] = "frame",
        residual: bool = False,
        norm: bool = False,
    ) -> None:
        super().__init__(dims, inputs, output, condition)
        assert condition is not None
        widths = _select_levels(dims, self.inputs[0], levels)
        self.levels, self.by, self.residual = tuple(widths), by, residual
        self.aligned_condition = by == "frame"
        self.out_dim = int(dim or self.out_dim)
        self.maps = nn.ModuleList(nn.Linear(width, self.out_dim) for width in widths.values())
        key_dims = [dims[condition], *[self.out_dim] * (len(widths) - 1)]
        self.attentions = nn.ModuleList(
            CrossAttention(self.out_dim, key_dim, self.out_dim, heads, norm) for key_dim in key_dims
        )

    def layout(self, layouts: Sequence[Layout]) -> Layout:
        return layouts[0].levels[self.levels[-1]]

    def merge(self, streams: list[Features], condition: Features | None) -> Features:
        assert condition is not None
        levels = [streams[0].levels[level] for level in self.levels]
        general, *levels = pad_to_longest([condition, *levels])
        last = levels[-1]
        # the groups [G N ..] in which attention runs: frames or clips
        pattern = "B T N ... -> (B T) N ..."
        if self.by == "clip":
            pattern = "B T N ... -> B (T N) ..."
        tokens = [rearrange(stream.tokens, pattern) for stream in (general, *levels)]
        masks = [rearrange(stream.mask, pattern) for stream in (general, *levels)]
        valid = masks[-1].any(dim=1)
        if not self.residual:  # without anything to attend to, the result is empty
            valid = valid & masks[0].any(dim=1)

        def run(index: Tensor) -> Tensor:
            result, mask = tokens[0][index], masks[0][index]
            for level, (to_dim, attention) in enumerate(zip(self.maps, self.attentions, strict=True), start=1):
                queries = to_dim(tokens[level][index])
                attended = attention(queries, result, mask).masked_fill(~mask.any(dim=1)[:, None, None], 0)
                if self.residual:
                    attended = queries + attended
                result, mask = attended, masks[level][index]
            return result

        size = (tokens[-1].shape[1], self.out_dim)
        merged = run_on_valid(run, valid, size, last.tokens.dtype).reshape(*last.mask.shape, self.out_dim)
        return Features(merged, (masks[-1] & valid[:, None]).view_as(last.mask), last.grid)


def _select_levels(dims: Mapping[str, int], stream: str, levels: Sequence[int] | None) -> dict[int, int]:
    """Return the widths of the selected levels, by index."""
    width = dims[stream]
    assert isinstance(width, Width)
    widths = dict(enumerate(width.levels))
    selected = list(widths)
    if levels is not None:
        selected = list(levels)
    if not selected or set(selected) - set(widths):
        raise ValueError(f"cascade: levels={selected}, but {stream!r} offers {list(widths)}, of widths {widths}.")
    return {level: widths[level] for level in selected}
