"""Time steps of encoders of images, made while a clip is decoded, so that no frame stays in memory."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from omnihuman.data.decode.frames import DecodedFrame
from omnihuman.data.reader.base import Reader
from omnihuman.data.record import Record
from omnihuman.modality import FRAMES, IMAGE_FIELDS
from omnihuman.nn.frames import SquareFrames

Transform = Callable[[Any], Tensor]

Entry = tuple[str, Transform, Tensor | None]
"""Field, transform, and the time steps ``[K ...]`` of one frame; ``None`` for a frame without a face."""


class FrameSteps:
    """Makes the time steps of all encoders out of one decoded frame.

    A transform whose ``is_framewise`` is false gets all frames at once, later: its entry is the frame itself.

    Args:
        record: whose files are decoded.
        readers: by field.
        transforms: of the encoders, each with the field that it reads; fields without images have no entry.
    """

    def __init__(
        self, record: Record, readers: Mapping[str, Reader], transforms: Collection[tuple[str, Transform]]
    ) -> None:
        self.pairs = list[tuple[str, Transform]]()
        for pair in transforms:
            if pair[0] in IMAGE_FIELDS and pair not in self.pairs and pair[0] not in record.hidden:
                self.pairs.append(pair)
        self.reads = {field: readers[field].take(record) for field, _ in self.pairs}
        self.scaled = {field for field in self.reads if field == FRAMES and not readers[field].options.exact}

    def __call__(self, frame: DecodedFrame) -> list[Entry]:
        entries, values = list[Entry](), dict[str, Tensor | None]()
        for field, transform in self.pairs:
            if isinstance(transform, SquareFrames) and field in self.scaled and not frame.is_image:
                scaled = frame.scale(transform.fit(*frame.size))
                entries.append((field, transform, transform.place(scaled[None])))
                continue
            if field not in values:
                values[field] = self.reads[field](frame)
            value = values[field]
            if value is not None and is_framewise(field, transform):
                value = transform(value)
            entries.append((field, transform, value))
        return entries


@dataclass(frozen=True)
class Steps:
    """Time steps of a field, by encoder, in place of its value.

    Attributes:
        field: of a sample.
        frames: for every frame, what ``FrameSteps`` makes of it.
    """

    field: str
    frames: tuple[list[Entry], ...]

    def select(self, transform: Transform) -> list[Tensor | None]:
        """Return what one transform made of every frame, ``None`` for a frame without a face."""
        steps = []
        for entries in self.frames:
            steps.append(next(step for field, other, step in entries if (field, other) == (self.field, transform)))
        return steps


def is_framewise(field: str, transform: Transform) -> bool:
    """Return whether a transform gets frame by frame: always for faces, each of which has a size of its own."""
    return field != FRAMES or getattr(transform, "is_framewise", False)
