"""The packets of a clip, with the packets before it that its decoders need."""

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import av

from omnihuman.data.decode.clock import ESTIMATED_LENGTH, MAX_REORDER, TOLERANCE, file_origin, find_file_end, frame_step
from omnihuman.data.decode.riff import has_open_end
from omnihuman.data.record import BadSample, Span

JITTER = 0.03
"""Seconds by which the time stamp of an audio block may be late though the block follows without a gap."""

LEAD = 0.1
"""Seconds of audio before a clip after which a decoder has the state that it has in the middle of the file."""

MAX_GROUP = 10.0
"""Seconds from key frame to key frame in formats in which FFmpeg does not look for a key frame."""

MAX_BYTES = 1 << 30
"""Compressed bytes of a clip that are held in memory."""

Check = Callable[[], None]
"""Raises if reading takes too long."""


def demux(
    path: Path,
    container: Any,
    streams: Sequence[Any],
    span: Span,
    audio_span: tuple[float, float],
    check: Check,
    *,
    lead: float | None,
) -> dict[int, list[Any]] | None:
    """Return the packets of the clip by stream index, in decoding order; of audio one more that follows the clip.

    Args:
        path: of the file, for messages.
        container: just opened.
        streams: to read, one of a kind.
        span: first and last second of the clip.
        audio_span: first and last second of its audio.
        check: raises if reading takes too long.
        lead: seconds that the file has before ``audio_span``; ``None`` to read from the beginning of the file.

    Returns:
        ``None`` if no seek ends early enough: read from the beginning.

    Raises:
        BadSample: a packet is cut, the file ends before its header says, or the packets need too much memory.
    """
    origin = file_origin(container)
    start, end = span
    frames_end = math.inf if end is None else origin + end
    stops = {stream.index: _find_stop(stream, frames_end, origin + audio_span[1]) for stream in streams}
    is_seekable = container.start_time is not None  # a raw stream can only be read from its beginning
    if lead is None or start <= 0 or not is_seekable:
        return _read_packets(path, container, streams, stops, frames_end, check)
    begin = audio_span[0] + origin
    audio = next((stream for stream in streams if stream.type == "audio"), None)
    # A little earlier: an audio decoder needs the blocks before, and frames begin at a key frame.
    margin = MAX_GROUP if container.format.name in ESTIMATED_LENGTH else 0.2
    position = start + origin - margin
    for _ in range(2):
        try:
            container.seek(int(max(origin, position) * av.time_base))
        except av.FFmpegError:  # there is no key frame before
            return None
        packets = _read_packets(path, container, streams, stops, frames_end, check)
        if audio is None or _has_lead(packets[audio.index], begin, min(lead, LEAD)):
            return packets
        # The seek ends too late, or in a gap, behind which the decoder would begin anew.
        position = min([begin, *map(_second, packets[audio.index][:1])]) - 2.0
    return None


def _has_lead(packets: Sequence[Any], begin: float, lead: float) -> bool:
    """Return whether audio packets begin so many seconds before a second on the clock of the file."""
    num_before = sum(_second(packet) < begin for packet in packets)
    # The median: a packet before a gap may last until the next one.
    durations = sorted(float((packet.duration or 0) * packet.time_base) for packet in packets)
    seconds = num_before * durations[len(durations) // 2] if durations else 0.0
    return min(map(_second, packets), default=0.0) < begin + JITTER and seconds > lead - JITTER


def _second(packet: Any) -> float:
    return 0.0 if packet.pts is None else float(packet.pts * packet.time_base)


def _read_packets(
    path: Path,
    container: Any,
    streams: Sequence[Any],
    stops: Mapping[int, float],
    frames_end: float,
    check: Check,
) -> dict[int, list[Any]]:
    """Return the next packets by stream index, to the second in ``stops`` on the clock of the file."""
    file_end = find_file_end(path, container)
    packets: dict[int, list[Any]] = {stream.index: [] for stream in streams}
    open_streams = set(packets)
    num_bytes, reached = 0, 0.0
    # Where only the whole file has a length, any stream may be the one that reaches it.
    for packet in container.demux(list(streams if file_end is None else container.streams)):
        check()
        index = packet.stream_index
        if packet.size:
            reached = max(reached, _packet_end(packet))
        if not packet.size or index not in open_streams:
            continue
        if _is_after(packet, stops[index]):
            open_streams.discard(index)
            if packet.stream.type == "audio" and not packet.is_corrupt:
                packets[index].append(packet)  # a gap at the clip's end has no packet but this
            if not open_streams:
                return packets
            continue
        if packet.is_corrupt and not has_open_end(path):  # without a size, the last block is shorter than the others
            place = f"{reached:.2f} s" if file_end is None else f"{reached:.2f} s of {file_end:.2f} s"
            raise BadSample("truncated", f"{path}: a packet at {place} is cut; replace the file.")
        num_bytes += packet.size
        if num_bytes > MAX_BYTES:
            raise BadSample("too_large", f"{path}: the clip has more than {MAX_BYTES >> 30} GiB; give start and end.")
        packets[index].append(packet)
    if file_end is not None and reached < min(file_end, frames_end) - TOLERANCE:
        raise BadSample("truncated", f"{path}: the file ends at {reached:.2f} s of {file_end:.2f} s; it is cut.")
    return packets


def _is_after(packet: Any, stop: float) -> bool:
    """Return whether all that follows a packet is after a second of the file's clock.

    Frames are stored before they are shown, so this is known where they are decoded after it.
    """
    time_stamp = packet.pts if packet.dts is None and packet.stream.type == "audio" else packet.dts
    return time_stamp is not None and float(time_stamp * packet.time_base) > stop


def _find_stop(stream: Any, frames_end: float, audio_end: float) -> float:
    """Return the second of the file's clock from which on packets of a stream are not needed."""
    if stream.type == "audio":
        return audio_end
    # In files without times at which frames are shown, those of the clip are stored a little after its end.
    num_frames = MAX_REORDER if stream.codec_context.has_b_frames else 0
    return frames_end + num_frames * frame_step(stream)


def _packet_end(packet: Any) -> float:
    """Return the second of the file's clock at which a packet ends."""
    stamps = [stamp for stamp in (packet.pts, packet.dts) if stamp is not None]
    return float((max(stamps, default=0) + (packet.duration or 0)) * packet.time_base)
