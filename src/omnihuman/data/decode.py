"""Decode the packets of a clip to the selected frames and audio samples, and nothing that they do not need."""

import math
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import numpy as np
import torch
from av.video.reformatter import VideoReformatter
from jaxtyping import Float, UInt8
from torch import Tensor

from omnihuman.data.record import BadSample, Span
from omnihuman.modality import SAMPLE_RATE

TOLERANCE = 0.15
"""Seconds by which a header may promise more than the file holds: codecs begin and end in whole blocks."""

JITTER = 0.03
"""Seconds by which the time stamp of an audio block may be late though the block follows without a gap."""

MAX_BYTES = 1 << 30
"""Compressed bytes of a clip that are held in memory."""

Check = Callable[[], None]
"""Raises if reading takes too long."""


def file_origin(container: Any) -> float:
    """Return the second at which the file's clock starts."""
    return float((container.start_time or 0) / av.time_base)


def demux(
    path: Path,
    container: Any,
    streams: Sequence[Any],
    span: Span,
    audio_span: tuple[float, float],
    check: Check,
) -> dict[int, list[Any]]:
    """Return the packets of the clip by stream index, in decoding order."""
    origin = file_origin(container)
    start, end = span
    if start > 0:
        # A little earlier: an audio decoder needs the block before, and frames begin at a key frame.
        container.seek(max(0, int((start - 0.2 + origin) * av.time_base)))
    frames_end = math.inf if end is None else end
    stops = {}
    for stream in streams:
        stops[stream.index] = origin + (audio_span[1] if stream.type == "audio" else frames_end)
    packets: dict[int, list[Any]] = {stream.index: [] for stream in streams}
    open_streams = set(packets)
    num_bytes = 0
    for packet in container.demux(list(streams)):
        check()
        index = packet.stream_index
        if not packet.size or index not in open_streams:
            continue
        time_stamp = packet.pts if packet.dts is None else packet.dts
        # Frames are stored before they are shown, so those of the clip end where dts passes the clip's end.
        if time_stamp is not None and float(time_stamp * packet.time_base) > stops[index]:
            open_streams.discard(index)
            if not open_streams:
                break
            continue
        if packet.is_corrupt:
            second = float((time_stamp or 0) * packet.time_base)
            raise BadSample("truncated", f"{path}: a packet at {second:.2f} s is cut; replace the file.")
        num_bytes += packet.size
        if num_bytes > MAX_BYTES:
            raise BadSample("too_large", f"{path}: the clip has more than {MAX_BYTES >> 30} GiB; give start and end.")
        packets[index].append(packet)
    return packets


def decode_frames(
    path: Path, stream: Any, packets: list[Any], num_frames: int, span: Span, check: Check
) -> tuple[UInt8[Tensor, "T 3 H W"], list[float]]:
    """Return uniformly selected frames of the clip, and the seconds at which they are shown.

    Raises:
        BadSample: the clip has no frame, or the file ends before its header says.
    """
    num_promised = _count_indexed(stream)
    if span == (0.0, None) and len(packets) < num_promised:
        raise BadSample("truncated", f"{path}: {len(packets)} of {num_promised} frames are there; the file is cut.")
    visible = [packet for packet in packets if not packet.is_discard]
    if any(packet.pts is None for packet in visible):
        return _decode_by_number(path, stream, visible, num_frames, span, check)
    origin = file_origin(stream.container)
    times = {packet.pts: float(packet.pts * packet.time_base) - origin for packet in visible}
    _check_reach(path, stream, times, span)
    selected = select_frames(path, times, num_frames, span)
    images = _collect(_decode_needed(stream, packets, set(selected), check), selected)
    if len(images) < len(set(selected)):  # frames that build up over several groups of pictures
        stream.codec_context.flush_buffers()
        stream.codec_context.skip_frame = "DEFAULT"
        images = _collect(_decode_all(stream, packets, check), selected)
    if num_missing := len(set(selected) - set(images)):
        message = f"{num_missing} of {len(set(selected))} selected frames cannot be decoded; the file is damaged."
        raise BadSample("truncated" if images else "no_frames", f"{path}: {message}")
    return torch.stack([images[pts] for pts in selected]), [times[pts] for pts in selected]


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


def _collect(frames: Iterator[Any], selected: Sequence[int]) -> dict[int, Tensor]:
    """Return the selected ones of decoded frames by their time stamp."""
    images: dict[int, Tensor] = {}
    size: tuple[int, int] | None = None
    for frame in frames:
        if frame.pts in selected and frame.pts not in images and not frame.is_corrupt:
            size = size or (frame.width, frame.height)
            images[frame.pts] = _to_tensor(frame, size)
            if len(images) == len(set(selected)):
                break
    return images


def _count_indexed(stream: Any) -> int:
    """Return the number of frames in the file's index; an edit list may omit frames that the header counts."""
    return sum(entry.size > 0 for entry in stream.index_entries) if stream.frames else 0


def _check_reach(path: Path, stream: Any, times: dict[int, float], span: Span) -> None:
    """Check that the frames reach the end that the header promises, or the end of the clip."""
    start, end = span
    if not stream.duration:  # 0 for an image stored as a GIF
        return
    promised = float(((stream.start_time or 0) + stream.duration) * stream.time_base) - file_origin(stream.container)
    if start >= promised:
        raise BadSample("empty_clip", f"{path}: the clip starts at {start:g} s, the file ends at {promised:g} s.")
    step = 1 / float(stream.average_rate or 25)
    reached = max(times.values(), default=0.0) + step
    if reached < min(promised, math.inf if end is None else end) - max(TOLERANCE, 2 * step):
        message = f"{path}: frames end at {reached:.2f} s of {promised:.2f} s; the file is cut."
        raise BadSample("truncated", message)


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


def _decode_by_number(
    path: Path, stream: Any, packets: list[Any], num_frames: int, span: Span, check: Check
) -> tuple[UInt8[Tensor, "T 3 H W"], list[float]]:
    """Return uniformly selected frames of a file without time stamps: decode once to count, once to select."""
    origin, fps, first = file_origin(stream.container), float(stream.average_rate or 25), packets[0].dts
    begin = 0.0 if first is None else float(first * packets[0].time_base) - origin
    times = {}
    for number, frame in enumerate(_decode_all(stream, packets, check)):
        times[number] = begin + number / fps if frame.time is None else frame.time - origin
    stream.codec_context.flush_buffers()
    selected = select_frames(path, times, num_frames, span)
    images: dict[int, Tensor] = {}
    size: tuple[int, int] | None = None
    for number, frame in enumerate(_decode_all(stream, packets, check)):
        if number in selected:
            size = size or (frame.width, frame.height)
            images[number] = _to_tensor(frame, size)
    return torch.stack([images[number] for number in selected]), [times[number] for number in selected]


def _to_tensor(frame: Any, size: tuple[int, int]) -> UInt8[Tensor, "3 H W"]:
    """Return a decoded frame, upright."""
    # A scaler of its own with one thread: PyAV's shared one may hold threads that a forked worker would wait for.
    scaled = VideoReformatter().reformat(frame, format="rgb24", width=size[0], height=size[1], threads=1)
    pixels = scaled.to_ndarray()
    if turns := round(frame.rotation / 90) % 4:
        pixels = np.rot90(pixels, turns)
    return torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1)))
