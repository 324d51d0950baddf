"""Frames: uniformly selected frames of a clip, or an image as one frame."""

from typing import Any

from torch import Tensor

from omnihuman.data.media import Clip, Header
from omnihuman.data.reader.base import Reader
from omnihuman.data.record import Record


class FramesReader(Reader):
    """Returns frames ``[T 3 H W]``, uint8. The filler is one black frame."""

    decodes = ("frames",)
    filler_amount = 1

    def is_available(self, record: Record, header: Header) -> bool:
        return header.has_video

    def count(self, record: Record, header: Header) -> int:
        if header.is_still or record.kind == "image":
            return 1
        if record.second_clip is not None:
            return max(2, self.options.num_frames)
        return self.options.num_frames

    def read(self, record: Record, clip: Clip) -> Tensor | None:
        return clip.frames

    def cache_key(self, record: Record) -> dict[str, Any]:
        return {
            "file": record.file,
            "video_stream": record.video_stream,
            "span": record.span,
            "second_clip": record.second_clip,
            "second_clip_span": record.second_clip_span,
            "fps": record.fps,
        }
