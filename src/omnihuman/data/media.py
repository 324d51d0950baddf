"""Media files: headers, frames and audio of a clip, with one open per file."""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import av
import torch
from av.stream import Disposition
from jaxtyping import Float, UInt8
from torch import Tensor

from omnihuman.data.decode.audio import decode_audio, measure_audio
from omnihuman.data.decode.error import explain_open_error, explain_read_error
from omnihuman.data.decode.frames import MAX_PIXELS, DecodedFrame, Take, decode_frames, take_image
from omnihuman.data.decode.header import Header as Header
from omnihuman.data.decode.header import Track
from omnihuman.data.decode.image import (
    check_size,
    list_images,
    read_folder,
    read_image,
    read_tiles,
    resize,
    show_image,
)
from omnihuman.data.decode.packets import Check, demux
from omnihuman.data.decode.riff import has_open_end
from omnihuman.data.decode.sampling import Sampling
from omnihuman.data.decode.streams import choose_streams, is_decodable, list_streams, select_streams
from omnihuman.data.record import BadSample, Record, Span
from omnihuman.data.shards import open_local, parse_member
from omnihuman.modality import SAMPLE_RATE as SAMPLE_RATE

FORMATS = (
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,mpeg,flv,asf,mxf,dv,ivf,h264,hevc,mpegvideo,"
    "ogg,wav,w64,mp3,flac,aac,aiff,ac3,amr,caf,au,tta,wv,"
    "gif,apng,image2,jpeg_pipe,png_pipe,webp_pipe,bmp_pipe,tiff_pipe"
)
"""Formats that FFmpeg may open. Playlists are not among them: they would name other files."""


@dataclass(frozen=True, slots=True)
class Clip:
    """The decoded media of a record.

    Attributes:
        frames: frames of the first video, then those of the second one.
        times: seconds of the frames, each in its own file.
        waveform: 16 kHz mono audio in [-1, 1].
        num_first: number of frames of the first video.
        scale: side of its frames divided by that in the file, below 1 for large frames.
        gaps: seconds of every gap of the audio, a time for which the file has none; there the waveform is silent.
        steps: what was taken of each frame while it was decoded.
    """

    frames: UInt8[Tensor, "T 3 H W"] | None = None
    times: tuple[float, ...] = ()
    waveform: Float[Tensor, " S"] | None = None
    num_first: int = 0
    scale: float = 1.0
    gaps: tuple[float, ...] = ()
    steps: tuple[Any, ...] = ()

    def stack(self) -> "Clip":
        """Return the clip with its frames, where ``steps`` are their images."""
        return replace(self, frames=torch.stack(self.steps)) if self.steps else self


def probe(path: Path, timeout: float = 60.0, max_pixels: int = MAX_PIXELS) -> Header:
    """Read the header of a file, or count the images of a folder.

    A process reads the header of a file once, for as long as its size and time of change stay the same.

    Args:
        path: a file, or a folder of numbered images.
        timeout: seconds after which reading stops.
        max_pixels: largest frame.

    Raises:
        BadSample: the file is missing or not a media file, its frames are too large, or the folder has no image.
    """
    if path.is_dir():
        return Header(has_video=True, num_frames=len(list_images(path)))
    try:
        stat = path.stat()
    except OSError:  # which opening explains; or a member of a shard
        with open_local(path, timeout) as local:
            return _probe.__wrapped__(local, timeout, max_pixels)
    return _probe(path, timeout, max_pixels, stat.st_ino, stat.st_size, stat.st_mtime_ns)


@lru_cache(maxsize=1 << 14)
def _probe(path: Path, timeout: float, max_pixels: int, *version: int) -> Header:
    """Read the header of a file; ``version`` tells apart files that had the same path."""
    with open_media(path, timeout, max_pixels) as (container, check):
        if _is_image(container):
            height, width = _decode_still(path, container, max_pixels, check).shape[-2:]
            return Header(has_video=True, is_still=True, num_frames=1, size=(height, width))
        videos, audios = list_streams(container)
        if not videos and not audios:
            raise BadSample("no_media", f"{path}: the file has neither video nor audio.")
        return _read_header(path, container, videos, audios, check)


