"""Media files: headers, frames and audio of a clip, with one open per file."""

import math
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import av
import torch
from av.stream import Disposition
from jaxtyping import Float, UInt8
from torch import Tensor

from omnihuman.data.clock import file_origin
from omnihuman.data.decode import MAX_PIXELS, Check, decode_audio, decode_frames, demux
from omnihuman.data.ffmpeg_error import explain_open_error, explain_read_error
from omnihuman.data.image import check_size, list_images, read_folder, read_image, read_tiles, resize
from omnihuman.data.record import BadSample, Record, Span
from omnihuman.modality import SAMPLE_RATE as SAMPLE_RATE

MIN_SAMPLES = 400
"""Fewest samples that count as audio: one window of a spectrogram."""

MAX_SECONDS = 30.0
"""Longest audio of a clip: the window of Whisper."""

FORMATS = (
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,mpeg,flv,asf,ogg,wav,w64,mp3,flac,aac,aiff,ac3,amr,caf,gif,"
    "image2,jpeg_pipe,png_pipe,webp_pipe,bmp_pipe"
    ",au,dv,mxf,tiff_pipe,tta,wv,apng,ivf,h264,hevc,mpegvideo"
)
"""Formats that FFmpeg may open. Playlists are not among them: they would name other files."""

ESTIMATED_DURATION = {"mp3", "aac", "ac3", "amr", "mpegts", "mpeg", "flv", "matroska", "asf"}
"""Formats whose header does not hold the duration of the audio."""


@dataclass(frozen=True, slots=True)
class Header:
    """The contents of a file, known without decoding.

    Attributes:
        has_video: the file has frames.
        audio: first and last second of the audio; equal for a file without audio.
        is_still: the file is one image.
        num_frames: frames of the file; 0 where the header does not tell.
        fps: frames per second.
    """

    has_video: bool
    audio: tuple[float, float] = (0.0, 0.0)
    is_still: bool = False
    num_frames: int = 0
    fps: float = 25.0

    @property
    def has_audio(self) -> bool:
        """The file has at least one spectrogram window of audio."""
        return self.num_samples() > 0

    @property
    def slots(self) -> set[str]:
        """Slots that the file can fill."""
        slots = {"video": self.has_video, "audio": self.has_audio}
        return {slot for slot, is_available in slots.items() if is_available}

    def num_samples(self, start: float = 0.0, end: float | None = None) -> int:
        """Return the number of 16 kHz audio samples in ``[start, end)``, at most 30 s; 0 without audio.

        >>> Header(True, (0.0, 5.0)).num_samples(1.0, 3.5)
        40000
        """
        first, last = self.audio_within(start, end)
        count = math.floor((last - first) * SAMPLE_RATE + 1e-6)
        return count if count >= MIN_SAMPLES else 0

    def audio_within(self, start: float, end: float | None) -> tuple[float, float]:
        """Return first and last second of the audio in ``[start, end)``."""
        first = max(start, self.audio[0])
        return first, min(self.audio[1], math.inf if end is None else end, first + MAX_SECONDS)


@dataclass(frozen=True, slots=True)
class Clip:
    """The decoded media of a record.

    Attributes:
        frames: frames of the first video, then those of the second one.
        times: seconds of the frames, each in its own file.
        waveform: 16 kHz mono audio in [-1, 1].
        num_first: number of frames of the first video.
        scale: side of its frames divided by that in the file, below 1 for large frames.
    """

    frames: UInt8[Tensor, "T 3 H W"] | None = None
    times: tuple[float, ...] = ()
    waveform: Float[Tensor, " S"] | None = None
    num_first: int = 0
    scale: float = 1.0


def probe(path: Path, timeout: float = 60.0, max_pixels: int = MAX_PIXELS) -> Header:
    """Read the header of a file, or count the images of a folder.

    Args:
        path: a file, or a folder of numbered images.
        timeout: seconds after which reading stops.
        max_pixels: largest frame.

    Raises:
        BadSample: the file is missing or not a media file, its frames are too large, or the folder has no image.
    """
    if path.is_dir():
        return Header(has_video=True, num_frames=len(list_images(path)))
    with _open(path, timeout, max_pixels) as (container, check):
        if _is_image(container):
            _decode_still(path, container, max_pixels, check)
            return Header(has_video=True, is_still=True, num_frames=1)
        video, audio = _select_streams(container)
        if video is None and audio is None:
            raise BadSample("no_media", f"{path}: the file has neither video nor audio.")
        span = _measure_audio(container, audio, check)
        if video is None:
            return Header(False, span)
        return Header(True, span, num_frames=video.frames, fps=float(video.average_rate or 25))


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
    """Decode the frames of a file, the seconds at which they are shown, and its 16 kHz mono audio.

    Frames are the midpoints of ``num_frames`` equal segments of the clip; a short clip repeats frames, an image is one
    frame.

    Reference: HumanOmni ``process_video``, ``frame_sample`` in uniform mode (n = 100, 8 frames: 6, 19, 31 ... 93).
    Differs from it: audio is cut to the clip, where the official slice leaves silence.

    Args:
        path: a file, or a folder of numbered images.
        num_frames: frames to decode, 0 for none.
        num_samples: audio samples to decode, as ``Header.num_samples`` counts them for the clip; 0 for none.
        start: first second of the clip.
        end: last second of the clip, ``None`` for the end of the file.
        header: of the file, if it is known.
        timeout: seconds after which reading stops.

    Raises:
        BadSample: the file is missing, unreadable, truncated, empty in the clip, or too slow to read.
    """
    clip = _read_file(path, num_frames, num_samples, (start, end), header or probe(path, timeout), timeout)
    return clip.frames, list(clip.times), clip.waveform


