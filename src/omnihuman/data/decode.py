"""Decode the packets of a clip to the selected frames and audio samples, and nothing that they do not need."""

import math
import struct
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import numpy as np
import torch
from av.video.reformatter import VideoReformatter
from jaxtyping import Float, UInt8
from torch import Tensor

from omnihuman.data.clock import (
    ESTIMATED_LENGTH,
    MAX_REORDER,
    TOLERANCE,
    assign_display_times,
    check_reach,
    file_origin,
    find_file_end,
    frame_step,
    has_display_times,
)
from omnihuman.data.record import BadSample, Span
from omnihuman.modality import SAMPLE_RATE

JITTER = 0.03
"""Seconds by which the time stamp of an audio block may be late though the block follows without a gap."""

MAX_PIXELS = 1 << 26
"""Pixels of a decoded clip: a larger frame is refused, and the frames of a longer clip are scaled down to fit."""

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
) -> dict[int, list[Any]]:
    """Return the packets of the clip by stream index, in decoding order.

    Raises:
        BadSample: the clip is too large, or the file ends before its header says.
    """
    origin, file_end = file_origin(container), find_file_end(path, container)
    start, end = span
    if start > 0 and container.start_time is not None:  # a raw stream can only be read from its beginning
        # A little earlier: an audio decoder needs the block before, and frames begin at a key frame.
        margin = MAX_GROUP if container.format.name in ESTIMATED_LENGTH else 0.2
        container.seek(max(0, int((start - margin + origin) * av.time_base)))
    frames_end = math.inf if end is None else origin + end
    stops = {stream.index: _find_stop(path, stream, frames_end, origin + audio_span[1]) for stream in streams}
    packets: dict[int, list[Any]] = {stream.index: [] for stream in streams}
    num_bytes, reached = 0, 0.0
    # Where only the whole file has a length, any stream may be the one that reaches it.
    for packet in container.demux(list(streams if file_end is None else container.streams)):
        check()
        index = packet.stream_index
        if packet.size:
            reached = max(reached, _packet_end(packet))
        if not packet.size or index not in stops:
            continue
        if _is_after(packet, stops[index]):
            del stops[index]
            if not stops:
                return packets
            continue
        if packet.is_corrupt:
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


def _find_stop(path: Path, stream: Any, frames_end: float, audio_end: float) -> float:
    """Return the second of the file's clock from which on packets of a stream are not needed."""
    if stream.codec_context is None:
        raise BadSample("no_decoder", f"{path}: FFmpeg has no decoder for its {stream.type}; convert the file.")
    if stream.type == "audio":
        return audio_end
    # In files without times at which frames are shown, those of the clip are stored a little after its end.
    num_frames = MAX_REORDER if stream.codec_context.has_b_frames else 0
    return frames_end + num_frames * frame_step(stream)


def _packet_end(packet: Any) -> float:
    """Return the second of the file's clock at which a packet ends."""
    stamps = [stamp for stamp in (packet.pts, packet.dts) if stamp is not None]
    return float((max(stamps, default=0) + (packet.duration or 0)) * packet.time_base)


