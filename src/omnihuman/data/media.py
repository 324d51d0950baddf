"""Media: one open per file, frames and sound of a clip, or what is wrong with them."""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, cast

import av
import numpy as np
import torch
from av.stream import Disposition
from jaxtyping import Float, UInt8
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from omnihuman.data.record import BadSample

SAMPLE_RATE = 16000
SHORTEST = 400
"""Sound samples without which there is no sound: one window of a spectrogram."""

TOLERANCE = 0.15
"""Seconds by which a header may promise more than the file holds: codecs begin and end in whole blocks."""

LONGEST = 30.0
"""Seconds of sound that are heard of a clip: Whisper's window."""

LARGEST = 1 << 30
"""Bytes of a clip's compressed video that are held in memory."""

FORMATS = (
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,mpeg,flv,asf,ogg,wav,w64,mp3,flac,aac,aiff,ac3,amr,caf,gif,"
    "image2,jpeg_pipe,png_pipe,webp_pipe,bmp_pipe"
)
"""What a file may turn out to be: no playlist, which would name other files."""

ESTIMATED = {"mp3", "aac", "ac3", "amr", "mpegts", "mpeg", "flv"}
"""Formats whose header does not say how long the sound is."""

Check = Callable[[], None]


@dataclass(frozen=True, slots=True)
class Header:
    """What a file holds, told without decoding.

    Attributes:
        has_video: it can be seen.
        audio: first and last second of its sound; equal where it has none.
        is_still: what can be seen is one picture.
    """

    has_video: bool
    audio: tuple[float, float] = (0.0, 0.0)
    is_still: bool = False

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
            return Header(has_video=True, is_still=True)
        video, audio = _streams(container)
        if video is None and audio is None:
            raise BadSample("no_media", f"{path}: the file holds neither pictures nor sound.")
        heard = (0.0, 0.0) if audio is None else _audio_span(container, audio, check)
        return Header(video is not None, heard)


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

    Frames lie at the midpoints of ``num_frames`` equal segments of the clip; a short clip repeats frames.

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
        return picture.contiguous().expand(max(1, num_frames), -1, -1, -1).contiguous(), [0.0] * num_frames, None
    frames, times, waveform = None, list[float](), None
    with _opened(path, timeout) as (container, check):
        video, audio = _streams(container)
        streams = [stream for stream, wanted in ((video, num_frames), (audio, num_samples)) if wanted]
        if None in streams:
            raise BadSample("no_media", f"{path}: the file has no {'pictures' if video is None else 'sound'} to read.")
        span = header.span(start, end)
        packets = _demux(path, container, streams, (start, end), span, check)
        if num_frames:
            frames, times = _frames(path, video, packets[video.index], num_frames, (start, end), check)
        if num_samples:
            waveform = _waveform(path, audio, packets[audio.index], span[0], num_samples, check)
    return frames, times, waveform


def uniform_indices(count: int, num_frames: int) -> list[int]:
    """Midpoints of ``num_frames`` equal segments of ``[0, count - 1]``, rounded.

    >>> uniform_indices(100, 8)
    [6, 19, 31, 43, 56, 68, 80, 93]
    """
    segment = (count - 1) / num_frames
    return [round(segment * (number + 0.5)) for number in range(num_frames)]


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


def _origin(container: Any) -> float:
    return (container.start_time or 0) / av.time_base


def _audio_span(container: Any, stream: Any, check: Check) -> tuple[float, float]:
    """First and last second of the sound, counted packet by packet where the header only guesses."""
    origin = _origin(container)
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


