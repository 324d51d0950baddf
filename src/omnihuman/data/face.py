"""Faces: where they are in a frame, and what is cut out there."""

import math
from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import UInt8
from torch import Tensor

from omnihuman.data.record import BadSample, Box, Sighting

Detector = Callable[[UInt8[Tensor, "3 H W"]], list[Box]]


@dataclass(frozen=True)
class FaceInput:
    """Frames -> of each the crop of its largest face, ``None`` where it shows none.

    Reference: FaceXFormer's ``inference.py`` (25 % added on every side, clamped, no alignment, not made square).
    Differs from it: boxes come from the record, where the official code detects, and crashes without a face.

    Attributes:
        source: ``boxes`` of the record, else the detector's; ``whole`` frames; or ``none``: no face is looked at.
        margin: share of the box's width and height that is added on every side.
        detector: frame -> boxes, for records without boxes.
    """

    source: Literal["boxes", "whole", "none"] = "boxes"
    margin: float = 0.25
    detector: Detector | None = None

    def finds(self, seen: Sequence[Sighting] | None) -> bool:
        """Whether this can find the faces of a record."""
        return self.source != "boxes" or self.detector is not None or seen is not None

    def __call__(
        self, frames: UInt8[Tensor, "T 3 H W"], times: Sequence[float], seen: Sequence[Sighting] | None, where: str
    ) -> tuple[UInt8[Tensor, "3 _ _"] | None, ...]:
        """The crops.

        Args:
            frames: of a clip.
            times: seconds at which they are shown.
            seen: what the record says.
            where: place of the record, for messages.

        Raises:
            BadSample: a box of the record lies outside the frame.
        """
        if self.source == "none" or (seen is not None and not seen):
            return (None,) * len(frames)
        if self.source == "whole":
            return tuple(frames)
        if seen is None:
            found = [largest(self.detector(frame)) if self.detector else None for frame in frames]
        else:
            track = _track(seen)
            found = [box_at(track, time) for time in times]
        return tuple(
            None if box is None else self._cut(frame, box, where) for frame, box in zip(frames, found, strict=True)
        )

    def _cut(self, frame: Tensor, box: Box, where: str) -> Tensor:
        height, width = frame.shape[-2:]
        x0, y0, x1, y1 = box
        if x1 <= 0 or y1 <= 0 or x0 >= width or y0 >= height:
            what = f"the box {[round(side, 1) for side in box]} lies outside the frame of {width} x {height} pixels"
            raise BadSample("face_outside", f"{where}: {what}; boxes are [x0, y0, x1, y1] of the upright frame.")
        across, down = self.margin * (x1 - x0), self.margin * (y1 - y0)
        left, top = int(max(0, x0 - across)), int(max(0, y0 - down))
        right, bottom = int(min(width, x1 + across)), int(min(height, y1 + down))
        return frame[:, top : max(bottom, top + 1), left : max(right, left + 1)]


def timed(seen: Sequence[Sighting], num_frames: int, rate: float, where: str) -> tuple[Sighting, ...]:
    """Sightings with their seconds, where the record lists one entry a frame.

    Raises:
        BadSample: the file has another number of frames.
    """
    if not seen or seen[0].time is not None:
        return tuple(seen)
    if len(seen) != num_frames:
        what = f"faces has {len(seen)} boxes, the file has {num_frames} frames"
        raise BadSample("faces_mismatch", f"{where}: {what}; give one box (or null) a frame, or entries with a time.")
    return tuple(Sighting(number / rate, entry.boxes) for number, entry in enumerate(seen))


def largest(boxes: Sequence[Box], near: Box | None = None) -> Box | None:
    """The box of the largest area; of equal ones the one nearest to ``near``, else the first.

    >>> largest([(0.0, 0.0, 2.0, 2.0), (5.0, 0.0, 7.0, 2.0)], near=(6.0, 0.0, 8.0, 2.0))
    (5.0, 0.0, 7.0, 2.0)
    """
    if not boxes:
        return None
    areas = [(x1 - x0) * (y1 - y0) for x0, y0, x1, y1 in boxes]
    equal = [box for box, area in zip(boxes, areas, strict=True) if area >= 0.999 * max(areas)]
    return equal[0] if near is None else min(equal, key=lambda box: math.dist(box, near))


