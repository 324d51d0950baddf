"""Decode: the packets of a clip -> exactly the wanted frames and sound samples, and nothing that they do not need."""

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

from omnihuman.data.record import BadSample

SAMPLE_RATE = 16000
TOLERANCE = 0.15
"""Seconds by which a header may promise more than the file holds: codecs begin and end in whole blocks."""

JITTER = 0.03
"""Seconds by which a block of sound may be marked late though it follows the one before at once."""

LARGEST = 1 << 30
"""Bytes of a clip's compressed video that are held in memory."""

Check = Callable[[], None]
Clip = tuple[float, float | None]


def origin_of(container: Any) -> float:
    """Second at which the file's clock starts."""
    return float((container.start_time or 0) / av.time_base)


def demux(
    path: Path, container: Any, streams: Sequence[Any], clip: tuple[float, float | None],
    span: tuple[float, float], check: Check,
) -> dict[int, list[Any]]:  # fmt: skip
    """The packets of the clip by stream, in decoding order."""
    origin, (start, end) = origin_of(container), clip
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
        if packet.is_corrupt:
            raise BadSample(
                "truncated",
                f"{path}: a packet at {float((at or 0) * packet.time_base):.2f} s is cut; replace the file.",
            )
        held += packet.size
        if held > LARGEST:
            raise BadSample("too_large", f"{path}: the clip has more than {LARGEST >> 30} GiB; give start and end.")
        packets[index].append(packet)
    return packets


def pictures(
    path: Path, stream: Any, packets: list[Any], num_frames: int, clip: Clip, check: Check
) -> tuple[UInt8[Tensor, "T 3 H W"], list[float]]:
    """Uniformly chosen frames of the clip, and the seconds at which they are shown.

    Raises:
        BadSample: the clip has no frame, or the file ends before it should.
    """
    shown = [packet for packet in packets if not packet.is_discard]
    if clip == (0.0, None) and len(packets) < (promised := _promised(stream)):
        raise BadSample("truncated", f"{path}: {len(packets)} of {promised} frames are there; the file is cut.")
    if any(packet.pts is None for packet in shown):
        return _counted(path, stream, shown, num_frames, clip, check)
    origin = origin_of(stream.container)
    times = {packet.pts: float(packet.pts * packet.time_base) - origin for packet in shown}
    _check_reach(path, stream, times, clip)
    wanted = chosen(path, times, num_frames, clip)
    found = _found(_sparse(stream, packets, set(wanted), check), wanted)
    if len(found) < len(set(wanted)):  # pictures that build up over several groups
        stream.codec_context.flush_buffers()
        stream.codec_context.skip_frame = "DEFAULT"
        found = _found(_whole(stream, packets, check), wanted)
    if missing := len(set(wanted) - set(found)):
        what = f"{path}: {missing} of {len(set(wanted))} wanted frames cannot be decoded; the file is cut or damaged."
        raise BadSample("truncated" if found else "no_frames", what)
    return torch.stack([found[pts] for pts in wanted]), [times[pts] for pts in wanted]


def _found(frames: Iterator[Any], wanted: Sequence[int]) -> dict[int, Tensor]:
    """The wanted ones of decoded frames, by their time stamp."""
    found: dict[int, Tensor] = {}
    size: tuple[int, int] | None = None
    for frame in frames:
        if frame.pts in wanted and frame.pts not in found and not frame.is_corrupt:
            size = size or (frame.width, frame.height)
            found[frame.pts] = _picture(frame, size)
            if len(found) == len(set(wanted)):
                break
    return found


def _promised(stream: Any) -> int:
    """Frames that the file's table lists; an edit list may leave out some that the header counts."""
    return sum(entry.size > 0 for entry in stream.index_entries) if stream.frames else 0


def chosen(path: Path, times: dict[int, float], num_frames: int, clip: Clip) -> list[int]:
    """Keys of uniformly chosen frames of a clip, by the seconds at which all are shown.

    Raises:
        BadSample: no frame is shown in the clip.
    """
    start, end = clip
    order = sorted(times, key=lambda key: (times[key], key))
    inside = [key for key in order if start - 1e-6 <= times[key] < (math.inf if end is None else end)]
    inside = inside or [key for key in order if times[key] < start][-1:]  # the frame that is still shown
    if not inside:
        raise BadSample("no_frames", f"{path}: no frame between {start:g} s and {'the end' if end is None else end}.")
    return [inside[index] for index in uniform_indices(len(inside), num_frames)]


def uniform_indices(count: int, num_frames: int) -> list[int]:
    """Midpoints of ``num_frames`` equal segments of ``[0, count - 1]``, rounded; halfway it is the later frame.

    Reference: HumanOmni ``frame_sample``, which adds 1e-6 before it rounds.

    >>> uniform_indices(100, 8), uniform_indices(25, 8)
    ([6, 19, 31, 43, 56, 68, 80, 93], [2, 5, 8, 11, 14, 17, 20, 23])
    """
    segment = (count - 1) / num_frames
    return [round(segment * (number + 0.5) + 1e-6) for number in range(num_frames)]