def decode_frames(
    path: Path, stream: Any, packets: list[Any], num_frames: int, span: Span, check: Check
) -> tuple[UInt8[Tensor, "T 3 H W"], list[float], float]:
    """Return uniformly selected frames of the clip, the seconds at which they are shown, and their scale.

    Frames are upright. Their scale is below 1 where ``num_frames`` of the size in the file exceed ``MAX_PIXELS``.

    Raises:
        BadSample: the clip has no frame, or the file ends before its header says.
    """
    num_promised = _count_indexed(stream)
    if span == (0.0, None) and len(packets) < num_promised:
        raise BadSample("truncated", f"{path}: {len(packets)} of {num_promised} frames are there; the file is cut.")
    convert = _Converter(MAX_PIXELS // num_frames)
    beginning = _decode_all(stream, packets[:MAX_REORDER], check)
    is_timed = has_display_times(stream, packets, beginning)
    stream.codec_context.flush_buffers()
    decode = _decode_by_time if is_timed else _decode_by_number
    selected, images, times = decode(path, stream, packets, num_frames, span, convert, check)
    if num_missing := len(set(selected) - set(images)):
        message = f"{num_missing} of {len(set(selected))} selected frames cannot be decoded; the file is damaged."
        raise BadSample("truncated" if images else "no_frames", f"{path}: {message}")
    return torch.stack([images[key] for key in selected]), [times[key] for key in selected], convert.scale


Selection = tuple[list[int], dict[int, Tensor], dict[int, float]]
"""Keys of the selected frames, their images, and the seconds of all frames."""


def _decode_by_time(
    path: Path, stream: Any, packets: list[Any], num_frames: int, span: Span, convert: "_Converter", check: Check
) -> Selection:
    """Select frames by the time stamps of packets, and decode only what these frames need."""
    origin = file_origin(stream.container)
    visible = [packet for packet in packets if not packet.is_discard]
    times = {packet.pts: float(packet.pts * packet.time_base) - origin for packet in visible}
    check_reach(path, stream, list(times.values()), span)
    selected = select_frames(path, times, num_frames, span)
    keyed = ((frame.pts, frame) for frame in _decode_needed(stream, packets, set(selected), check))
    images = _collect(keyed, selected, convert)
    if len(images) < len(set(selected)):  # frames that build up over several groups of pictures
        stream.codec_context.flush_buffers()
        stream.codec_context.skip_frame = "DEFAULT"
        keyed = ((frame.pts, frame) for frame in _decode_all(stream, packets, check))
        images = _collect(keyed, selected, convert)
    return selected, images, times


def _decode_by_number(
    path: Path, stream: Any, packets: list[Any], num_frames: int, span: Span, convert: "_Converter", check: Check
) -> Selection:
    """Select frames of a file without their time stamps: decode once to count, once to select."""
    frame_times = [frame.time for frame in _decode_all(stream, packets, check)]
    stream.codec_context.flush_buffers()
    times = dict(enumerate(assign_display_times(stream, packets, frame_times)))
    check_reach(path, stream, list(times.values()), span)
    selected = select_frames(path, times, num_frames, span)
    return selected, _collect(enumerate(_decode_all(stream, packets, check)), selected, convert), times


def select_frames(path: Path, times: dict[int, float], num_frames: int, span: Span) -> list[int]:
    """Return the keys of uniformly selected frames of a clip, given the seconds of all frames of the file.

    Raises:
        BadSample: no frame is shown in the clip.
    """
    start, end = span
    stop = math.inf if end is None else end
    order = sorted(times, key=lambda key: (times[key], key))
    inside = [key for key in order if start - 1e-6 <= times[key] < stop]
    if not inside:
        inside = [key for key in order if times[key] < start][-1:]  # the frame that is still shown at the start
    if not inside:
        raise BadSample("no_frames", f"{path}: no frame between {start:g} s and {end or 'the end'}.")
    return [inside[index] for index in uniform_indices(len(inside), num_frames)]


def uniform_indices(count: int, num_frames: int) -> list[int]:
    """Return the midpoints of ``num_frames`` equal segments of ``[0, count - 1]``, rounded; a half is rounded up.

    Reference: HumanOmni ``frame_sample``, which adds 1e-6 before it rounds.

    >>> uniform_indices(100, 8), uniform_indices(25, 8)
    ([6, 19, 31, 43, 56, 68, 80, 93], [2, 5, 8, 11, 14, 17, 20, 23])
    """
    segment = (count - 1) / num_frames
    return [round(segment * (number + 0.5) + 1e-6) for number in range(num_frames)]


def decode_audio(
    path: Path, stream: Any, packets: list[Any], begin: float, num_samples: int, check: Check, zero: float = 0.0
) -> Float[Tensor, " S"]:
    """Return ``num_samples`` samples at 16 kHz mono from the second ``begin`` on.

    Args:
        path: of the file, for messages.
        stream: the audio stream.
        packets: its packets.
        begin: second of the first sample to return.
        num_samples: samples to return.
        check: raises if reading takes too long.
        zero: second of the first sample of the file.

    Raises:
        BadSample: the packets hold less audio than that.
    """
    samples, first, rate = _decode_mono(path, stream, packets, begin, check)
    # Resampling is done on the grid of the file, not of the clip. A resampler computes an output sample from a fixed
    # number of input samples (3 for 48 kHz). If it began at the first decoded sample, a clip would get other values
    # than the same span of a file that is decoded from its beginning, since seeking ends at arbitrary blocks. So input
    # samples are dropped up to the next multiple of that number, counted from the first sample of the file.
    offset = -round((first - zero) * rate) % (rate // math.gcd(rate, SAMPLE_RATE))
    audio = _resample(samples[offset:], rate)
    skip = round((begin - first - offset / rate) * SAMPLE_RATE)
    begins_late = -TOLERANCE * SAMPLE_RATE <= skip < 0
    if begins_late:
        audio = np.pad(audio, (-skip, 0))
    else:
        audio = audio[max(0, skip) :]
    num_missing = num_samples - len(audio)
    if num_missing > TOLERANCE * SAMPLE_RATE or not len(audio):
        seconds, promised = len(audio) / SAMPLE_RATE, num_samples / SAMPLE_RATE
        message = f"{seconds:.2f} s of audio where the header says {promised:.2f} s; the file is cut."
        raise BadSample("truncated" if len(audio) else "empty_audio", f"{path}: {message}")
    audio = np.nan_to_num(np.pad(audio, (0, max(0, num_missing)))[:num_samples])
    return torch.from_numpy(np.ascontiguousarray(audio, dtype=np.float32))


def _decode_mono(
    path: Path, stream: Any, packets: list[Any], begin: float, check: Check
) -> tuple[Float[np.ndarray, " S"], float, int]:
    """Return mono samples at the file's own rate, the second of the first one, and the rate."""
    mono = av.AudioResampler(format="fltp", layout="mono")
    origin, first, rate, num_decoded = file_origin(stream.container), begin, SAMPLE_RATE, 0
    pieces: list[np.ndarray[Any, Any]] = []
    for packet in [*packets, None]:
        check()
        for frame in stream.codec_context.decode(packet):
            second = None if frame.time is None else frame.time - origin
            if not pieces:
                first, rate = begin if second is None else second, frame.sample_rate
            gap = 0.0 if second is None else second - first - num_decoded / rate
            if gap > TOLERANCE:
                raise BadSample("corrupt", f"{path}: {gap:.2f} s of audio are missing at {second:.2f} s.")
            if gap > JITTER:
                pieces.append(np.zeros(round(gap * rate), np.float32))
            pieces += [piece.to_ndarray()[0] for piece in mono.resample(frame)]
            num_decoded = sum(map(len, pieces))
    if not pieces:
        raise BadSample("empty_audio", f"{path}: no audio can be decoded from {begin:.2f} s on; check the file.")
    return np.concatenate(pieces), first, rate


def _resample(samples: Float[np.ndarray, " S"], rate: int) -> Float[np.ndarray, " R"]:
    """Return samples at 16 kHz."""
    if rate == SAMPLE_RATE or not len(samples):
        return samples
    frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples[None]), format="fltp", layout="mono")
    frame.sample_rate = rate
    resampler = av.AudioResampler(format="fltp", layout="mono", rate=SAMPLE_RATE)
    pieces = [*resampler.resample(frame), *resampler.resample(None)]
    return np.concatenate([piece.to_ndarray()[0] for piece in pieces])


