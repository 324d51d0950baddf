"""Faces: their boxes through time, and how much of the picture they are."""

import hashlib
import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import torch
from PIL import Image

from omnihuman.data.face import Detector
from omnihuman.data.record import BadSample, Box
from omnihuman.operator.base import FRAMES, TRACKS, Failed, Operator, Outcome, Row, columns
from omnihuman.operator.tracks import Track, join_boxes
from omnihuman.operator.truth import read_boxes


class Faces(Operator):
    """Frames -> tracks of faces, and shares of the frames and of their area.

    A clip is one scene here: tracks end where it ends. ``face_share`` is the share of the frames with a face,
    ``face_area_min`` the area of the largest face divided by that of the frame, in the frame where it is smallest: 0
    where a frame has none.

    Reference: FaVChat §3 keeps videos whose smallest proportion of a face is above 60 %. Differs from it: the paper
    does not say whether the proportion is of the area or of the frames, so both are columns.

    Args:
        boxes: ``truth``: those of the records; ``detector``: those of the detector.
        detector: of frames, one of conf/face: ``{_target_: omnihuman.data.face.YuNet, model: ...}``.
        least_overlap: intersection over union below which boxes are of two faces.
        max_gap: seconds after which a face that was not there is another one.
        least_frames: of a track; shorter ones are left out.

    Raises:
        ValueError: there is no detector.
    """

    def __init__(
        self,
        boxes: Literal["truth", "detector"] = "detector",
        detector: Detector | None = None,
        least_overlap: float = 0.3,
        max_gap: float = 1.0,
        least_frames: int = 1,
    ) -> None:
        if boxes == "detector" and detector is None:
            raise ValueError(
                "faces: boxes=detector needs one: detector={_target_: omnihuman.data.face.YuNet, model: <file>}; "
                "boxes=truth takes those of the records."
            )
        self.boxes, self.detector = boxes, detector
        self.least_overlap, self.max_gap, self.least_frames = least_overlap, max_gap, least_frames
        self.reads = {"width": pa.int64(), "height": pa.int64(), "fps": pa.float64(), "seconds": pa.float64()}
        if boxes == "truth":
            self.reads |= {"records": pa.list_(pa.string())}
        else:
            self.reads |= {"face_frames": FRAMES}

    writes = columns(
        faces=TRACKS,
        num_faces=pa.int64(),
        face_share=pa.float64(),
        face_area_min=pa.float64(),
    )

    def identity(self) -> Mapping[str, Any]:
        model = getattr(self.detector, "model", None)
        if model is None:
            return {}
        with Path(model).open("rb") as content:
            return {"model": hashlib.file_digest(content, "sha256").hexdigest()}

    def apply(self, rows: Sequence[Row]) -> Iterable[Outcome]:
        for row in rows:
            frames = read_boxes(row, "faces") if self.boxes == "truth" else self._detect(row)
            if frames is None:
                yield Failed("no_boxes", f"{row['source']}: no record of the file has boxes of faces.")
                continue
            tracks = join_boxes(frames, self.least_overlap, self.max_gap)
            tracks = [track for track in tracks if len(track.times) >= self.least_frames]
            yield self._describe(tracks, frames, row)

    def _detect(self, row: Row) -> list[tuple[float, Sequence[Box]]]:
        """Return seconds and boxes of the frames, in pixels of the file."""
        assert self.detector is not None
        frames: list[tuple[float, Sequence[Box]]] = []
        for frame in row["face_frames"]:
            pixels = torch.from_numpy(np.array(Image.open(io.BytesIO(frame["jpeg"])).convert("RGB"))).permute(2, 0, 1)
            scale = row["width"] / pixels.shape[2]
            boxes: list[Box] = []
            for x0, y0, x1, y1 in self.detector(pixels):
                boxes.append((x0 * scale, y0 * scale, x1 * scale, y1 * scale))
            frames.append((frame["time"], boxes))
        return frames

    def _describe(self, tracks: Sequence[Track], frames: Sequence[tuple[float, Sequence[Box]]], row: Row) -> Row:
        area = row["width"] * row["height"]
        if not area:
            raise BadSample("no_video", f"{row['source']}: the file has no picture.")
        smallest, num_with_face = 1.0, 0
        for _, boxes in frames:
            sizes = [(x1 - x0) * (y1 - y0) / area for x0, y0, x1, y1 in boxes]
            smallest = min(smallest, max(sizes, default=0.0))
            num_with_face += bool(boxes)
        listed = []
        for number, track in enumerate(tracks):
            listed.append({"track": number, "times": track.times, "boxes": track.boxes, "scores": []})
        if not frames:
            smallest = 0.0
        share = num_with_face / max(1, len(frames))
        return {"faces": listed, "num_faces": len(tracks), "face_share": share, "face_area_min": smallest}
