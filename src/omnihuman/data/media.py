"""Media: one open per file, frames and sound of a clip, or what is wrong with them."""

import math
import re
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import av
import numpy as np
import torch
import torch.nn.functional as F
from av.stream import Disposition
from jaxtyping import Float, UInt8
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from omnihuman.data.decode import SAMPLE_RATE as SAMPLE_RATE
from omnihuman.data.decode import Check, chosen, demux, origin_of, pictures, sound
from omnihuman.data.record import BadSample, Record

SHORTEST = 400
"""Sound samples without which there is no sound: one window of a spectrogram."""

LONGEST = 30.0
"""Seconds of sound that are heard of a clip: Whisper's window."""

FORMATS = (
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,mpeg,flv,asf,ogg,wav,w64,mp3,flac,aac,aiff,ac3,amr,caf,gif,"
    "image2,jpeg_pipe,png_pipe,webp_pipe,bmp_pipe"
)
"""What a file may turn out to be: no playlist, which would name other files."""

PICTURES = {".jpg", ".jpeg", ".png", ".bmp", ".webp"}
"""Endings of the pictures in a folder that are a video."""

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
    """Read the header of a file, or count the pictures of a folder.

    Raises:
        BadSample: there is no such file, it is not what it says it is, or the folder holds no picture.
    """
    if path.is_dir():
        return Header(has_video=True, frames=len(_numbered(path)))
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
        path: the file, or a folder of numbered pictures.
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
    if path.is_dir():
        return (*_from_folder(path, num_frames, (start, end), header.rate), None) if num_frames else (None, [], None)
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


def header_of(record: Record, headers: Mapping[Path, Header | BadSample]) -> Header:
    """The header of a record from those of its files: the pictures of the first, the sound of ``record.sound``.

    Raises:
        BadSample: one of the files cannot be used, or cannot give what it is there for.
    """
    found: dict[Path, Header] = {}
    for file in record.files:
        if isinstance(header := headers[file], BadSample):
            raise BadSample(header.reason, str(header))
        found[file] = header
    if record.kind == "text":
        return Header(has_video=False)
    whole = found[record.file]
    if record.file.is_dir():
        whole = replace(whole, rate=record.rate)
    if record.then is not None and not all(h.has_video and not h.is_still for h in (whole, found[record.then])):
        raise BadSample("no_media", f"{record.file} and {record.then}: only videos can follow each other.")
    return whole if record.sound is None else replace(whole, audio=found[record.sound].audio)


def read_record(
    record: Record, header: Header, num_frames: int, num_samples: int, timeout: float = 60.0
) -> tuple[UInt8[Tensor, "T 3 H W"] | None, list[float], Float[Tensor, " S"] | None, int]:
    """``read`` of a record whose sound may be in a file of its own, and which may go on in a second file.

    Frames of the second file have the size of those of the first; their seconds are their own file's.

    Args:
        record: says which files.
        header: as ``header_of`` tells it.
        num_frames: frames wanted, two at least of two files; the first gives the odd one.
        num_samples: sound samples wanted.
        timeout: seconds after which each file is given up.

    Returns:
        Frames, seconds, sound, and how many of the frames are those of the first file.

    Raises:
        BadSample: a file does not hold what its header said.
    """
    first = num_frames if record.then is None else (num_frames + 1) // 2
    seen_clip = (record.start, record.end)
    parts = [(record.file, first, num_samples, seen_clip)]
    if record.sound is not None or record.heard != seen_clip:
        parts = [(record.file, first, 0, seen_clip), (record.sound or record.file, 0, num_samples, record.heard)]
    frames, times, waveform = None, list[float](), None
    for file, pictures_of, samples_of, (start, end) in parts:
        if pictures_of or samples_of:
            told = header if file == record.file else replace(header, is_still=False)
            seen, at, heard = read(
                file,
                num_frames=pictures_of,
                num_samples=samples_of,
                start=start,
                end=end,
                header=told,
                timeout=timeout,
            )
            frames, times = (frames, times) if seen is None else (seen, at)
            waveform = waveform if heard is None else heard
    count = 0 if frames is None else len(frames)
    if record.then is not None and frames is not None:
        start, end = record.then_clip
        told = Header(has_video=True, rate=record.rate)
        others, seconds, _ = read(
            record.then, num_frames=num_frames - first, start=start, end=end, header=told, timeout=timeout
        )
        assert others is not None
        frames, times = torch.cat([frames, _sized(others, frames)]), times + seconds
    return frames, times, waveform, count


def _numbered(folder: Path) -> list[Path]:
    """The pictures of a folder in the order of the numbers in their names."""

    def order(path: Path) -> tuple[list[tuple[bool, int, str]], str]:
        parts = re.split(r"(\d+)", path.name)
        return [(part.isdecimal(), int(part) if part.isdecimal() else 0, part) for part in parts], path.name

    try:
        found = sorted((path for path in folder.iterdir() if path.suffix.lower() in PICTURES), key=order)
    except OSError as error:
        raise BadSample("unreadable", f"{folder}: the folder cannot be read ({error.strerror}).") from error
    if not found:
        what = f"{folder}: the folder holds no picture ({', '.join(sorted(PICTURES))}), so it is no video."
        raise BadSample("no_frames", what)
    return found


def _from_folder(
    folder: Path, num_frames: int, clip: tuple[float, float | None], rate: float
) -> tuple[UInt8[Tensor, "T 3 H W"], list[float]]:
    """Uniformly chosen pictures of a folder, all of the size of the first, and their seconds."""
    files = _numbered(folder)
    times = {number: number / rate for number in range(len(files))}
    if clip[0] >= len(files) / rate:
        what = f"{folder}: the clip starts at {clip[0]:g} s, the {len(files)} pictures end at {len(files) / rate:g} s."
        raise BadSample("empty_clip", what)
    wanted = chosen(folder, times, num_frames, clip)
    made: dict[int, Tensor] = {}
    for number in wanted:
        if number not in made:
            picture = torch.from_numpy(np.array(_still(files[number]))).permute(2, 0, 1)[None]
            made[number] = _sized(picture, made[wanted[0]] if made else picture)
    return torch.cat([made[number] for number in wanted]).contiguous(), [times[number] for number in wanted]


def _sized(frames: UInt8[Tensor, "T 3 H W"], like: UInt8[Tensor, "K 3 Y X"]) -> UInt8[Tensor, "T 3 Y X"]:
    """Frames at the height and width of others."""
    if frames.shape[-2:] == like.shape[-2:]:
        return frames
    scaled = F.interpolate(frames.float(), size=like.shape[-2:], mode="bilinear", antialias=True)
    return scaled.round().clamp(0, 255).to(torch.uint8)


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
