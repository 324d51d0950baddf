"""Frames: JPEGs of a clip for the operators that look at it, of one decoding."""

import io
from collections.abc import Iterable, Sequence

import pyarrow as pa
from PIL import Image

from omnihuman.data.decode.frames import DecodedFrame
from omnihuman.operator.base import FRAMES, Operator, Outcome, Row, columns
from omnihuman.operator.decoding import take_frames


class ExtractFrames(Operator):
    """A video -> JPEGs at the rate of faces, and those of them that a description looks at.

    Reference: Omni-Emotion §3.1 describes one frame a second.

    Args:
        rate: frames per second of ``frames``, a divisor of the other rate.
        face_rate: frames per second of ``face_frames``.
        side: longest side in pixels; boxes are in pixels of the file nevertheless.
        quality: of the JPEGs.
        timeout: seconds for each half a minute of the file.

    Raises:
        ValueError: a rate is no multiple of the other.
    """

    reads = columns(seconds=pa.float64())
    writes = columns(frames=FRAMES, face_frames=FRAMES)
    opens_media = True

    def __init__(
        self, rate: float = 1.0, face_rate: float = 5.0, side: int = 480, quality: int = 90, timeout: float = 60.0
    ) -> None:
        self.stride = round(face_rate / rate)
        if self.stride < 1 or abs(self.stride * rate - face_rate) > 1e-6:
            raise ValueError(f"extract_frames: face_rate={face_rate:g} must be a multiple of rate={rate:g}.")
        self.face_rate, self.side, self.quality, self.timeout = face_rate, side, quality, timeout

    def apply(self, rows: Sequence[Row]) -> Iterable[Outcome]:
        for row in rows:
            faces = [
                {"time": time, "jpeg": jpeg}
                for time, jpeg in take_frames(row, self.face_rate, self.timeout, self._encode)
            ]
            middle = min(self.stride // 2, len(faces) - 1)
            yield {"frames": faces[middle :: self.stride], "face_frames": faces}

    def _encode(self, frame: DecodedFrame) -> bytes:
        scale = min(1.0, self.side / max(frame.size))
        height, width = (max(1, round(scale * side)) for side in frame.size)
        pixels = frame.scale((height, width)).permute(1, 2, 0).numpy()
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, "JPEG", quality=self.quality)
        return buffer.getvalue()