def _read_file(path: Path, num_frames: int, num_samples: int, span: Span, header: Header, timeout: float) -> Clip:
    """Decode one file as ``read`` does."""
    if not num_frames and (path.is_dir() or header.is_still):
        return Clip()
    if path.is_dir():
        frames, times, scale = read_folder(path, num_frames, span, header.fps)
        return Clip(frames, tuple(times), num_first=len(frames), scale=scale)
    clip = Clip()
    if header.is_still:
        return Clip(_read_still(path, timeout)[None], (0.0,), num_first=1)
    with _open(path, timeout) as (container, check):
        video, audio = _select_streams(container)
        streams = [stream for stream, count in ((video, num_frames), (audio, num_samples)) if count]
        if None in streams:
            missing = "video" if video is None else "audio"
            raise BadSample("no_media", f"{path}: the file has no {missing} to read.")
        audio_span = header.audio_within(*span)
        packets = demux(path, container, streams, span, audio_span, check)
        if num_frames:
            frames, times, scale = decode_frames(path, video, packets[video.index], num_frames, span, check)
            clip = Clip(frames, tuple(times), num_first=num_frames, scale=scale)
        if num_samples:
            begin, zero = audio_span[0], header.audio[0]
            waveform = decode_audio(path, audio, packets[audio.index], begin, num_samples, check, zero)
            clip = replace(clip, waveform=waveform)
    return clip


def merge_headers(record: Record, headers: Mapping[Path, Header | BadSample]) -> Header:
    """Return the header of a record: the frames of its first file and the audio of its audio track.

    Args:
        record: names the files.
        headers: header of every file, or what is wrong with it.

    Raises:
        BadSample: a file cannot be used, or lacks what the record takes from it.
    """
    if record.kind == "text":
        return Header(has_video=False)
    for file in record.files:
        if isinstance(bad := headers[file], BadSample):
            raise BadSample(bad.reason, str(bad))
    header = _get_header(record.file, headers)
    if record.file.is_dir():
        header = replace(header, fps=record.fps)
    if record.second_clip is not None:
        both = (header, _get_header(record.second_clip, headers))
        if not all(each.has_video and not each.is_still for each in both):
            message = f"{record.file} and {record.second_clip}: both clips of a record must be videos."
            raise BadSample("no_media", message)
    if record.audio_track is None:
        return header
    return replace(header, audio=_get_header(record.audio_track, headers).audio)


def _get_header(file: Path, headers: Mapping[Path, Header | BadSample]) -> Header:
    header = headers[file]
    assert isinstance(header, Header), file
    return header


def read_clip(record: Record, header: Header, num_frames: int, num_samples: int, timeout: float = 60.0) -> Clip:
    """Decode the media of a record: frames of one or two videos, and audio of the file or of its audio track.

    Frames of the second video are scaled to the size of the first. What the header lacks is filled as the official
    code does: one black frame, silence.

    Args:
        record: names the files.
        header: of the record, see ``merge_headers``.
        num_frames: frames to decode, at least two of two videos; the first one gives the odd frame.
        num_samples: audio samples to decode.
        timeout: seconds per file.

    Raises:
        BadSample: a file does not hold what its header promises.
    """
    clip = Clip()
    frames_of_file = num_frames if header.has_video else 0
    samples_of_file = num_samples if header.has_audio else 0
    if frames_of_file or samples_of_file:
        clip = _read_first(record, header, frames_of_file, samples_of_file, timeout)
    if num_frames and clip.frames is None:
        clip = replace(clip, frames=torch.zeros(1, 3, 64, 64, dtype=torch.uint8), times=(0.0,), num_first=1)
    if num_samples and clip.waveform is None:
        clip = replace(clip, waveform=torch.zeros(num_samples))
    return clip


