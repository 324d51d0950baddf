"""Face tokens that have looked at their frame."""

from collections.abc import Mapping, Sequence

from omnihuman.fusion.base import Fusion
from omnihuman.nn.attention import CrossAttention
from omnihuman.nn.rows import on_real
from omnihuman.nn.streams import one_length, side_by_side, to_longest
from omnihuman.types import Features, Layout


class FrameAttend(Fusion):
    """Video ``[B T N D]`` and face ``[B T F D]`` -> ``[B T N+F D]``: V1 A1 V2 A2 ..., A = attention(q = F, kv = V).

    Reference: Omni-Emotion §3, fusion (b), which passes the visual tokens on beside the attended ones. The paper does
    not say whether before or after the projectors: both work. Before them the widths may differ and the video stays a
    stream of its own, so there the face is the only input and the video the ``condition``.

    Args:
        dims: width of every stream.
        inputs: video and face; or the face alone.
        output: name of the result.
        condition: the video, where the face is the only input.
        heads: of the attention.
        residual: add the face tokens to what they have read.
        beside: pass the video on beside what the face has read, where both are inputs.

    Raises:
        ValueError: there is not one face and one video, they differ in moments, or the heads do not divide the width.

    >>> join = FrameAttend({"video": 8, "face": 8}, ["video", "face"], "video", heads=2)
    >>> video, face = (Features.of(torch.ones(1, 8, n, 8), torch.ones(1, 8).bool()) for n in (196, 49))
    >>> join({"video": video, "face": face})["video"].tokens.shape
    torch.Size([1, 8, 245, 8])
    """

    def __init__(
        self,
        dims: Mapping[str, int],
        inputs: Sequence[str],
        output: str,
        condition: str | None = None,
        heads: int = 8,
        residual: bool = False,
        beside: bool = True,
    ) -> None:
        super().__init__(dims, inputs, output, condition)
        if len(self.inputs) != (2 if condition is None else 1):
            raise ValueError(
                f"frame_attend reads inputs=[video, face], or inputs=[face] and condition=video, got inputs="
                f"{list(self.inputs)} and condition={condition}."
            )
        self.residual, self.beside = residual, beside and condition is None
        self.attention = CrossAttention(self.out_dim, dims[condition or self.inputs[0]], self.out_dim, heads)

    def layout(self, layouts: Sequence[Layout]) -> Layout:
        moments, face = one_length(layouts, self.inputs, "frame_attend"), layouts[-1]
        if self.beside:
            return Layout(moments, sum(layout.tokens for layout in layouts))
        return Layout(moments, face.tokens, face.grid)

    def merge(self, streams: list[Features], condition: Features | None) -> Features:
        video, face = to_longest([condition or streams[0], streams[-1]])
        # a frame without a face has nobody who looks, a frame that is missing nothing to look at
        real = video.mask.any(dim=2) & face.mask.any(dim=2)
        keys, queries, mask = video.tokens.flatten(0, 1), face.tokens.flatten(0, 1), video.mask.flatten(0, 1)
        read = on_real(
            lambda rows: self.attention(queries[rows], keys[rows], mask[rows]),
            real.flatten(),
            queries.shape[1:],
            queries.dtype,
        ).view_as(face.tokens)
        if self.residual:
            read = face.tokens + read
        attended = Features(read, face.mask & real[..., None], face.grid)
        return side_by_side([video, attended]) if self.beside else attended
