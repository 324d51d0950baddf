"""Media: one open per file, frames and sound of a clip, or what is wrong with them."""

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import numpy as np
import torch
from av.stream import Disposition
from jaxtyping import Float, UInt8
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from omnihuman.data.decode import SAMPLE_RATE as SAMPLE_RATE
from omnihuman.data.decode import Check, demux, origin_of, pictures, sound
from omnihuman.data.record import BadSample

SHORTEST = 400
"""Sound samples without which there is no sound: one window of a spectrogram."""

LONGEST = 30.0
"""Seconds of sound that are heard of a clip: Whisper's window."""

FORMATS = (
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,mpeg,flv,asf,ogg,wav,w64,mp3,flac,aac,aiff,ac3,amr,caf,gif,"
    "image2,jpeg_pipe,png_pipe,webp_pipe,bmp_pipe"
)
"""What a file may turn out to be: no playlist, which would name other files."""

ESTIMATED = {"mp3", "aac", "ac3", "amr", "mpegts", "mpeg", "flv"}
"""Formats whose header does not say how long the sound is."""


@dataclass(frozen=True, slots=True)
class Header:
    """What a file holds, told without decoding.

    Attributes:
        has_video: it can be seen.
        audio: first and last second of its sound; equal where it has none.
        is_still: what can be seen is one picture.
        frames: how many pictures the file has, as far as its header says; 0 where it does not.
        rate: pictures a second.
    """

    has_video: bool
    audio: tuple[float, float] = (0.0, 0.0)
    is_still: bool = False
    frames: int = 0
    rate: float = 25.0

    @property
    def has_audio(self) -> bool:
        """It can be heard: there is at least one window of sound."""
        return self.num_samples() > 0

    def num_samples(self, start: float = 0.0, end: float | None = None) -> int:
        """Sound samples at 16 kHz of the clip ``[start, end)``, at most 30 s; 0 where there is none.

        >>> Header(True, (0.0, 5.0)).num_samples(1.0, 3.5)
        40000
        """
        begin, stop = self.span(start, end)
        count = math.floor((stop - begin) * SAMPLE_RATE + 1e-6)
        return count if count >= SHORTEST else 0

    def span(self, start: float, end: float | None) -> tuple[float, float]:
        """The part of the clip, in seconds, in which there is sound."""
        begin = max(start, self.audio[0])
        return begin, min(self.audio[1], math.inf if end is None else end, begin + LONGEST)


def probe(path: Path, timeout: float = 60.0) -> Header:
    """Read the header of a file.

    Raises:
        BadSample: there is no such file, or it is not what it says it is.
    """
    with _opened(path, timeout) as (container, check):
        if _is_picture(container):
            _still(path)
            return Header(has_video=True, is_still=True, frames=1)
        video, audio = _streams(container)
        if video is None and audio is None:
            raise BadSample("no_media", f"{path}: the file holds neither pictures nor sound.")
        heard = (0.0, 0.0) if audio is None else _audio_span(container, audio, check)
        if video is None:
            return Header(False, heard)
        return Header(True, heard, frames=video.frames, rate=float(video.average_rate or 25))