def _collect(frames: Iterable[tuple[int, Any]], selected: Sequence[int], convert: "_Converter") -> dict[int, Tensor]:
    """Return the selected ones of decoded frames by their key."""
    images: dict[int, Tensor] = {}
    for key, frame in frames:
        if key in selected and key not in images and not frame.is_corrupt:
            images[key] = convert(frame)
            if len(images) == len(set(selected)):
                break
    return images


def _count_indexed(stream: Any) -> int:
    """Return the number of frames in the file's index; an edit list may omit frames that the header counts."""
    return sum(entry.size > 0 for entry in stream.index_entries) if stream.frames else 0


def _decode_all(stream: Any, packets: list[Any], check: Check) -> Iterator[Any]:
    for packet in [*packets, None]:
        check()
        yield from stream.codec_context.decode(packet)


def _decode_needed(stream: Any, packets: list[Any], selected: set[int], check: Check) -> Iterator[Any]:
    """Yield frames, among them all selected ones; where the codec allows, frames are skipped that these do not need."""
    context = stream.codec_context
    if context.name not in ("h264", "hevc"):
        yield from _decode_all(stream, packets, check)
        return
    groups, is_needed = _split_groups(packets, selected)
    for number, group in enumerate(groups):
        if not is_needed[number]:
            continue
        for packet in group:
            check()
            context.skip_frame = "DEFAULT" if packet.pts in selected else "NONREF"
            yield from context.decode(packet)
        if number + 1 == len(groups) or not is_needed[number + 1]:
            yield from context.decode(None)
            context.flush_buffers()


