"""Faces: the crop of the face in each frame."""

import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor

from omnihuman.data.decode.frames import DecodedFrame
from omnihuman.data.face import assign_times, stack_faces
from omnihuman.data.media import Clip, Header
from omnihuman.data.reader.frames import FramesReader
from omnihuman.data.record import Record
from omnihuman.data.steps import Steps


class FacesReader(FramesReader):
    """Returns one crop ``[3 h w]`` per frame, ``None`` for a frame without a face."""

    filler_amount = 0

    @property
    def is_enabled(self) -> bool:
        return self.options.face.region != "none"

    def prepare(self, record: Record, header: Header) -> Record:
        if record.faces is None or record.more_images:  # an entry for each image
            return record
        return replace(record, faces=assign_times(record.faces, header.num_frames, header.fps))

    def read(self, record: Record, clip: Clip) -> Any:
        if clip.frames is None:
            return Steps("faces", clip.steps) if clip.steps else None
        face, first = self.options.face, clip.num_first
        crops = face(clip.frames[:first], clip.times[:first], record.faces, record.location, clip.scale)
        if record.second_clip is not None:  # the boxes of a record belong to its first file
            crops += face(clip.frames[first:], clip.times[first:], None, record.location)
        return crops

    def take(self, record: Record) -> Callable[[DecodedFrame], Tensor | None]:
        face = self.options.face
        crop_first, crop_second = face.follow(record.faces, record.location), face.follow(None, record.location)

        def take(frame: DecodedFrame) -> Tensor | None:
            crop = crop_second if frame.is_second else crop_first
            image = crop(frame.image, frame.time, frame.file_scale)
            return None if image is None else image[None]

        return take

    def to_signal(self, value: Any, transform: Callable[[Any], Tensor], blank: Tensor) -> tuple[Tensor, Tensor | None]:
        if isinstance(value, Steps):
            return stack_faces(value.select(transform), blank)
        return stack_faces([None if face is None else transform(face[None]) for face in value], blank)

    def cache_key(self, record: Record) -> dict[str, Any]:
        detector_file = getattr(self.options.face.detector, "model", None)
        return super().cache_key(record) | {
            "faces": record.faces,
            "options": pickle.dumps(self.options.face, 4).hex(),
            "detector": None if detector_file is None else Path(detector_file),
        }

    def files(self, record: Record) -> tuple[Path, ...]:
        detector_file = getattr(self.options.face.detector, "model", None)
        return record.files if detector_file is None else (*record.files, Path(detector_file))
