"""Clips as training reads them: their frames at its size as JPEG, and their audio as 16-bit samples, in one file."""

import io
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from jaxtyping import UInt8
from PIL import Image

from omnihuman.data import media
from omnihuman.data.decode.frames import DecodedFrame
from omnihuman.data.decode.header import Header
from omnihuman.data.decode.sampling import Sampling
from omnihuman.data.reader.base import ReadOptions
from omnihuman.data.record import Record
from omnihuman.modality import FRAMES, SAMPLE_RATE
from omnihuman.nn.frames import Aspect, SquareFrames

SUFFIX = ".mov"
"""Of the files: QuickTime holds JPEG frames and plain audio, and tells the number of its frames."""

MAX_FPS_DENOMINATOR = 10_000


@dataclass(frozen=True, slots=True)
class StoredFrames:
    """The part of each clip that is stored.

    Attributes:
        num_frames: of a video.
        size: side of the squares that an encoder reads, in pixels; grey bars are not stored.
        aspect: of the squares, see ``SquareFrames``.
        sampling: of the frames.
        quality: of JPEG, 1 to 95.
    """

    num_frames: int
    size: int
    aspect: Aspect = "pad"
    sampling: Sampling = "midpoints"
    quality: int = 90

    @property
    def transform(self) -> SquareFrames:
        """The transform that a run needs."""
        return SquareFrames(self.size, self.aspect)

    def can_store(self, record: Record) -> bool:
        """Return true for a record of one video; all others are stored as they are."""
        return record.kind == "video" and record.second_clip is None and not record.file.is_dir()

    def name(self, record: Record) -> str:
        """Return what decides the content of the file of a record."""
        fields = ("file", "start", "end", "video_stream", "audio_track", "audio_track_span", "audio_stream")
        return json.dumps([asdict(self), {name: getattr(record, name) for name in fields}], default=str)

    def encode(self, record: Record, header: Header, timeout: float) -> bytes:
        """Return the file of a record.

        Args:
            record: of one video.
            header: of its files.
            timeout: seconds per file.

        Raises:
            BadSample: its files cannot be decoded.
        """
        num_frames, num_samples = self.num_frames * header.has_video, header.num_samples(*record.audio_span)
        clip = media.read_clip(record, header, num_frames, num_samples, timeout, self.sampling, self._take)
        first, end = record.span
        seconds = (header.num_frames / header.fps if end is None else end) - first
        rate = Fraction(max(1, len(clip.steps)) / max(seconds, 0.1)).limit_denominator(MAX_FPS_DENOMINATOR)
        content = io.BytesIO()
        with av.open(content, "w", format="mov") as container:
            _mux(container, [self._compress(frame) for frame in clip.steps], clip.steps, rate, clip.waveform)
        return content.getvalue()

    def _take(self, frame: DecodedFrame) -> UInt8[np.ndarray, "H W 3"]:
        """Return the square of a frame, without its grey bars."""
        square = self.transform(frame.image[None])[0].permute(1, 2, 0).numpy()
        height, width = self.transform.fit(*frame.size) if self.aspect == "pad" else square.shape[:2]
        top, left = (self.size - height) // 2, (self.size - width) // 2
        return np.ascontiguousarray(square[top : top + height, left : left + width])

    def _compress(self, frame: UInt8[np.ndarray, "H W 3"]) -> bytes:
        content = io.BytesIO()
        Image.fromarray(frame).save(content, "JPEG", quality=self.quality)
        return content.getvalue()

    def replace_file(self, record: Record, file: Path) -> Record:
        """Return the record with its stored file; boxes of faces are those of the original, and left out."""
        changes: dict[str, Any] = {"start": 0.0, "end": None, "faces": None, "audio_track": None}
        changes |= {"audio_track_span": None, "video_stream": None, "audio_stream": None}
        return replace(record, file=file, **changes)


def parse_frames(num_frames: Any, size: Any, aspect: Any, sampling: Any, quality: Any) -> StoredFrames:
    """Return what is stored of each clip, for the attributes as a user has written them.

    Raises:
        ValueError: a value is invalid.
    """
    for name, value in (("num_frames", num_frames), ("size", size), ("quality", quality)):
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ValueError(f"frames.{name}={value}: media=frames needs a whole number above 0.")
    if quality > 95:
        raise ValueError(f"frames.quality={quality}: expected 1 to 95.")
    if aspect not in ("pad", "squash", "crop"):
        raise ValueError(f"frames.aspect={aspect}: choose from pad, squash, crop.")
    if sampling not in ("midpoints", "ends"):  # which select all frames of a file that has as many
        raise ValueError(f"frames.sampling={sampling}: media=frames stores midpoints or ends of each clip.")
    return StoredFrames(num_frames, size, aspect, sampling, quality)


def _mux(container: Any, images: list[bytes], frames: Any, rate: Fraction, waveform: Any) -> None:
    """Write compressed frames and a waveform to a container."""
    if images:
        video = container.add_stream("mjpeg", rate=rate)
        video.height, video.width = frames[0].shape[:2]
        video.pix_fmt = "yuvj420p"
    if waveform is not None:
        audio = container.add_stream("pcm_s16le", rate=SAMPLE_RATE, layout="mono")
        values = (waveform.numpy() * 32768).round().clip(-32768, 32767).astype(np.int16)
        frame = av.AudioFrame.from_ndarray(values[None], format="s16", layout="mono")
        frame.sample_rate, frame.pts = SAMPLE_RATE, 0
        for packet in [*audio.encode(frame), *audio.encode(None)]:
            container.mux(packet)
    for number, image in enumerate(images):
        packet = av.Packet(image)
        packet.stream, packet.time_base = video, 1 / rate
        packet.pts = packet.dts = number
        packet.duration, packet.is_keyframe = 1, True
        container.mux(packet)


def probe_bytes(content: bytes, timeout: float) -> Header:
    """Return the header of a file in memory.

    Raises:
        BadSample: it cannot be read.
    """
    descriptor = os.memfd_create("clip")
    try:
        os.write(descriptor, content)
        return media.probe(Path(f"/proc/self/fd/{descriptor}"), timeout)
    finally:
        os.close(descriptor)


def check_stored(source: Any, options: ReadOptions, transforms: Mapping[str, tuple[str, Any]]) -> None:
    """Check that a run reads what an index with stored frames holds.

    Args:
        source: of records; only an index has stored frames.
        options: of the run's samples.
        transforms: by encoder, the field that it reads and its transform.

    Raises:
        ValueError: it reads something else.
    """
    stored: StoredFrames | None = getattr(source, "stored_frames", None)
    if stored is None:
        return
    place = f"{source.location} holds frames for training (media=frames)"
    for name in ("num_frames", "sampling"):
        value = getattr(options, name)
        if value != getattr(stored, name):
            key = "frames" if name == "num_frames" else "data.sampling"
            raise ValueError(
                f"{key}={value}: {place} with {name}={getattr(stored, name)}: choose {key}="
                f"{getattr(stored, name)}, or write an index with frames.{name}={value}."
            )
    if options.time_instruction is not None:
        raise ValueError(f"data.time_instruction: {place} without their times: leave it out, or index media=files.")
    for name, (field, transform) in transforms.items():
        if field == FRAMES and transform != stored.transform:
            raise ValueError(
                f"the encoder {name} reads {transform}, but {place} as {stored.transform}: write an index for it "
                "(frames.size=, frames.aspect=), or one with media=files."
            )
        if field == "faces":
            raise ValueError(f"the encoder {name} reads faces, but {place} alone: write an index with media=files.")
