"""Frames: selected frames of a clip, an image as one frame, or its tiles."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from omnihuman.data.chat import TIME_TEXT
from omnihuman.data.decode.frames import DecodedFrame
from omnihuman.data.decode.sampling import count_frames, count_in_span, select_indices
from omnihuman.data.media import Clip, Header
from omnihuman.data.reader.base import Reader
from omnihuman.data.record import BadSample, Record
from omnihuman.data.steps import Steps, is_framewise
from omnihuman.modality import FRAMES
from omnihuman.types import FrameCount


class FramesReader(Reader):
    """Returns frames ``[T 3 H W]``, uint8; of an image, with ``data.tiles``, the base and its tiles.

    The filler is one black frame.
    """

    decodes = ("frames",)
    filler_amount = 1

    def is_available(self, record: Record, header: Header) -> bool:
        return header.has_video

    def count(self, record: Record, header: Header) -> int:
        if record.tiling is not None:
            return FrameCount(1 + record.tiling.rows * record.tiling.columns, record.tiling)
        if header.is_still or record.kind == "image":
            return 1
        if record.second_clip is not None:
            return max(2, self.options.num_frames)
        if self.options.sampling != "fps":
            return self.options.num_frames
        _, count = self._locate(record, header, "sampling=fps")
        return count_frames(count, self.options.num_frames, self.options.sampling, header.fps)

    def count_in_file(self, amount: int, record: Record, header: Header) -> int:
        return amount if record.tiling is None else 1

    def prepare(self, record: Record, header: Header) -> Record:
        tiles = self.options.tiles
        if tiles is not None and record.kind == "image" and header.size is not None:
            return replace(record, tiling=tiles.untiled if record.more_images else tiles.choose(*header.size))
        pattern = self.options.time_instruction
        is_clip = "video" in record.slots and record.kind == "video" and record.second_clip is None
        if pattern is None or not is_clip or header.is_still:
            return record
        first, count = self._locate(record, header, "time_instruction")
        indices = select_indices(count, self.count(record, header), self.options.sampling, header.fps)
        seconds = ", ".join(str(round((first + index) / header.fps, 1)) for index in indices)
        text = pattern.replace("{num_frames}", str(len(indices))).replace("{seconds}", seconds)
        return replace(record, meta={**record.meta, TIME_TEXT: text})

    def _locate(self, record: Record, header: Header, option: str) -> tuple[int, int]:
        """Return the first frame of the clip, and the number of its frames.

        Raises:
            BadSample: the header does not tell the number of frames, which the option needs.
        """
        if not header.num_frames:
            message = f"{record.file} does not tell its number of frames, which data.{option} needs"
            raise BadSample("no_frame_count", f"{message}; convert the file to mp4, or leave that option out.")
        return count_in_span(header.num_frames, header.fps, record.span)

    def read(self, record: Record, clip: Clip) -> Tensor | Steps | None:
        if clip.frames is None:
            return Steps(FRAMES, clip.steps) if clip.steps else None
        return self._cut(record, clip.frames)

    def take(self, record: Record) -> Callable[[DecodedFrame], Tensor | None]:
        return lambda frame: self._cut(record, frame.image[None])

    def _cut(self, record: Record, frames: Tensor) -> Tensor:
        if record.tiling is None:
            return frames
        assert self.options.tiles is not None
        return self.options.tiles.cut(frames, record.tiling)

    def to_signal(self, value: Any, transform: Callable[[Any], Tensor], blank: Tensor) -> tuple[Tensor, Tensor | None]:
        if not isinstance(value, Steps):
            return transform(value), None
        steps = torch.cat([step for step in value.select(transform) if step is not None])
        return steps if is_framewise(FRAMES, transform) else transform(steps), None

    def cache_key(self, record: Record) -> dict[str, Any]:
        return {
            "file": record.file,
            "video_stream": record.video_stream,
            "span": record.span,
            "exact": self.options.exact,
            "second_clip": record.second_clip,
            "second_clip_span": record.second_clip_span,
            "fps": record.fps,
            "sampling": self.options.sampling,
            "tiles": self.options.tiles,
        }