def _track(seen: Sequence[Sighting]) -> list[tuple[float, Box | None]]:
    """One face through time."""
    track: list[tuple[float, Box | None]] = []
    last: Box | None = None
    for entry in seen:
        box = largest(entry.boxes, last)
        last = box or last
        track.append((entry.time or 0.0, box))
    return track


def box_at(track: Sequence[tuple[float, Box | None]], time: float) -> Box | None:
    """The box at a second: between two boxes their mixture, beside a moment without face what is nearer in time.

    >>> box_at([(0.0, (0.0, 0.0, 4.0, 4.0)), (1.0, (2.0, 2.0, 6.0, 6.0))], 0.5)
    (1.0, 1.0, 5.0, 5.0)
    """
    if not track:
        return None
    after = bisect_right([moment for moment, _ in track], time)
    (t0, before), (t1, behind) = track[max(0, after - 1)], track[min(len(track) - 1, after)]
    share = (time - t0) / (t1 - t0) if 0 < after < len(track) else 0.0
    if before is None or behind is None:
        return before if share < 0.5 else behind
    x0, y0, x1, y1 = (a + share * (b - a) for a, b in zip(before, behind, strict=True))
    return x0, y0, x1, y1


def signal_of(faces: Sequence[Tensor | None], make: Callable[[Tensor], Tensor], blank: Tensor) -> tuple[Tensor, Tensor]:
    """Crops -> moments ``[T ...]``, blank where a frame has no face, and which of them are real ``[T]``."""
    made = [blank if face is None else make(face[None]) for face in faces]
    return torch.cat(made), torch.tensor([face is not None for face in faces])


# ------------------------------------------------------------------------------------------------------- the detectors


@dataclass(frozen=True)
class YuNet:
    """OpenCV's YuNet on a frame -> boxes.

    Attributes:
        model: ONNX file of the detector (``face_detection_yunet_2023mar.onnx`` of OpenCV's model zoo).
        threshold: least score of a face.

    Raises:
        ValueError: the file or the package is missing.
    """

    model: str
    threshold: float = 0.7

    def __post_init__(self) -> None:
        _check_model(self.model, "YuNet")

    def __call__(self, frame: UInt8[Tensor, "3 H W"]) -> list[Box]:
        net = _yunet(self.model, self.threshold)
        net.setInputSize((frame.shape[2], frame.shape[1]))
        _, faces = net.detect(frame.flip(0).permute(1, 2, 0).contiguous().numpy())  # blue comes first there
        return [] if faces is None else [(x, y, x + w, y + h) for x, y, w, h in faces[:, :4].tolist()]


@dataclass(frozen=True)
class MediaPipe:
    """MediaPipe's face detector on a frame -> boxes.

    Attributes:
        model: task file of the detector (``blaze_face_short_range.tflite``).
        threshold: least score of a face.

    Raises:
        ValueError: the file or the package is missing.
    """

    model: str
    threshold: float = 0.5

    def __post_init__(self) -> None:
        _check_model(self.model, "MediaPipe")

    def __call__(self, frame: UInt8[Tensor, "3 H W"]) -> list[Box]:
        net, mediapipe = _mediapipe(self.model, self.threshold)
        image = mediapipe.Image(
            image_format=mediapipe.ImageFormat.SRGB, data=frame.permute(1, 2, 0).contiguous().numpy()
        )
        boxes = [found.bounding_box for found in net.detect(image).detections]
        return [(b.origin_x, b.origin_y, b.origin_x + b.width, b.origin_y + b.height) for b in boxes]


def _check_model(model: str, name: str) -> None:
    if not Path(model).is_file():
        raise ValueError(f"data.face.detector.model={model}: there is no such file; {name} needs its model file.")


@lru_cache(maxsize=1)
def _yunet(model: str, threshold: float) -> Any:
    try:
        import cv2
    except ImportError as error:
        raise ValueError("data.face.detector: YuNet needs OpenCV: pip install opencv-python-headless.") from error
    return cv2.FaceDetectorYN.create(model, "", (320, 320), threshold)


@lru_cache(maxsize=1)
def _mediapipe(model: str, threshold: float) -> Any:
    try:
        import mediapipe
        from mediapipe.tasks import python
    except ImportError as error:
        raise ValueError("data.face.detector: MediaPipe needs its package: pip install mediapipe.") from error
    options = python.vision.FaceDetectorOptions(
        base_options=python.BaseOptions(model_asset_path=model), min_detection_confidence=threshold
    )
    return python.vision.FaceDetector.create_from_options(options), mediapipe
