"""Trim: short clips, cut out of their files and encoded anew."""

import os
from collections.abc import Iterable, Sequence
from fractions import Fraction
from typing import Any

import av
import pyarrow as pa

from omnihuman.data.decode.frames import DecodedFrame
from omnihuman.data.media import probe, read
from omnihuman.data.record import BadSample
from omnihuman.modality import SAMPLE_RATE
from omnihuman.operator.base import Dropped, Operator, Outcome, Row, columns
from omnihuman.operator.decoding import find_span, take_frames


class Trim(Operator):
    """A span -> an mp4 of its own with at most so many frames, from the middle of the span; its sound stays.

    Reference: FaVChat §3 trims videos to 36 to 60 frames. Differs from it: frames are cut by their times, and the paper
    does not say which ones stay.

    Args:
        least_frames: of a clip; a shorter span is dropped.
        most_frames: of a clip.
        crf: quality of H.264, smaller is better.
        timeout: seconds for each half a minute of the file.

    Raises:
        ValueError: the least is larger than the most.
    """

    reads = columns(seconds=pa.float64())
    writes = columns(media=pa.string(), start=pa.float64(), end=pa.float64(), num_frames=pa.int64())
    opens_media = True

    def __init__(self, least_frames: int = 36, most_frames: int = 60, crf: int = 18, timeout: float = 60.0) -> None:
        if not 1 <= least_frames <= most_frames:
            raise ValueError(f"trim: least_frames={least_frames} must be from 1 to most_frames={most_frames}.")
        self.least_frames, self.most_frames, self.crf, self.timeout = least_frames, most_frames, crf, timeout

    def apply(self, rows: Sequence[Row]) -> Iterable[Outcome]:
        for row in rows:
            yield self._trim(row)

    def _trim(self, row: Row) -> Outcome:
        begin, end = find_span(row, self.timeout)
        fps = probe(row["file"], self.timeout).fps
        num_frames = round((end - begin) * fps)
        if num_frames < self.least_frames:
            return Dropped("too_short", f"{num_frames} frames")
        num_frames = min(num_frames, self.most_frames)
        first = begin + max(0.0, (end - begin - num_frames / fps) / 2)
        last = first + num_frames / fps
        frames = [image for _, image in take_frames(row | {"start": first, "end": last}, None, self.timeout, _copy)]
        name = f"{row['id']}.mp4"
        self._write(name, frames, fps, self._read_sound(row, first, last))
        media = f"{self.folder.name}/media/{name}"
        return {"media": media, "start": first, "end": last, "num_frames": len(frames)}

    def _read_sound(self, row: Row, first: float, last: float) -> Any:
        """Return the audio of the span as 16-bit samples, ``None`` without audio."""
        num_samples = probe(row["file"], self.timeout).num_samples(first, last)
        if not num_samples:
            return None
        waveform = read(row["file"], num_samples=num_samples, start=first, end=last, timeout=self.timeout)[2]
        assert waveform is not None
        return (waveform.clamp(-1, 1) * 32767).round().short().numpy()[None]

    def _write(self, name: str, frames: Sequence[Any], fps: float, sound: Any) -> None:
        """Write the file under a temporary name first: it is whole or absent."""
        if not frames:
            raise BadSample("no_frames", f"{name}: the span has no frame.")
        folder = self.folder / "media"
        folder.mkdir(parents=True, exist_ok=True)
        temporary = folder / f".{name}.{os.getpid()}.tmp"
        with av.open(str(temporary), "w", format="mp4", options={"fflags": "+bitexact"}) as file:
            video = file.add_stream("libx264", rate=Fraction(fps).limit_denominator(1001))
            video.height, video.width = (side - side % 2 for side in frames[0].shape[:2])
            video.pix_fmt = "yuv420p"
            video.options = {"crf": str(self.crf), "preset": "veryfast", "x264-params": "mbtree=0:cpu-independent=1"}
            video.thread_type = "NONE"
            audio = None if sound is None else file.add_stream("aac", rate=SAMPLE_RATE, layout="mono")
            for pixels in frames:
                image = av.VideoFrame.from_ndarray(pixels[: video.height, : video.width].copy(), format="rgb24")
                file.mux(video.encode(image))
            file.mux(video.encode(None))
            if audio is not None:
                samples = av.AudioFrame.from_ndarray(sound, format="s16", layout="mono")
                samples.sample_rate, samples.pts = SAMPLE_RATE, 0
                file.mux(audio.encode(samples))
                file.mux(audio.encode(None))
        temporary.rename(folder / name)


def _copy(frame: DecodedFrame) -> Any:
    return frame.image.permute(1, 2, 0).numpy().copy()
