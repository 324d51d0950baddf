"""Decode the packets of a clip to the selected frames, and nothing that they do not need."""

import math
import struct
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from av.video.reformatter import VideoReformatter
from jaxtyping import UInt8
from torch import Tensor

from omnihuman.data.decode.clock import (
    MAX_REORDER,
    assign_display_times,
    check_reach,
    file_origin,
    has_display_times,
)
from omnihuman.data.decode.packets import Check
from omnihuman.data.decode.sampling import Sampling, select_indices
from omnihuman.data.record import BadSample, Span

MAX_PIXELS = 1 << 26
"""Pixels of a decoded clip: a larger frame is refused, and the frames of a longer clip are scaled down to fit."""


@dataclass(frozen=True)
class DecodedFrame:
    """A frame as it leaves the decoder, upright. Nothing is converted before its pixels are needed.

    Attributes:
        time: second at which it is shown in its file.
        size: height and width of ``image``.
        convert: height, width and the interpolation of swscale, ``None`` for its own -> pixels ``[3 H W]``.
        file_scale: side of ``image`` divided by that in the file.
        is_second: it is a frame of the second file of a record.
        is_image: it was read from an image file, without swscale.
    """

    time: float
    size: tuple[int, int]
    convert: Callable[[tuple[int, int], str | None], UInt8[Tensor, "3 H W"]]
    file_scale: float = 1.0
    is_second: bool = False
    is_image: bool = False

    @cached_property
    def image(self) -> UInt8[Tensor, "3 H W"]:
        """Pixels in the order of a decoder: rows, columns, colors."""
        return self.convert(self.size, None)

    def scale(self, size: tuple[int, int]) -> UInt8[Tensor, "3 Y X"]:
        """Return the frame with this height and width, scaled while its colors are converted."""
        return self.convert(size, "AREA" if size < self.size else "BICUBIC")


Take = Callable[[DecodedFrame], Any]
"""Makes of a frame what stays of it. It is called once for each selected frame, in the order of decoding."""


def take_image(frame: DecodedFrame) -> UInt8[Tensor, "3 H W"]:
    """Return the pixels of a frame."""
    return frame.image