def _demux(
    path: Path, container: Any, streams: Sequence[Any], clip: tuple[float, float | None],
    span: tuple[float, float], check: Check,
) -> dict[int, list[Any]]:  # fmt: skip
    """The packets of the clip by stream, in decoding order."""
    origin, (start, end) = _origin(container), clip
    if start > 0:
        # a little earlier: a sound decoder needs the block before, and pictures begin at a key frame
        container.seek(max(0, int((start - 0.2 + origin) * av.time_base)))
    packets: dict[int, list[Any]] = {stream.index: [] for stream in streams}
    stop = {s.index: (span[1] if s.type == "audio" else math.inf if end is None else end) + origin for s in streams}
    running, held = set(packets), 0
    for packet in container.demux(list(streams)):
        check()
        index = packet.stream_index
        if not packet.size or index not in running:
            continue
        at = packet.dts if packet.dts is not None else packet.pts
        # pictures are stored before they are shown, so those of the clip end where dts does
        if at is not None and float(at * packet.time_base) > stop[index]:
            running.discard(index)
            if not running:
                break
            continue
        held += packet.size
        if held > LARGEST:
            raise BadSample("too_large", f"{path}: the clip has more than {LARGEST >> 30} GiB; give start and end.")
        packets[index].append(packet)
    return packets


def _frames(
    path: Path, stream: Any, packets: list[Any], num_frames: int, clip: tuple[float, float | None], check: Check
) -> UInt8[Tensor, "T 3 H W"]:
    """Uniformly chosen frames of the clip."""
    start, end = clip
    origin = _origin(stream.container)
    if end is None and start == 0 and len(packets) < stream.frames:
        raise BadSample("truncated", f"{path}: {len(packets)} of {stream.frames} frames are there; the file is cut.")
    shown = [packet for packet in packets if not packet.is_discard]
    if any(packet.pts is None for packet in shown):
        return _counted(path, stream, shown, num_frames, clip, check)
    times = {packet.pts: float(packet.pts * packet.time_base) - origin for packet in shown}
    order = sorted(times)
    inside = [pts for pts in order if start - 1e-6 <= times[pts] < (math.inf if end is None else end)]
    inside = inside or [pts for pts in order if times[pts] < start][-1:]  # the frame that is still shown
    _check_reach(path, stream, times, clip)
    if not inside:
        raise BadSample("no_frames", f"{path}: no frame between {start:g} s and {'the end' if end is None else end}.")
    wanted = [inside[index] for index in uniform_indices(len(inside), num_frames)]
    found: dict[int, Tensor] = {}
    size: tuple[int, int] | None = None
    for frame in _decode(stream, packets, set(wanted), check):
        if frame.pts in wanted and frame.pts not in found:
            size = size or (frame.width, frame.height)
            found[frame.pts] = _picture(frame, size)
            if len(found) == len(set(wanted)):
                break
    if missing := len(set(wanted) - set(found)):
        what = f"{path}: {missing} of {len(set(wanted))} wanted frames cannot be decoded; the file is cut or damaged."
        raise BadSample("truncated" if found else "no_frames", what)
    return torch.stack([found[pts] for pts in wanted])


def _check_reach(path: Path, stream: Any, times: dict[int, float], clip: tuple[float, float | None]) -> None:
    """The pictures go on to where the header says they do, or to the end of the clip."""
    start, end = clip
    if stream.duration is None:
        return
    promised = float(((stream.start_time or 0) + stream.duration) * stream.time_base) - _origin(stream.container)
    if start >= promised:
        raise BadSample("empty_clip", f"{path}: the clip starts at {start:g} s, the file ends at {promised:g} s.")
    step = 1 / float(stream.average_rate or 25)
    reached = max(times.values(), default=0.0) + step
    if reached < min(promised, math.inf if end is None else end) - max(TOLERANCE, 2 * step):
        what = f"{path}: pictures end at {reached:.2f} s of {promised:.2f} s; the file is cut."
        raise BadSample("truncated", what)


