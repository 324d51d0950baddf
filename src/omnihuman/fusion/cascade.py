"""FaVChat's cascade over the levels of a face encoder."""

from collections.abc import Mapping, Sequence
from typing import Literal

from einops import rearrange
from torch import Tensor, nn

from omnihuman.fusion.base import Fusion
from omnihuman.nn.attention import CrossAttention
from omnihuman.nn.rows import on_real
from omnihuman.nn.streams import to_longest
from omnihuman.types import Features, Layout, Width


class Cascade(Fusion):
    """A face with levels ``[B T N_i D_i]`` and general features ``[B T N D]`` -> ``[B T N_last dim]``.

    Each level asks what the level before it has found: e*_2 = attention(q = e_1, kv = general features), e*_(i+1) =
    attention(q = e_i, kv = e*_i). The queries are always the raw facial level, and the general features enter once.

    Reference: FaVChat v1, Eq. 2, which leaves out heads, norms and residuals, as the defaults do. A Linear per level
    brings it to the one width that the equation needs; the projections are those of each level.

    Args:
        dims: width of every stream.
        inputs: the face, whose encoder offers levels.
        output: name of the result.
        condition: the general features.
        dim: width of the cascade; ``null`` for that of the face's own tokens.
        heads: of each attention.
        levels: which levels, by index, shallow to deep; ``null`` for all.
        by: ``frame``, a face reads the general features of its own frame; ``clip``, of all frames.
        residual: add the level to what it has read; a face that has nothing to read is then what it shows, where else
            it has found nothing.
        norm: a LayerNorm before each attention.

    Raises:
        ValueError: there is no condition, more than one input, the face has no levels or not those, or the heads do
            not divide ``dim``.

    >>> cascade = Cascade({"face": Width(8, (4, 6)), "video": 5}, ["face"], "face", "video", heads=2)
    >>> deep, shallow, video = (Features.of(torch.ones(1, 3, n, d), torch.ones(1, 3).bool()) for n, d in
    ...                         ((4, 6), (16, 4), (9, 5)))
    >>> face = Features(deep.tokens, deep.mask, levels=(shallow, deep))
    >>> cascade({"face": face, "video": video})["face"].tokens.shape
    torch.Size([1, 3, 4, 8])
    """

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
        if condition is None or len(self.inputs) != 1:
            raise ValueError(
                f"cascade reads inputs=[face] and condition=video, got inputs={list(self.inputs)} and "
                f"condition={condition}."
            )
        widths = _level_dims(dims, self.inputs[0], levels)
        self.levels, self.by, self.residual = tuple(widths), by, residual
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
        given = to_longest([condition, *(streams[0].levels[level] for level in self.levels)])
        last = given[-1]
        pattern = "B T N ... -> (B T) N ..." if self.by == "frame" else "B T N ... -> B (T N) ..."
        tokens = [rearrange(stream.tokens, pattern) for stream in given]
        masks = [rearrange(stream.mask, pattern) for stream in given]
        real = masks[-1].any(dim=1)
        if not self.residual:  # a face that has nothing to read has found nothing
            real = real & masks[0].any(dim=1)

        def run(rows: Tensor) -> Tensor:
            found, seen = tokens[0][rows], masks[0][rows]
            for level, to_dim, attention in zip(range(1, len(given)), self.maps, self.attentions, strict=True):
                queries = to_dim(tokens[level][rows])
                read = attention(queries, found, seen).masked_fill(~seen.any(dim=1)[:, None, None], 0)
                found, seen = queries + read if self.residual else read, masks[level][rows]
            return found

        size = (tokens[-1].shape[1], self.out_dim)
        made = on_real(run, real, size, last.tokens.dtype).reshape(*last.mask.shape, self.out_dim)
        return Features(made, (masks[-1] & real[:, None]).view_as(last.mask), last.grid)


def _level_dims(dims: Mapping[str, int], face: str, levels: Sequence[int] | None) -> dict[int, int]:
    """Widths of the chosen levels, by index."""
    offered = {name: width.levels for name, width in dims.items() if isinstance(width, Width) and width.levels}
    if face not in offered:
        there = f"only {sorted(offered)} has them here" if offered else "facexformer offers them"
        raise ValueError(
            f"cascade reads the levels of {face!r}, but the encoder of that stream offers none; {there}. A projector "
            "or a fusion hands no levels on: let the cascade be the first early fusion of the face."
        )
    widths = dict(enumerate(offered[face]))
    chosen = list(widths) if levels is None else list(levels)
    if not chosen or set(chosen) - set(widths):
        raise ValueError(f"cascade: levels={chosen}, but {face!r} offers {list(widths)}, of widths {widths}.")
    return {level: widths[level] for level in chosen}