def _split_groups(packets: list[Any], selected: set[int]) -> tuple[list[list[Any]], list[bool]]:
    """Split packets at key frames, and say which groups the selected frames need.

    Frames that are shown before the key frame of their group refer to the group before, so that is needed as well.
    """
    starts = [number for number, packet in enumerate(packets) if packet.is_keyframe or number == 0]
    groups = [packets[start:stop] for start, stop in pairwise([*starts, len(packets)])]
    is_needed = [False] * len(groups)
    for number, group in enumerate(groups):
        for packet in group:
            if packet.pts not in selected:
                continue
            is_needed[number] = True
            if number and packet.pts < group[0].pts:
                is_needed[number - 1] = True
    return groups, is_needed


class _Converter:
    """Converts frames of one clip to images ``[3 H W]`` of one size, upright.

    Args:
        max_pixels: of an image; larger frames are scaled down.

    Attributes:
        scale: side of an image divided by that of its frame.
    """

    def __init__(self, max_pixels: int) -> None:
        self.max_pixels = max_pixels
        self.scale = 1.0
        self._size: tuple[int, int] | None = None

    def __call__(self, frame: Any) -> UInt8[Tensor, "3 H W"]:
        if self._size is None:
            self.scale = min(1.0, math.sqrt(self.max_pixels / (frame.width * frame.height)))
            width, height = (max(1, int(side * self.scale)) for side in (frame.width, frame.height))
            is_transposed, _, _ = read_orientation(frame)
            self._size = (height, width) if is_transposed else (width, height)
        return _to_tensor(frame, self._size)


def read_orientation(frame: Any) -> tuple[bool, bool, bool]:
    """Return whether a frame is transposed to be shown, and whether it is then mirrored in x and in y.

    The display matrix of the file maps pixels to places: x' = a x + c y, y' = b x + d y. Angles between two quarter
    turns are rounded.
    """
    try:
        matrix = frame.side_data.get("DISPLAYMATRIX")
    except ValueError:  # PyAV fails at other side data, of a kind that it does not know
        matrix = None
    if matrix is None:
        return False, False, False
    a, b, _, c, d = struct.unpack("=5i", bytes(matrix)[:20])
    is_transposed = abs(b) + abs(c) > abs(a) + abs(d)
    across, down = (c, b) if is_transposed else (a, d)
    return is_transposed, across < 0, down < 0


def _to_tensor(frame: Any, size: tuple[int, int]) -> UInt8[Tensor, "3 H W"]:
    """Return a decoded frame, upright, with this width and height."""
    is_transposed, is_mirrored, is_flipped = read_orientation(frame)
    width, height = reversed(size) if is_transposed else size
    # A scaler of its own with one thread: PyAV's shared one may hold threads that a forked worker would wait for.
    scaled = VideoReformatter().reformat(frame, format="rgb24", width=width, height=height, threads=1)
    pixels = scaled.to_ndarray()
    if is_transposed:
        pixels = pixels.transpose(1, 0, 2)
    if is_mirrored:
        pixels = pixels[:, ::-1]
    if is_flipped:
        pixels = pixels[::-1]
    return torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1)))
