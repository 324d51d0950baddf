"""Frames: JPEGs of a clip for the operators that look at it, of one decoding."""

import io
from collections.abc import Iterable, Sequence
from itertools import count

import pyarrow as pa
from PIL import Image

from omnihuman.data.decode.frames import DecodedFrame
from omnihuman.operator.base import FRAMES, Operator, Outcome, Row, columns
from omnihuman.operator.decoding import take_frames


class ExtractFrames(Operator):
    """A video -> JPEGs for descriptions, and for faces at a higher rate.

    Reference: Omni-Emotion §3.1 describes one frame a second; FaVChat §3.2 every fourth frame.

    Args:
        rate: frames per second of ``frames``; ``None``: without this column.
        face_rate: frames per second of ``face_frames``, a multiple of the other rate; ``None``: without this column.
        every: the step between the frames of the file that are ``frames``, in place of both rates.
        side: longest side in pixels; boxes are in pixels of the file nevertheless.
        quality: of the JPEGs.
        timeout: seconds for each half a minute of the file.

    Raises:
        ValueError: a rate is no multiple of the other, there is none, or there is a step as well.
    """

    reads = columns(seconds=pa.float64())
    opens_media = True

    def __init__(
        self,
        rate: float | None = 1.0,
        face_rate: float | None = 5.0,
        every: int | None = None,
        side: int = 480,
        quality: int = 90,
        timeout: float = 60.0,
    ) -> None:
        rates = [number for number in (rate, face_rate) if number]
        if bool(rates) == bool(every):
            raise ValueError(
                f"extract_frames: rate={rate}, face_rate={face_rate}, every={every}: choose rates, or every alone: "
                "rate=null face_rate=null every=4."
            )
        self.rate, self.face_rate, self.every = rate, face_rate, every
        if rate and face_rate:
            stride = round(face_rate / rate)
            if stride < 1 or abs(stride * rate - face_rate) > 1e-6:
                raise ValueError(f"extract_frames: face_rate={face_rate:g} must be a multiple of rate={rate:g}.")
        self.side, self.quality, self.timeout = side, quality, timeout
        has_columns = {"frames": bool(rate or every), "face_frames": bool(face_rate)}
        self.writes = {name: FRAMES for name, has_column in has_columns.items() if has_column}

    def apply(self, rows: Sequence[Row]) -> Iterable[Outcome]:
        for row in rows:
            if self.every:
                yield {"frames": self._take(row, None, self.every)}
                continue
            frames = self._take(row, self.face_rate or self.rate)
            described = frames
            if self.rate and self.face_rate:
                stride = round(self.face_rate / self.rate)
                described = frames[min(stride // 2, len(frames) - 1) :: stride]
            by_column = {"frames": described, "face_frames": frames}
            yield {name: by_column[name] for name in self.writes}

    def _take(self, row: Row, rate: float | None, every: int = 1) -> list[Row]:
        """Return the JPEGs of a row at a rate, or at a step of the frames of the file."""
        numbers = count()
        steps = take_frames(
            row, rate, self.timeout, lambda frame: None if next(numbers) % every else self._encode(frame)
        )
        return [{"time": time, "jpeg": jpeg} for time, jpeg in steps if jpeg is not None]

    def _encode(self, frame: DecodedFrame) -> bytes:
        scale = min(1.0, self.side / max(frame.size))
        height, width = (max(1, round(scale * side)) for side in frame.size)
        pixels = frame.scale((height, width)).permute(1, 2, 0).numpy()
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, "JPEG", quality=self.quality)
        return buffer.getvalue()
