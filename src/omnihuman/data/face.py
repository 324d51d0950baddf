"""Faces: bounding boxes over time, and the crops of a clip's frames."""

import math
from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import UInt8
from torch import Tensor

from omnihuman.data.record import BadSample, Box, FaceDetection

Detector = Callable[[UInt8[Tensor, "3 H W"]], list[Box]]

Crop = Callable[[UInt8[Tensor, "3 H W"], float, float], UInt8[Tensor, "3 _ _"] | None]
"""A frame, the second at which it is shown, and its scale -> the crop of the face, ``None`` without one."""


@dataclass(frozen=True)
class FaceInput:
    """Crop the largest face of each frame; ``None`` for a frame without a face.

    Reference: FaceXFormer's ``inference.py`` (25 % added on every side, clamped, no alignment, not made square).
    Differs from it: boxes come from the record, where the official code detects, and crashes without a face.

    Attributes:
        region: ``boxes`` of the record or else of the detector; ``whole`` frames; or ``none`` for no faces at all.
        margin: share of the box's width and height that is added on every side.
        detector: maps a frame to boxes, for records without boxes.
    """

    region: Literal["boxes", "whole", "none"] = "boxes"
    margin: float = 0.25
    detector: Detector | None = None

    def can_locate(self, detections: Sequence[FaceDetection] | None) -> bool:
        """Return whether the faces of a record with these detections can be located."""
        return self.region != "boxes" or self.detector is not None or detections is not None

    def __call__(
        self,
        frames: UInt8[Tensor, "T 3 H W"],
        times: Sequence[float],
        detections: Sequence[FaceDetection] | None,
        location: str,
        scale: float = 1.0,
    ) -> tuple[UInt8[Tensor, "3 _ _"] | None, ...]:
        """Return one crop per frame.

        Args:
            frames: of a clip.
            times: seconds at which they are shown.
            detections: of the record.
            location: place of the record, for messages.
            scale: side of the frames divided by that in the file, for which the boxes of the record are.

        Raises:
            BadSample: a box of the record lies outside the frame.
        """
        crop = self.follow(detections, location)
        return tuple(crop(frame, time, scale) for frame, time in zip(frames, times, strict=True))

    def follow(self, detections: Sequence[FaceDetection] | None, location: str) -> Crop:
        """Return what crops the face out of one frame of a clip after the other, see ``__call__``."""
        has_no_faces = detections is not None and not detections
        if self.region == "none" or has_no_faces:
            return lambda frame, time, scale: None
        if self.region == "whole":
            return lambda frame, time, scale: frame
        track = None if detections is None else build_track(detections)

        def crop(frame: Tensor, time: float, scale: float) -> Tensor | None:
            if track is None:
                box, scale = self._detect(frame), 1.0
            else:
                box = interpolate_box(track, time)
            return None if box is None else self._crop(frame, box, location, scale)

        return crop

    def _detect(self, frame: UInt8[Tensor, "3 H W"]) -> Box | None:
        return None if self.detector is None else select_largest(self.detector(frame))

    def _crop(self, frame: Tensor, box: Box, location: str, scale: float) -> Tensor:
        height, width = frame.shape[-2:]
        x0, y0, x1, y1 = (scale * side for side in box)
        if x1 <= 0 or y1 <= 0 or x0 >= width or y0 >= height:
            sides = [round(side, 1) for side in box]
            size = f"{round(width / scale)} x {round(height / scale)}"
            message = f"{location}: the box {sides} lies outside the frame of {size} pixels"
            raise BadSample("face_outside", f"{message}; boxes are [x0, y0, x1, y1] of the upright frame.")
        margin_x, margin_y = self.margin * (x1 - x0), self.margin * (y1 - y0)
        left, top = int(max(0, x0 - margin_x)), int(max(0, y0 - margin_y))
        right, bottom = int(min(width, x1 + margin_x)), int(min(height, y1 + margin_y))
        return frame[:, top : max(bottom, top + 1), left : max(right, left + 1)]


def assign_times(detections: Sequence[FaceDetection], num_frames: int, fps: float) -> tuple[FaceDetection, ...]:
    """Return detections with their seconds, where the record lists one entry per frame.

    Raises:
        BadSample: the file has another number of frames.
    """
    if not detections or detections[0].time is not None:
        return tuple(detections)
    if len(detections) != num_frames:
        message = f"faces has {len(detections)} boxes, the file has {num_frames} frames"
        raise BadSample("faces_mismatch", f"{message}; give one box (or null) per frame, or entries with a time.")
    return tuple(FaceDetection(number / fps, entry.boxes) for number, entry in enumerate(detections))


def select_largest(boxes: Sequence[Box], near: Box | None = None) -> Box | None:
    """Return the box of the largest area; of equal ones the one nearest to ``near``, else the first.

    >>> select_largest([(0.0, 0.0, 2.0, 2.0), (5.0, 0.0, 7.0, 2.0)], near=(6.0, 0.0, 8.0, 2.0))
    (5.0, 0.0, 7.0, 2.0)
    """
    if not boxes:
        return None
    areas = [(x1 - x0) * (y1 - y0) for x0, y0, x1, y1 in boxes]
    candidates = [box for box, area in zip(boxes, areas, strict=True) if area >= 0.999 * max(areas)]
    if near is None:
        return candidates[0]
    return min(candidates, key=lambda box: math.dist(box, near))