def _read_first(record: Record, header: Header, num_frames: int, num_samples: int, timeout: float) -> Clip:
    """``read_clip`` without fillers: one open where frames and audio are the same clip of the same file."""
    num_first = num_frames if record.second_clip is None else (num_frames + 1) // 2
    is_one_clip = record.audio_track is None and record.audio_span == record.span
    clip = Clip()
    if num_first or (num_samples and is_one_clip):
        samples_of_file = num_samples if is_one_clip else 0
        clip = _read_file(record.file, num_first, samples_of_file, record.span, header, timeout)
    if num_samples and not is_one_clip:
        audio_file = record.audio_track or record.file
        audio_header = header if audio_file == record.file else replace(header, is_still=False)
        audio = _read_file(audio_file, 0, num_samples, record.audio_span, audio_header, timeout)
        clip = replace(clip, waveform=audio.waveform)
    if record.second_clip is not None and clip.frames is not None:
        second_header = Header(has_video=True, fps=record.fps)
        num_second = num_frames - num_first
        second = _read_file(record.second_clip, num_second, 0, record.second_clip_span, second_header, timeout)
        assert second.frames is not None
        height, width = clip.frames.shape[-2:]
        frames = torch.cat([clip.frames, resize(second.frames, (height, width))])
        clip = replace(clip, frames=frames, times=clip.times + second.times)
    return clip


@contextmanager
def _open(path: Path, timeout: float, max_pixels: int = MAX_PIXELS) -> Iterator[tuple[Any, Check]]:
    """Open a container, with a timeout check to call between packets; errors of FFmpeg become a ``BadSample``.

    Raises:
        BadSample: the file cannot be read, or has a frame of more than ``max_pixels``.
    """
    deadline = time.monotonic() + timeout

    def check() -> None:
        if time.monotonic() > deadline:
            raise BadSample("timeout", f"{path}: not read within {timeout:g} s (data.timeout).")

    if not path.is_file():  # a pipe or a device would block
        raise BadSample("missing_file", f"{path}: there is no such file.")
    try:
        # the last option is for decoders: FFmpeg decodes a frame of some formats to find its size
        options = {"format_whitelist": FORMATS, "protocol_whitelist": "file", "max_pixels": str(max_pixels)}
        container = av.open(str(path), timeout=timeout, options=options, metadata_errors="replace")
    except (av.FFmpegError, OSError) as error:
        raise explain_open_error(path, error, FORMATS) from error
    try:
        for stream in container.streams.video:
            if stream.codec_context is not None and not stream.disposition & Disposition.attached_pic:
                check_size(path, stream.width, stream.height, max_pixels)
                stream.codec_context.options = {"max_pixels": str(max_pixels)}
        yield container, check
    except (av.FFmpegError, EOFError) as error:
        check()
        raise explain_read_error(path, error) from error
    finally:
        container.close()


def _is_image(container: Any) -> bool:
    """FFmpeg opens an image file as a video of one frame; an animated GIF is a video."""
    name = container.format.name
    return bool(name.endswith("_pipe") or name == "image2" or _list_items(container))


def _list_items(container: Any) -> list[Any]:
    """Return the streams of a HEIF file (HEIC, AVIF) of one image: its items have no duration, as tracks have."""
    streams = container.streams.video
    is_heif = "mov" in container.format.name and all(video.frames == 1 and video.duration is None for video in streams)
    return list(streams) if is_heif else []


def _read_still(path: Path, timeout: float) -> UInt8[Tensor, "3 H W"]:
    """Return the image of a file, upright."""
    with path.open("rb") as file:
        is_heif = file.read(8)[4:] == b"ftyp"
    if not is_heif:
        return read_image(path)
    with _open(path, timeout) as (container, check):
        return _decode_still(path, container, MAX_PIXELS, check)


def _decode_still(path: Path, container: Any, max_pixels: int, check: Check) -> UInt8[Tensor, "3 H W"]:
    items = _list_items(container)
    if not items:
        return read_image(path, max_pixels)
    if any(item.disposition & Disposition.dependent for item in items):
        return read_tiles(path, max_pixels)
    primary = next((item for item in items if item.disposition & Disposition.default), items[0])
    packets = [packet for packet in container.demux(primary) if packet.size]
    return decode_frames(path, primary, packets, 1, (0.0, None), check)[0][0]


def _select_streams(container: Any) -> tuple[Any, Any]:
    """Return the video and the audio stream; a cover image is not a video."""
    videos = [stream for stream in container.streams.video if not stream.disposition & Disposition.attached_pic]
    audios = container.streams.audio
    for stream in (*videos[:1], *audios[:1]):
        stream.thread_type = "NONE"  # workers are the parallelism; threads of a decoder cost more than they save
    return next(iter(videos), None), next(iter(audios), None)


def _measure_audio(container: Any, stream: Any, check: Check) -> tuple[float, float]:
    """Return first and last second of the audio, counted packet by packet where the header only estimates it."""
    if stream is None:
        return 0.0, 0.0
    origin = file_origin(container)
    if stream.duration is not None and not set(container.format.name.split(",")) & ESTIMATED_DURATION:
        begin = 0.0 if stream.start_time is None else float(stream.start_time * stream.time_base) - origin
        return begin, begin + float(stream.duration * stream.time_base)
    first, last = math.inf, 0.0
    for packet in container.demux(stream):
        check()
        if packet.pts is not None and packet.size:
            first = min(first, float(packet.pts * packet.time_base) - origin)
            last = max(last, float((packet.pts + (packet.duration or 0)) * packet.time_base) - origin)
    return (max(0.0, first), last) if last > first else (0.0, 0.0)