def _read_header(path: Path, container: Any, videos: Sequence[Any], audios: Sequence[Any], check: Check) -> Header:
    """Return the header of a file with its streams, those that FFmpeg chooses selected."""
    video_tracks, audio_tracks = list[Track](), list[Track]()
    for stream in videos:
        fps = float(stream.average_rate or 25)
        video_tracks.append(Track((0.0, 0.0), stream.frames, fps, is_decodable(stream)))
    spans = measure_audio(path, container, audios, check) if audios else []
    for stream, span in zip(audios, spans, strict=True):
        audio_tracks.append(Track(span, is_decodable=is_decodable(stream)))
    if not any(track.is_decodable for track in (*video_tracks, *audio_tracks)):
        raise BadSample("no_decoder", f"{path}: there is no decoder for any of its streams; convert the file.")
    video, audio = choose_streams(container, videos, audios)
    return Header(bool(videos), videos=tuple(video_tracks), audios=tuple(audio_tracks)).select(video, audio)


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
        num_samples: audio samples to decode, at most as ``Header.num_samples`` counts them for the clip; 0 for none.
        start: first second of the clip.
        end: last second of the clip, ``None`` for the end of the file.
        header: of the file, if it is known.
        timeout: seconds after which reading stops.

    Raises:
        BadSample: the file is missing, unreadable, truncated, empty in the clip, or too slow to read.
    """
    clip = read_file(path, num_frames, num_samples, (start, end), header or probe(path, timeout), timeout).stack()
    return clip.frames, list(clip.times), clip.waveform


def read_file(
    path: Path,
    num_frames: int,
    num_samples: int,
    span: Span,
    header: Header,
    timeout: float,
    sampling: Sampling = "midpoints",
    take: Take = take_image,
) -> Clip:
    """Decode one file as ``read`` does, and return what ``take`` makes of its frames, its gaps and its scale."""
    if not num_frames and (path.is_dir() or header.is_still):
        return Clip()
    if parse_member(path) is not None:
        with open_local(path, timeout) as local:
            return read_file(local, num_frames, num_samples, span, header, timeout, sampling, take)
    if path.is_dir():
        steps, times, scale = read_folder(path, num_frames, span, header.fps, sampling, take)
        return Clip(times=tuple(times), num_first=len(steps), scale=scale, steps=tuple(steps))
    if header.is_still:
        return Clip(times=(0.0,), num_first=1, steps=(take(show_image(_read_still(path, timeout))),))
    lead = header.audio_within(*span)[0] - header.audio[0]
    read_streams = partial(_read_streams, path, header, span, (num_frames, num_samples), sampling, take)
    with open_media(path, timeout) as (container, check):
        clip = read_streams(container, lead, check)
    if clip is None:
        with open_media(path, timeout) as (container, check):
            clip = read_streams(container, None, check)
    assert clip is not None
    return clip


def _read_streams(
    path: Path,
    header: Header,
    span: Span,
    amounts: tuple[int, int],
    sampling: Sampling,
    take: Take,
    container: Any,
    lead: float | None,
    check: Check,
) -> Clip | None:
    """Return so many frames and audio samples of a clip; ``None`` if ``demux`` must begin where the file begins."""
    num_frames, num_samples = amounts
    numbers = dict[str, int | None]()
    if num_frames:
        numbers["video"] = header.video_stream
    if num_samples:
        numbers["audio"] = header.audio_stream
    streams = select_streams(path, container, numbers)
    audio_span = header.audio_within(*span)
    if 0 < num_samples < header.num_samples(*span):
        audio_span = (audio_span[0], audio_span[0] + num_samples / SAMPLE_RATE)
    packets = demux(path, container, list(streams.values()), span, audio_span, check, lead=lead)
    if packets is None:
        return None
    clip = Clip()
    if num_frames:
        video = streams["video"]
        decoded = packets[video.index]
        steps, times, scale = decode_frames(path, video, decoded, num_frames, span, check, sampling, take)
        clip = Clip(times=tuple(times), num_first=num_frames, scale=scale, steps=tuple(steps))
    if num_samples:
        audio, zero = streams["audio"], header.audio[0]
        waveform, gaps = decode_audio(path, audio, packets[audio.index], audio_span, num_samples, check, zero)
        clip = replace(clip, waveform=waveform, gaps=tuple(gaps))
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
    header = _select_tracks(record, headers)
    for file in (record.file, *record.more_images) if record.more_images else ():
        if not _get_header(file, headers).is_still:
            raise BadSample("no_media", f"{file}: it is no image; several files of a record must be images.")
    if record.file.is_dir():
        header = replace(header, fps=record.fps)
    if record.second_clip is not None:
        both = (header, _get_header(record.second_clip, headers))
        if not all(each.has_video and not each.is_still for each in both):
            message = f"{record.file} and {record.second_clip}: both clips of a record must be videos."
            raise BadSample("no_media", message)
    return header


def _select_tracks(record: Record, headers: Mapping[Path, Header | BadSample]) -> Header:
    """Return the header of the video and the audio that the record chooses, with notes on those that it does not.

    Raises:
        BadSample: the file has no such stream, or there is no decoder for one that the text names.
    """
    header = _get_header(record.file, headers)
    audio_file = record.audio_track or record.file
    audio_header = _get_header(audio_file, headers)
    tracks = {"video": (record.file, header.videos), "audio": (audio_file, audio_header.audios)}
    keys = {"video": record.video_stream, "audio": record.audio_stream}
    chosen = {"video": header.video_stream, "audio": audio_header.audio_stream}
    notes = []
    for kind, (file, candidates) in tracks.items():
        number, key = chosen[kind], keys[kind]
        if key is not None:
            if key >= len(candidates):
                message = f"{file}: {kind}_stream={key}, but the file has {len(candidates)} {kind} streams (from 0 on)."
                raise BadSample("no_media", f"{message}")
            number = chosen[kind] = key
        elif len(candidates) > 1:
            notes.append(f"{file.name} has {len(candidates)} {kind} streams; {number} is read ({kind}_stream=...)")
        if number is not None and kind in record.slots and not candidates[number].is_decodable:
            raise BadSample("no_decoder", f"{file}: there is no decoder for its {kind}; convert the file.")
    header = header.select(chosen["video"], None)
    if audio_header.audios or record.audio_track is not None:
        audio = audio_header.select(None, chosen["audio"])
        header = replace(header, audio=audio.audio, audio_stream=audio.audio_stream)
    return replace(header, notes=tuple(notes))


def _get_header(file: Path, headers: Mapping[Path, Header | BadSample]) -> Header:
    header = headers[file]
    assert isinstance(header, Header), file
    return header


def read_clip(
    record: Record,
    header: Header,
    num_frames: int,
    num_samples: int,
    timeout: float = 60.0,
    sampling: Sampling = "midpoints",
    take: Take | None = None,
) -> Clip:
    """Decode the media of a record: frames of one or two videos, and audio of the file or of its audio track.

    Frames of the second video are scaled to the size of the first. What the header lacks is filled as the official
    code does: one black frame, silence.

    Args:
        record: names the files.
        header: of the record, see ``merge_headers``.
        num_frames: frames to decode, at least two of two videos; the first one gives the odd frame.
        num_samples: audio samples to decode.
        timeout: seconds per file.
        sampling: of the frames; of two videos, ``ends`` takes the place of ``fps``.
        take: makes of every frame what becomes ``Clip.steps``, and the frame is let go; ``None`` keeps all frames.

    Raises:
        BadSample: a file does not hold what its header promises.
    """
    clip = Clip()
    frames_of_file = num_frames if header.has_video else 0
    samples_of_file = num_samples if header.has_audio else 0
    if frames_of_file or samples_of_file:
        amounts = (frames_of_file, samples_of_file)
        clip = _read_files(record, header, amounts, timeout, sampling, take or take_image)
    if num_frames and not clip.steps:
        black = show_image(torch.zeros(3, 64, 64, dtype=torch.uint8))
        clip = replace(clip, steps=((take or take_image)(black),), times=(0.0,), num_first=1)
    if num_samples and clip.waveform is None:
        clip = replace(clip, waveform=torch.zeros(num_samples))
    return clip.stack() if take is None else clip


def _read_files(
    record: Record, header: Header, amounts: tuple[int, int], timeout: float, sampling: Sampling, take: Take
) -> Clip:
    """``read_clip`` without fillers: one open where frames and audio are the same clip of the same file."""
    num_frames, num_samples = amounts
    num_first = num_frames
    if record.second_clip is not None:
        num_first, sampling = (num_frames + 1) // 2, "ends" if sampling == "fps" else sampling
    is_one_clip = record.audio_track is None and record.audio_span == record.span
    sizes = list[tuple[int, int]]()

    def take_first(frame: DecodedFrame) -> Any:
        sizes.append(frame.size)
        return take(frame)

    clip = Clip()
    if num_first or (num_samples and is_one_clip):
        samples_of_file = num_samples if is_one_clip else 0
        clip = read_file(record.file, num_first, samples_of_file, record.span, header, timeout, sampling, take_first)
    if num_samples and not is_one_clip:
        audio_file = record.audio_track or record.file
        audio_header = header if audio_file == record.file else replace(header, is_still=False)
        audio = read_file(audio_file, 0, num_samples, record.audio_span, audio_header, timeout)
        clip = replace(clip, waveform=audio.waveform, gaps=audio.gaps)
    if record.second_clip is not None and clip.steps:
        second_header, span = Header(has_video=True, fps=record.fps), record.second_clip_span
        num_second = num_frames - num_first
        take_second = partial(_take_second, take, sizes[0])
        second = read_file(record.second_clip, num_second, 0, span, second_header, timeout, sampling, take_second)
        clip = replace(clip, steps=clip.steps + second.steps, times=clip.times + second.times)
    return clip


def _take_second(take: Take, size: tuple[int, int], frame: DecodedFrame) -> Any:
    """Take a frame of the second video, which has the size of the first one."""

    def convert(target: tuple[int, int], interpolation: str | None) -> UInt8[Tensor, "3 H W"]:
        return resize(frame.image[None], size)[0] if interpolation is None else frame.scale(target)

    return take(replace(frame, size=size, convert=convert, is_second=True))


@contextmanager
def open_media(path: Path, timeout: float, max_pixels: int = MAX_PIXELS) -> Iterator[tuple[Any, Check]]:
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
        if has_open_end(path):
            options["ignore_length"] = "1"
        # Titles are not read, and older programs write them in other encodings than UTF-8.
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
    with open_media(path, timeout) as (container, check):
        return _decode_still(path, container, MAX_PIXELS, check)


def _decode_still(path: Path, container: Any, max_pixels: int, check: Check) -> UInt8[Tensor, "3 H W"]:
    items = _list_items(container)
    if not items:
        return read_image(path, max_pixels)
    if any(item.disposition & Disposition.dependent for item in items):
        return read_tiles(path, max_pixels)
    primary = next((item for item in items if item.disposition & Disposition.default), items[0])
    packets = [packet for packet in container.demux(primary) if packet.size]
    frames, *_ = decode_frames(path, primary, packets, 1, (0.0, None), check)
    still: Tensor = frames[0]
    return still