def build_track(detections: Sequence[FaceDetection]) -> list[tuple[float, Box | None]]:
    """Return seconds and boxes of one face through time: the largest, or the one that continues the track."""
    track: list[tuple[float, Box | None]] = []
    last: Box | None = None
    for entry in detections:
        box = select_largest(entry.boxes, last)
        last = box or last
        track.append((entry.time or 0.0, box))
    return track


def interpolate_box(track: Sequence[tuple[float, Box | None]], time: float) -> Box | None:
    """Return the box at a second: interpolated between two boxes; beside an entry without a face, the nearer entry.

    >>> interpolate_box([(0.0, (0.0, 0.0, 4.0, 4.0)), (1.0, (2.0, 2.0, 6.0, 6.0))], 0.5)
    (1.0, 1.0, 5.0, 5.0)
    """
    if not track:
        return None
    index = bisect_right([second for second, _ in track], time)
    (t0, before), (t1, after) = track[max(0, index - 1)], track[min(len(track) - 1, index)]
    share = (time - t0) / (t1 - t0) if 0 < index < len(track) else 0.0
    if before is None or after is None:
        return before if share < 0.5 else after
    x0, y0, x1, y1 = (a + share * (b - a) for a, b in zip(before, after, strict=True))
    return x0, y0, x1, y1


def stack_faces(steps: Sequence[Tensor | None], blank: Tensor) -> tuple[Tensor, Tensor]:
    """Return faces ``[1 ...]`` as time steps ``[T ...]``, blank for a frame without a face, and the mask ``[T]``."""
    mask = torch.tensor([step is not None for step in steps])
    return torch.cat([blank if step is None else step for step in steps]), mask


@dataclass(frozen=True)
class YuNet:
    """Detect faces with OpenCV's YuNet: a frame -> boxes.

    Attributes:
        model: ONNX file of the detector (``face_detection_yunet_2023mar.onnx`` of OpenCV's model zoo).
        threshold: minimum score of a face.

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
        _, faces = net.detect(frame.flip(0).permute(1, 2, 0).contiguous().numpy())  # OpenCV takes BGR
        return [] if faces is None else [(x, y, x + w, y + h) for x, y, w, h in faces[:, :4].tolist()]


@dataclass(frozen=True)
class MediaPipe:
    """Detect faces with MediaPipe: a frame -> boxes.

    Attributes:
        model: task file of the detector (``blaze_face_short_range.tflite``).
        threshold: minimum score of a face.

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
        boxes = [detection.bounding_box for detection in net.detect(image).detections]
        return [(box.origin_x, box.origin_y, box.origin_x + box.width, box.origin_y + box.height) for box in boxes]


@dataclass(frozen=True)
class MTCNN:
    """Detect faces with the MTCNN of facenet-pytorch, which comes with its weights: a frame -> boxes.

    Reference: Zhang et al., 2016; the detector of FaceXFormer's ``inference.py``.

    Attributes:
        threshold: minimum score of a face.
        least_side: smallest side of a face in pixels.

    Raises:
        ValueError: the package is missing.
    """

    threshold: float = 0.9
    least_side: int = 20

    def __post_init__(self) -> None:
        if find_spec("facenet_pytorch") is None:
            # without its dependencies: it requires older torch and numpy than those it works with
            raise ValueError("data.face.detector: MTCNN needs its package: pip install --no-deps facenet-pytorch.")

    def __call__(self, frame: UInt8[Tensor, "3 H W"]) -> list[Box]:
        boxes, scores = _mtcnn(self.least_side).detect(frame.permute(1, 2, 0).contiguous().numpy())
        if boxes is None:
            return []
        pairs = zip(boxes.tolist(), scores.tolist(), strict=True)
        return [(x0, y0, x1, y1) for (x0, y0, x1, y1), score in pairs if score >= self.threshold]


def _check_model(model: str, name: str) -> None:
    if not Path(model).is_file():
        raise ValueError(f"data.face.detector.model={model}: there is no such file; {name} needs its model file.")


@lru_cache(maxsize=1)
def _yunet(model: str, threshold: float) -> Any:
    try:
        import cv2
    except ImportError as error:
        raise ValueError('data.face.detector: YuNet needs OpenCV: pip install "omnihuman[faces]".') from error
    return cv2.FaceDetectorYN.create(model, "", (320, 320), threshold)


@lru_cache(maxsize=1)
def _mediapipe(model: str, threshold: float) -> Any:
    try:
        import mediapipe
        from mediapipe.tasks import python
    except ImportError as error:
        raise ValueError('data.face.detector: MediaPipe needs its package: pip install "omnihuman[faces]".') from error
    options = python.vision.FaceDetectorOptions(
        base_options=python.BaseOptions(model_asset_path=model), min_detection_confidence=threshold
    )
    return python.vision.FaceDetector.create_from_options(options), mediapipe


@lru_cache(maxsize=1)
def _mtcnn(least_side: int) -> Any:
    import facenet_pytorch

    return facenet_pytorch.MTCNN(keep_all=True, min_face_size=least_side, device="cpu").eval()