def _check_reach(path: Path, stream: Any, times: dict[int, float], clip: Clip) -> None:
    """The pictures go on to where the header says they do, or to the end of the clip."""
    start, end = clip
    if not stream.duration:  # a picture as a GIF says 0
        return
    promised = float(((stream.start_time or 0) + stream.duration) * stream.time_base) - origin_of(stream.container)
    if start >= promised:
        raise BadSample("empty_clip", f"{path}: the clip starts at {start:g} s, the file ends at {promised:g} s.")
    step = 1 / float(stream.average_rate or 25)
    reached = max(times.values(), default=0.0) + step
    if reached < min(promised, math.inf if end is None else end) - max(TOLERANCE, 2 * step):
        what = f"{path}: pictures end at {reached:.2f} s of {promised:.2f} s; the file is cut."
        raise BadSample("truncated", what)


def _whole(stream: Any, packets: list[Any], check: Check) -> Iterator[Any]:
    """All frames."""
    for packet in [*packets, None]:
        check()
        yield from stream.codec_context.decode(packet)


def _sparse(stream: Any, packets: list[Any], wanted: set[int], check: Check) -> Iterator[Any]:
    """Frames, among them all wanted ones; what no wanted frame depends on is left out where the codec allows it."""
    context = stream.codec_context
    if context.name not in ("h264", "hevc"):
        yield from _whole(stream, packets, check)
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
    path: Path, stream: Any, packets: list[Any], num_frames: int, clip: Clip, check: Check
) -> tuple[UInt8[Tensor, "T 3 H W"], list[float]]:
    """Uniformly chosen frames of a file whose packets do not say when they are shown: count, then choose."""
    origin, rate, first = origin_of(stream.container), float(stream.average_rate or 25), packets[0].dts
    begin = 0.0 if first is None else float(first * packets[0].time_base) - origin
    times = {
        number: begin + number / rate if frame.time is None else frame.time - origin
        for number, frame in enumerate(_whole(stream, packets, check))
    }
    stream.codec_context.flush_buffers()
    wanted = chosen(path, times, num_frames, clip)
    found: dict[int, Tensor] = {}
    size: tuple[int, int] | None = None
    for number, frame in enumerate(_whole(stream, packets, check)):
        if number in wanted:
            size = size or (frame.width, frame.height)
            found[number] = _picture(frame, size)
    return torch.stack([found[number] for number in wanted]), [times[number] for number in wanted]


def _picture(frame: Any, size: tuple[int, int]) -> UInt8[Tensor, "3 H W"]:
    """A decoded frame, upright."""
    # a scaler of its own with one thread: PyAV's shared one may hold threads that a forked worker would wait for
    scaled = VideoReformatter().reformat(frame, format="rgb24", width=size[0], height=size[1], threads=1)
    pixels = scaled.to_ndarray()
    if turns := round(frame.rotation / 90) % 4:
        pixels = np.rot90(pixels, turns)
    return torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1)))


def sound(
    path: Path, stream: Any, packets: list[Any], begin: float, count: int, check: Check, zero: float = 0.0
) -> Float[Tensor, " S"]:
    """``count`` samples at 16 kHz mono from the second ``begin`` on; ``zero`` is the second of the file's first sample.

    Raises:
        BadSample: less sound is there than that.
    """
    mono = av.AudioResampler(format="fltp", layout="mono")
    origin, first, rate, have = origin_of(stream.container), begin, SAMPLE_RATE, 0
    pieces: list[np.ndarray[Any, Any]] = []
    for packet in [*packets, None]:
        check()
        for frame in stream.codec_context.decode(packet):
            at = None if frame.time is None else frame.time - origin
            if not pieces:
                first, rate = begin if at is None else at, frame.sample_rate
            gap = 0.0 if at is None else at - first - have / rate
            if gap > TOLERANCE:
                raise BadSample("corrupt", f"{path}: {gap:.2f} s of sound are missing at {at:.2f} s; mend the file.")
            if gap > JITTER:
                pieces.append(np.zeros(round(gap * rate), np.float32))
            pieces += [piece.to_ndarray()[0] for piece in mono.resample(frame)]
            have = sum(map(len, pieces))
    if not pieces:
        raise BadSample("empty_audio", f"{path}: no sound can be decoded from {begin:.2f} s on; is the file whole?")
    # samples at 16 kHz lie where they would lie if everything before the clip were decoded, too
    late = -round((first - zero) * rate) % (rate // math.gcd(rate, SAMPLE_RATE))
    heard = _at_16_khz(np.concatenate(pieces)[late:], rate)
    skip = round((begin - first - late / rate) * SAMPLE_RATE)
    heard = np.pad(heard, (-skip, 0)) if -TOLERANCE * SAMPLE_RATE <= skip < 0 else heard[max(0, skip) :]
    if (lacking := count - len(heard)) > TOLERANCE * SAMPLE_RATE or not len(heard):
        what = f"{len(heard) / SAMPLE_RATE:.2f} s of sound where the header says {count / SAMPLE_RATE:.2f} s"
        raise BadSample("truncated" if len(heard) else "empty_audio", f"{path}: {what}; the file is cut.")
    heard = np.nan_to_num(np.pad(heard, (0, max(0, lacking)))[:count])
    return torch.from_numpy(np.ascontiguousarray(heard, dtype=np.float32))


def _at_16_khz(native: Float[np.ndarray, " S"], rate: int) -> Float[np.ndarray, " R"]:
    if rate == SAMPLE_RATE or not len(native):
        return native
    frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(native[None]), format="fltp", layout="mono")
    frame.sample_rate = rate
    resampler = av.AudioResampler(format="fltp", layout="mono", rate=SAMPLE_RATE)
    return np.concatenate([piece.to_ndarray()[0] for given in (frame, None) for piece in resampler.resample(given)])
