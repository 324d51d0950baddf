"""The streams of a file that are read: those that FFmpeg chooses, or those that a record names."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from av.stream import Disposition

from omnihuman.data.record import BadSample


def list_streams(container: Any) -> tuple[list[Any], list[Any]]:
    """Return the video and the audio streams; a cover image is not a video."""
    videos = [stream for stream in container.streams.video if not stream.disposition & Disposition.attached_pic]
    return videos, list(container.streams.audio)


def choose_streams(container: Any, videos: Sequence[Any], audios: Sequence[Any]) -> tuple[int | None, int | None]:
    """Return the numbers of the video and the audio stream that FFmpeg chooses, ``None`` where there are none.

    Reference: ``av_find_best_stream``: the default stream, not one for the impaired, then by frames and bit rate; audio
    of the program of the video.
    Differs from it: streams without a decoder and cover images do not count.
    """
    video = _choose(videos, container.streams.best("video"))
    related = None if video is None else videos[video]
    return video, _choose(audios, container.streams.best("audio", related=related))


def _choose(streams: Sequence[Any], best: Any) -> int | None:
    decodable = [number for number, stream in enumerate(streams) if is_decodable(stream)]
    for number in decodable:
        if best is not None and streams[number].index == best.index:
            return number
    fallbacks = decodable or range(len(streams))
    return next(iter(fallbacks), None)


def is_decodable(stream: Any) -> bool:
    """Return whether there is a decoder for a stream."""
    return stream.codec_context is not None


def select_streams(path: Path, container: Any, numbers: Mapping[str, int | None]) -> dict[str, Any]:
    """Return streams by their kind, ``video`` or ``audio``.

    Args:
        path: of the file, for messages.
        container: opened.
        numbers: of the streams among those of their kind; ``None`` for the one that FFmpeg chooses.

    Raises:
        BadSample: the file has none of the kind, or there is no decoder for it.
    """
    streams = dict(zip(("video", "audio"), list_streams(container), strict=True))
    best = dict(zip(streams, choose_streams(container, *streams.values()), strict=True))
    selected = {}
    for kind, number in numbers.items():
        number = best[kind] if number is None else number
        if number is None or number >= len(streams[kind]):
            raise BadSample("no_media", f"{path}: the file has no {kind} to read.")
        stream = streams[kind][number]
        if not is_decodable(stream):
            raise BadSample("no_decoder", f"{path}: there is no decoder for its {kind}; convert the file.")
        stream.thread_type = "NONE"  # workers are the parallelism; threads of a decoder cost more than they save
        selected[kind] = stream
    return selected
