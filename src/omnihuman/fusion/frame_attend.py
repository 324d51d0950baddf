"""Cross-attention from a face to its frame."""

from collections.abc import Mapping, Sequence

from torch import Tensor

from omnihuman.fusion.base import Fusion
from omnihuman.nn.attention import CrossAttention
from omnihuman.nn.masking import run_on_valid
from omnihuman.nn.streams import concat_tokens, pad_to_longest, require_equal_time_steps
from omnihuman.types import Features, Layout


class FrameAttend(Fusion):
    """Video ``[B T N D]`` and face ``[B T F D]`` -> ``[B T N+F D]``: V1 A1 V2 A2 ..., A = attention(q = F, kv = V).

    Reference: Omni-Emotion §3, fusion (b), which passes the visual tokens on beside the attended ones. The paper does
    not say whether it runs before or after the projectors: both work. Before them the widths may differ and the video
    stays a stream of its own, so there the face is the only input and the video the ``condition``.

    Args:
        dims: width of every stream.
        inputs: video and face; or the face alone.
        output: name of the result.
        condition: the video, where the face is the only input.
        heads: heads of the attention.
        residual: add the face tokens to the attention's output.
        beside: pass the video on beside the attended face, where both are inputs.

    Raises:
        ValueError: there is not one face and one video, they differ in time steps, or the heads do not divide the
            width.

    >>> join = FrameAttend({"video": 8, "face": 8}, ["video", "face"], "video", heads=2)
    >>> video, face = (Features.of(torch.ones(1, 8, n, 8), torch.ones(1, 8).bool()) for n in (196, 49))
    >>> join({"video": video, "face": face})["video"].tokens.shape
    torch.Size([1, 8, 245, 8])
    """

    max_inputs = 2
    condition_use = "optional"
    aligned_condition = True

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
        if len(self.inputs) + (condition is not None) != 2:
            raise ValueError(
                f"frame_attend reads inputs=[video, face], or inputs=[face] and condition=video, got inputs="
                f"{list(self.inputs)} and condition={condition}."
            )
        self.residual, self.beside = residual, beside and condition is None
        self.attention = CrossAttention(self.out_dim, dims[condition or self.inputs[0]], self.out_dim, heads)

    def layout(self, layouts: Sequence[Layout]) -> Layout:
        time_steps, face = require_equal_time_steps(layouts, self.inputs, "frame_attend"), layouts[-1]
        if self.beside:
            return Layout(time_steps, sum(layout.tokens_per_step for layout in layouts))
        return Layout(time_steps, face.tokens_per_step, face.grid)

    def merge(self, streams: list[Features], condition: Features | None) -> Features:
        video, face = pad_to_longest([condition or streams[0], streams[-1]])
        # attention needs both: queries of a face, and a frame to attend to
        valid = video.mask.any(dim=2) & face.mask.any(dim=2)
        keys, queries, mask = video.tokens.flatten(0, 1), face.tokens.flatten(0, 1), video.mask.flatten(0, 1)

        def run(index: Tensor) -> Tensor:
            attended: Tensor = self.attention(queries[index], keys[index], mask[index])
            return attended

        tokens = run_on_valid(run, valid.flatten(), queries.shape[1:], queries.dtype).view_as(face.tokens)
        if self.residual:
            tokens = face.tokens + tokens
        attended = Features(tokens, face.mask & valid[..., None], face.grid)
        if self.beside:
            return concat_tokens([video, attended])
        return attended