def decode_frames(
    path: Path,
    stream: Any,
    packets: list[Any],
    num_frames: int,
    span: Span,
    check: Check,
    sampling: Sampling = "midpoints",
    take: Take = take_image,
) -> tuple[list[Any], list[float], float]:
    """Return what ``take`` makes of the selected frames of the clip, their seconds, and their scale.

    Frames are upright. Their scale is below 1 where ``num_frames`` of the size in the file exceed ``MAX_PIXELS``.

    Raises:
        BadSample: the clip has no frame, or the file ends before its header says.
    """
    num_promised = _count_indexed(stream)
    if span == (0.0, None) and len(packets) < num_promised:
        raise BadSample("truncated", f"{path}: {len(packets)} of {num_promised} frames are there; the file is cut.")
    convert = _Converter(MAX_PIXELS // num_frames, take)
    select = partial(select_frames, path, num_frames=num_frames, span=span, sampling=sampling)
    beginning = _decode_all(stream, packets[:MAX_REORDER], check)
    is_timed = has_display_times(stream, packets, beginning)
    stream.codec_context.flush_buffers()
    decode = _decode_by_time if is_timed else _decode_by_number
    selected, images, times = decode(path, stream, packets, select, span, convert, check)
    if num_missing := len(set(selected) - set(images)):
        message = f"{num_missing} of {len(set(selected))} selected frames cannot be decoded; the file is damaged."
        raise BadSample("truncated" if images else "no_frames", f"{path}: {message}")
    return [images[key] for key in selected], [times[key] for key in selected], convert.scale


Selection = tuple[list[int], dict[int, Any], dict[int, float]]
"""Keys of the selected frames, what is taken of each, and the seconds of all frames."""

Select = Callable[[dict[int, float]], list[int]]
"""Seconds of all frames of a file by key -> keys of the selected ones."""


def _decode_by_time(
    path: Path, stream: Any, packets: list[Any], select: Select, span: Span, convert: "_Converter", check: Check
) -> Selection:
    """Select frames by the time stamps of packets, and decode only what these frames need."""
    origin = file_origin(stream.container)
    visible = [packet for packet in packets if not packet.is_discard]
    times = {packet.pts: float(packet.pts * packet.time_base) - origin for packet in visible}
    check_reach(path, stream, list(times.values()), span)
    selected = select(times)
    keyed = ((frame.pts, frame) for frame in _decode_needed(stream, packets, set(selected), check))
    images = _collect(keyed, selected, times, convert)
    if len(images) < len(set(selected)):  # frames that build up over several groups of pictures
        stream.codec_context.flush_buffers()
        stream.codec_context.skip_frame = "DEFAULT"
        keyed = ((frame.pts, frame) for frame in _decode_all(stream, packets, check))
        images = _collect(keyed, selected, times, convert)
    return selected, images, times


def _decode_by_number(
    path: Path, stream: Any, packets: list[Any], select: Select, span: Span, convert: "_Converter", check: Check
) -> Selection:
    """Select frames of a file without their time stamps: decode once to count, once to select."""
    frame_times = [frame.time for frame in _decode_all(stream, packets, check)]
    stream.codec_context.flush_buffers()
    times = dict(enumerate(assign_display_times(stream, packets, frame_times)))
    check_reach(path, stream, list(times.values()), span)
    selected = select(times)
    keyed = enumerate(_decode_all(stream, packets, check))
    return selected, _collect(keyed, selected, times, convert), times


def select_frames(
    path: Path, times: dict[int, float], num_frames: int, span: Span, sampling: Sampling = "midpoints"
) -> list[int]:
    """Return the keys of the selected frames of a clip, given the seconds of all frames of the file.

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
    seconds = times[order[-1]] - times[order[0]]
    fps = (len(order) - 1) / seconds if seconds > 0 else 1.0
    return [inside[index] for index in select_indices(len(inside), num_frames, sampling, fps)]


def _collect(
    frames: Iterable[tuple[int, Any]], selected: Sequence[int], times: Mapping[int, float], convert: "_Converter"
) -> dict[int, Any]:
    """Return what is taken of the selected ones of decoded frames, by their key."""
    images: dict[int, Any] = {}
    for key, frame in frames:
        if key in selected and key not in images and not frame.is_corrupt:
            images[key] = convert(frame, times[key])
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
    """Takes frames of one clip, as images of one size, upright.

    Args:
        max_pixels: of an image; larger frames are scaled down.
        take: makes of a frame what stays of it.

    Attributes:
        scale: side of an image divided by that of its frame.
    """

    def __init__(self, max_pixels: int, take: Take) -> None:
        self.max_pixels, self.take = max_pixels, take
        self.scale = 1.0
        self._size: tuple[int, int] | None = None

    def __call__(self, frame: Any, time: float) -> Any:
        if self._size is None:
            self.scale = min(1.0, math.sqrt(self.max_pixels / (frame.width * frame.height)))
            height, width = (max(1, int(side * self.scale)) for side in (frame.height, frame.width))
            is_transposed, _, _ = read_orientation(frame)
            self._size = (width, height) if is_transposed else (height, width)
        return self.take(DecodedFrame(time, self._size, partial(_to_tensor, frame), self.scale))


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


def _to_tensor(frame: Any, size: tuple[int, int], interpolation: str | None) -> UInt8[Tensor, "3 H W"]:
    """Return a decoded frame, upright, with this height and width."""
    is_transposed, is_mirrored, is_flipped = read_orientation(frame)
    height, width = reversed(size) if is_transposed else size
    # A scaler of its own with one thread: PyAV's shared one may hold threads that a forked worker would wait for.
    scaled = VideoReformatter().reformat(frame, width, height, "rgb24", interpolation=interpolation, threads=1)
    pixels = scaled.to_ndarray()
    if is_transposed:
        pixels = pixels.transpose(1, 0, 2)
    if is_mirrored:
        pixels = pixels[:, ::-1]
    if is_flipped:
        pixels = pixels[::-1]
    return torch.from_numpy(np.ascontiguousarray(pixels)).permute(2, 0, 1)