def _decode(stream: Any, packets: list[Any], wanted: set[int], check: Check) -> Iterator[Any]:
    """Frames, among them all wanted ones; what no wanted frame depends on is left out where the codec allows it."""
    context = stream.codec_context
    if context.name not in ("h264", "hevc"):
        for packet in packets:
            check()
            yield from context.decode(packet)
        yield from context.decode(None)
        return
    starts = [number for number, packet in enumerate(packets) if packet.is_keyframe or number == 0]
    groups = [packets[a:b] for a, b in pairwise([*starts, len(packets)])]
    needed = [any(packet.pts in wanted for packet in group) for group in groups]
    for number, group in enumerate(groups[1:], 1):
        # pictures shown before their key frame lean on the group before
        if any(packet.pts in wanted and packet.pts < group[0].pts for packet in group if packet.pts is not None):
            needed[number - 1] = True
    for number, group in enumerate(groups):
        if not needed[number]:
            continue
        for packet in group:
            check()
            context.skip_frame = "DEFAULT" if packet.pts in wanted else "NONREF"
            yield from context.decode(packet)
        if number + 1 == len(groups) or not needed[number + 1]:
            yield from context.decode(None)
            context.flush_buffers()


def _counted(
    path: Path, stream: Any, packets: list[Any], num_frames: int, clip: tuple[float, float | None], check: Check
) -> UInt8[Tensor, "T 3 H W"]:
    """Uniformly chosen frames of a file whose packets do not say when they are shown: count, then choose."""

    def frames() -> Iterator[Any]:
        for packet in [*packets, None]:
            check()
            yield from stream.codec_context.decode(packet)

    rate, (start, end) = float(stream.average_rate or 25), clip
    origin = _origin(stream.container)
    at = [number / rate if frame.time is None else frame.time - origin for number, frame in enumerate(frames())]
    stream.codec_context.flush_buffers()
    inside = [number for number, t in enumerate(at) if start - 1e-6 <= t < (math.inf if end is None else end)]
    if not inside:
        raise BadSample("no_frames", f"{path}: no frame between {start:g} s and {'the end' if end is None else end}.")
    wanted = [inside[index] for index in uniform_indices(len(inside), num_frames)]
    found: dict[int, Tensor] = {}
    size: tuple[int, int] | None = None
    for number, frame in enumerate(frames()):
        if number in wanted:
            size = size or (frame.width, frame.height)
            found[number] = _picture(frame, size)
    return torch.stack([found[number] for number in wanted])


def _picture(frame: Any, size: tuple[int, int]) -> UInt8[Tensor, "3 H W"]:
    """A decoded frame, upright."""
    pixels = frame.to_ndarray(format="rgb24", width=size[0], height=size[1])
    if turns := round(frame.rotation / 90) % 4:
        pixels = np.rot90(pixels, turns)
    return torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1)))


def _waveform(
    path: Path, stream: Any, packets: list[Any], begin: float, count: int, check: Check
) -> Float[Tensor, " S"]:
    """``count`` samples at 16 kHz from the second ``begin`` on."""
    resampler = av.AudioResampler(format="fltp", layout="mono", rate=SAMPLE_RATE)
    origin, first = _origin(stream.container), None
    pieces: list[np.ndarray[Any, Any]] = []
    for packet in [*packets, None]:
        check()
        for frame in stream.codec_context.decode(packet):
            if first is None:
                first = begin if frame.time is None else frame.time - origin
            pieces += [piece.to_ndarray()[0] for piece in resampler.resample(frame)]
    if first is not None:
        pieces += [piece.to_ndarray()[0] for piece in resampler.resample(None)]
    sound = np.concatenate(pieces) if pieces else np.zeros(0, np.float32)
    skip = round((begin - (first or 0.0)) * SAMPLE_RATE)
    sound = np.pad(sound, (-skip, 0)) if -TOLERANCE * SAMPLE_RATE <= skip < 0 else sound[max(0, skip) :]
    if (lacking := count - len(sound)) > TOLERANCE * SAMPLE_RATE or not len(sound):
        reason = "truncated" if len(sound) else "empty_audio"
        what = f"{path}: {len(sound) / SAMPLE_RATE:.2f} s of sound where the header says {count / SAMPLE_RATE:.2f} s."
        raise BadSample(reason, what)
    sound = np.nan_to_num(np.pad(sound, (0, max(0, lacking)))[:count])
    return cast(Tensor, torch.from_numpy(sound.astype(np.float32)))
