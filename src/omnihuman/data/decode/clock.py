"""Clocks of media files: when frames are shown, and the second at which a file ends by its header."""

from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import numpy as np

from omnihuman.data.record import BadSample, Span

TOLERANCE = 0.15
"""Seconds by which a header may promise more than the file holds: codecs begin and end in whole blocks."""

MAX_REORDER = 16
"""Most frames that a codec stores before one that is shown earlier (H.264, HEVC)."""

FILE_LENGTH = {"matroska", "flv", "asf"}
"""Formats whose header has one length, that of the whole file: single streams may be shorter."""

ESTIMATED_LENGTH = {"mpeg", "mpegts"}
"""Formats without a length in the header: FFmpeg estimates it by the last time stamps that it finds."""

TIMELESS = {"avi", "h264", "hevc", "mpegvideo"}
"""Formats that do not store when frames are shown: FFmpeg counts in decoding order."""

ASF_PROPERTIES = bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365")
"""Identifier of the object of an ASF header that holds the length."""


def file_origin(container: Any) -> float:
    """Return the second at which the file's clock starts."""
    return float((container.start_time or 0) / av.time_base)


def frame_step(stream: Any) -> float:
    """Return the seconds from frame to frame."""
    return 1 / float(stream.average_rate or 25)


def find_file_end(path: Path, container: Any) -> float | None:
    """Return the second of the file's clock at which the whole file ends by its header.

    ``None`` where the header has a length of each stream, or none at all, as that of a live recording.
    """
    names = set(container.format.name.split(","))
    if "asf" in names:
        return _read_asf_length(path)
    # Where the header has no length, FFmpeg divides the size by the bit rate, and then gives every stream a duration.
    is_estimate = all(stream.duration is not None for stream in container.streams)
    if not names & FILE_LENGTH or container.duration is None or is_estimate:
        return None
    return float(container.duration / av.time_base)


def _read_asf_length(path: Path) -> float | None:
    """Return the seconds in the header of an ASF file; FFmpeg ignores them where the file is cut.

    Reference: ASF specification 3.2, file properties object.
    """
    with path.open("rb") as file:
        _, _, properties = file.read(1 << 16).partition(ASF_PROPERTIES)
    if len(properties) < 76:
        return None
    duration, preroll = (int.from_bytes(properties[start : start + 8], "little") for start in (48, 64))
    is_live = properties[72] & 1
    seconds = duration / 1e7 - preroll / 1e3
    return None if is_live or seconds <= 0 else seconds


def check_reach(path: Path, stream: Any, times: Sequence[float], span: Span) -> None:
    """Check that frames reach the end that the header promises, or the end of the clip.

    Args:
        path: of the file, for messages.
        stream: the video stream.
        times: seconds of the frames.
        span: the clip.

    Raises:
        BadSample: the clip starts after the end of the file, or the file is cut.
    """
    start, end = span
    step = frame_step(stream)
    reached = max(times, default=0.0) + step
    promised = _find_stream_end(stream)
    stop = max(reached, promised)
    if times and start >= stop:
        raise BadSample("empty_clip", f"{path}: the clip starts at {start:g} s, the file ends at {stop:g} s.")
    needed = promised if end is None else min(promised, end)
    if reached < needed - max(TOLERANCE, 2 * step):
        raise BadSample("truncated", f"{path}: frames end at {reached:.2f} s of {promised:.2f} s; the file is cut.")


def _find_stream_end(stream: Any) -> float:
    """Return the second at which a stream ends by its header, 0 where the header does not tell."""
    names = set(stream.container.format.name.split(","))
    if names & (FILE_LENGTH | ESTIMATED_LENGTH):
        return 0.0
    if "avi" in names:  # FFmpeg shortens the duration where the file is cut, but not the number of frames
        return float(stream.frames * frame_step(stream))
    if not stream.duration:  # 0 for an image stored as a GIF
        return 0.0
    end = ((stream.start_time or 0) + stream.duration) * stream.time_base
    return float(end) - file_origin(stream.container)


def has_display_times(stream: Any, packets: Sequence[Any], frames: Iterator[Any]) -> bool:
    """Return whether the time stamps of packets are those at which their frames are shown.

    Where a format stores no such times, FFmpeg gives none, or those of decoding; so do programs that copy its streams.

    Args:
        stream: the video stream.
        packets: of the clip.
        frames: the first decoded ones; they are taken only where their order decides.
    """
    stamps = [packet.pts for packet in packets if not packet.is_discard]
    if None in stamps or len(set(stamps)) < len(stamps):
        return False
    if stream.container.format.name in TIMELESS:
        return all(packet.pts == packet.dts for packet in packets)
    if not stream.codec_context.has_b_frames or stamps != sorted(stamps):
        return True
    order = [frame.pts for frame in frames]
    return order == sorted(order)


def assign_display_times(stream: Any, packets: Sequence[Any], frame_times: Sequence[float | None]) -> list[float]:
    """Return rising seconds of decoded frames: their own, or else the decoding times of the packets in order.

    Args:
        stream: the video stream.
        packets: of the frames.
        frame_times: by the decoder, in the order in which frames are shown.
    """
    origin = file_origin(stream.container)
    stamps = [packet.dts * packet.time_base for packet in packets if packet.dts is not None and not packet.is_discard]
    decoding_times = [float(stamp) - origin for stamp in sorted(stamps)]
    times = [None if second is None else second - origin for second in frame_times]
    known = [second for second in times if second is not None]
    is_timeless = stream.container.format.name in TIMELESS
    num_falls = sum(later < earlier for earlier, later in pairwise(known))
    # A time stamp can be wrong alone. Those of decoding fall in every group of frames that depend on each other.
    if is_timeless or not known or num_falls * 2 * MAX_REORDER > len(known):
        # The first frame shown gets the first time, and so on. Frames before the key frame at which reading begins can
        # be lost.
        num_lost = len(decoding_times) - len(times)
        delay = 0.0
        if known and decoding_times and not is_timeless:
            delay = known[0] - decoding_times[0]
        times = [None] * len(times)
        if 0 <= num_lost <= MAX_REORDER:
            times = [second + delay for second in decoding_times[num_lost:]]
    return _fill_times(times, decoding_times[0] if decoding_times else 0.0, frame_step(stream))


def _fill_times(times: Sequence[float | None], begin: float, step: float) -> list[float]:
    """Return rising seconds: missing and doubled ones lie evenly between their neighbours.

    >>> _fill_times([None, 0.2, 0.2, 0.6, None], 0.0, 0.1)
    [0.1, 0.2, 0.4, 0.6, 0.7]
    """
    numbers, known = list[int](), list[float]()
    for number, second in enumerate(times):
        if second is not None and (not known or second > known[-1]):
            numbers.append(number)
            known.append(second)
    if not known:
        numbers, known = [0], [begin]
    last = len(times) - 1
    first_second = known[0] - step * numbers[0]
    last_second = known[-1] + step * (last - numbers[-1])
    numbers, known = [0, *numbers, last], [first_second, *known, last_second]
    return [round(float(second), 9) for second in np.interp(range(len(times)), numbers, known)]