def read(
    path: Path,
    *,
    num_frames: int = 0,
    num_samples: int = 0,
    start: float = 0.0,
    end: float | None = None,
    header: Header | None = None,
    timeout: float = 60.0,
) -> tuple[UInt8[Tensor, "T 3 H W"] | None, list[float], Float[Tensor, " S"] | None]:
    """A file -> its frames, the seconds at which they are shown, and its 16 kHz mono sound.

    Frames lie at the midpoints of ``num_frames`` equal segments of the clip; a short clip repeats frames, a
    still is one.

    Reference: HumanOmni ``process_video``, ``frame_sample`` in uniform mode (n = 100, 8 frames: 6, 19, 31 ... 93).
    Differs from it: sound is cut to the clip, where the official slice leaves silence.

    Args:
        path: the file.
        num_frames: frames wanted; 0 for none.
        num_samples: sound samples wanted, as ``Header.num_samples`` counts them for the clip; 0 for none.
        start: second at which the clip begins.
        end: second at which it ends, ``None`` for the end of the file.
        header: of the file, if it is known.
        timeout: seconds after which the file is given up.

    Raises:
        BadSample: the file is missing, unreadable, truncated, empty in the clip, or too slow.
    """
    header = probe(path, timeout) if header is None else header
    if header.is_still:
        picture = torch.from_numpy(np.array(_still(path))).permute(2, 0, 1)
        return (picture.contiguous()[None], [0.0], None) if num_frames else (None, [], None)
    frames, times, waveform = None, list[float](), None
    with _opened(path, timeout) as (container, check):
        video, audio = _streams(container)
        streams = [stream for stream, wanted in ((video, num_frames), (audio, num_samples)) if wanted]
        if None in streams:
            raise BadSample("no_media", f"{path}: the file has no {'pictures' if video is None else 'sound'} to read.")
        span = header.span(start, end)
        packets = demux(path, container, streams, (start, end), span, check)
        if num_frames:
            frames, times = pictures(path, video, packets[video.index], num_frames, (start, end), check)
        if num_samples:
            waveform = sound(path, audio, packets[audio.index], span[0], num_samples, check, header.audio[0])
    return frames, times, waveform


@contextmanager
def _opened(path: Path, timeout: float) -> Iterator[tuple[Any, Check]]:
    """An open container and a check to call between packets; what FFmpeg says becomes a ``BadSample``."""
    deadline = time.monotonic() + timeout

    def check() -> None:
        if time.monotonic() > deadline:
            raise BadSample("timeout", f"{path}: not read within {timeout:g} s (data.timeout).")

    if not path.is_file():  # a pipe or a device would block
        raise BadSample("missing_file", f"{path}: there is no such file.")
    try:
        options = {"format_whitelist": FORMATS, "protocol_whitelist": "file"}
        container = av.open(str(path), timeout=timeout, options=options)
    except (av.FFmpegError, OSError) as error:
        size = path.stat().st_size
        what = f"{path}: not a media file, or its header is cut off ({size} bytes; FFmpeg: {error.strerror or error})."
        raise BadSample("unreadable", what) from error
    try:
        yield container, check
    except (av.FFmpegError, EOFError) as error:
        check()
        raise BadSample("corrupt", f"{path}: cannot be decoded (FFmpeg: {error}).") from error
    finally:
        container.close()


def _is_picture(container: Any) -> bool:
    """FFmpeg reads a picture file as a film of one frame; a moving GIF is a film."""
    name = container.format.name
    return bool(name.endswith("_pipe") or name == "image2")


def _still(path: Path) -> Image.Image:
    """A picture file, upright, in RGB."""
    try:
        with Image.open(path) as image:
            return ImageOps.exif_transpose(image).convert("RGB")
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise BadSample("unreadable", f"{path}: cannot be read as a picture ({error}).") from error


def _streams(container: Any) -> tuple[Any, Any]:
    """The video and the audio stream; a cover picture is not a video."""
    videos = [s for s in container.streams.video if not s.disposition & Disposition.attached_pic]
    audios = container.streams.audio
    for stream in (*videos[:1], *audios[:1]):
        stream.thread_type = "NONE"  # more threads cost more than they give; workers are the parallelism
    return (videos[0] if videos else None), (audios[0] if audios else None)


def _audio_span(container: Any, stream: Any, check: Check) -> tuple[float, float]:
    """First and last second of the sound, counted packet by packet where the header only guesses."""
    origin = origin_of(container)
    if stream.duration is not None and not set(container.format.name.split(",")) & ESTIMATED:
        begin = 0.0 if stream.start_time is None else float(stream.start_time * stream.time_base) - origin
        return begin, begin + float(stream.duration * stream.time_base)
    first, last = math.inf, 0.0
    for packet in container.demux(stream):
        check()
        if packet.pts is not None and packet.size:
            first = min(first, float(packet.pts * packet.time_base) - origin)
            last = max(last, float((packet.pts + (packet.duration or 0)) * packet.time_base) - origin)
    return (max(0.0, first), last) if last > first else (0.0, 0.0)
