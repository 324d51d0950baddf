"""Motion: how much the picture of a clip changes from frame to frame."""

from collections.abc import Iterable, Sequence

import pyarrow as pa
import torch
from jaxtyping import Float
from torch import Tensor

from omnihuman.data.decode.frames import DecodedFrame
from omnihuman.operator.base import Operator, Outcome, Row, columns
from omnihuman.operator.decoding import take_frames


class Motion(Operator):
    """A video -> the mean difference of neighbouring frames, in gray levels from 0 to 255.

    Differs from NeMo Curator's filter, which reads motion vectors, and has none for VP9.

    Args:
        side: in pixels of the gray frames that are compared.
        timeout: seconds for each half a minute of the file.
    """

    reads = columns(seconds=pa.float64())
    writes = columns(motion=pa.float64())
    opens_media = True

    def __init__(self, side: int = 32, timeout: float = 60.0) -> None:
        self.side, self.timeout = side, timeout

    def apply(self, rows: Sequence[Row]) -> Iterable[Outcome]:
        for row in rows:
            frames = [frame for _, frame in take_frames(row, None, self.timeout, self._shrink)]
            motion = 0.0
            if len(frames) > 1:
                motion = float(torch.stack(frames).diff(dim=0).abs().mean())
            yield {"motion": motion}

    def _shrink(self, frame: DecodedFrame) -> Float[Tensor, "S S"]:
        return frame.scale((self.side, self.side)).float().mean(0)
