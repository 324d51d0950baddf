"""Persons: boxes of people through time."""

import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
from PIL import Image

from omnihuman.data.record import Box
from omnihuman.operator.base import FRAMES, TRACKS, Failed, Operator, Outcome, Row, columns
from omnihuman.operator.pretrained import GpuClock, check_weights, identify_weights, load_model
from omnihuman.operator.tracks import join_boxes
from omnihuman.operator.truth import read_boxes

EXAMPLE = "ustc-community/dfine-medium-coco"

Scored = tuple[Box, float]


class Persons(Operator):
    """Frames -> tracks of people, and the share of the frames with somebody in it.

    Reference: HumanOmni §3 stores the boxes of people; it names no detector.

    Args:
        boxes: ``truth``: those of the records, under ``persons`` in the form of ``faces``; ``detector``: of a model.
        weights: folder or hub id of a detector of transformers (D-FINE, RF-DETR, RT-DETR, YOLOS), trained on COCO or on
            another set with people.
        label: name of people among the detector's classes.
        threshold: smallest score of a box.
        least_overlap: intersection over union below which boxes are of two people.
        max_gap: seconds after which a person who was not there is another one.
        batch_size: frames of a forward pass.

    Raises:
        ValueError: there are no weights, or no class has the label.
    """

    incidental = ("batch_size", "weights")  # equal weights in another folder are the same

    def __init__(
        self,
        boxes: Literal["truth", "detector"] = "detector",
        weights: str | None = None,
        label: str = "person",
        threshold: float = 0.5,
        least_overlap: float = 0.3,
        max_gap: float = 2.0,
        batch_size: int = 16,
    ) -> None:
        if boxes == "detector":
            check_weights(weights, "persons: boxes=detector", EXAMPLE, "boxes=truth takes the boxes of the records")
        self.boxes, self.weights, self.label, self.threshold = boxes, weights, label, threshold
        self.least_overlap, self.max_gap, self.batch_size = least_overlap, max_gap, batch_size
        self.reads = {"width": pa.int64(), "fps": pa.float64(), "seconds": pa.float64()}
        self.reads |= {"records": pa.list_(pa.string())} if boxes == "truth" else {"frames": FRAMES}

    writes = columns(persons=TRACKS, num_persons=pa.int64(), person_share=pa.float64())

    def identity(self) -> Mapping[str, Any]:
        return identify_weights(self.weights) if self.boxes == "detector" else {}

    def setup(self, folder: Path) -> None:
        self.clock = GpuClock()
        if self.boxes == "truth":
            return
        from transformers import AutoImageProcessor, AutoModelForObjectDetection

        assert self.weights is not None
        self.model = load_model(AutoModelForObjectDetection, self.weights, self.clock)
        self.processor = AutoImageProcessor.from_pretrained(self.weights)
        names: Mapping[int, str] = self.model.config.id2label
        self.classes = [number for number, name in names.items() if name == self.label]
        if not self.classes:
            known = ", ".join(sorted(set(names.values()))[:20])
            raise ValueError(f"persons: label={self.label}: weights={self.weights} has no such class, but {known}.")

    def take_cost(self) -> Mapping[str, float]:
        return self.clock.take_cost()

    def apply(self, rows: Sequence[Row]) -> Iterable[Outcome]:
        if self.boxes == "truth":
            for row in rows:
                yield self._read_truth(row)
            return
        frames = []
        for row in rows:
            frames += [(row["width"], frame["jpeg"]) for frame in row["frames"]]
        detected = self._detect(frames)
        for row in rows:
            yield self._describe([(frame["time"], next(detected)) for frame in row["frames"]])

    def _read_truth(self, row: Row) -> Outcome:
        frames = read_boxes(row, "persons")
        if frames is None:
            return Failed("no_boxes", f"{row['source']}: no record of the file has boxes of people (persons).")
        scored: list[tuple[float, list[Scored]]] = []
        for time, boxes in frames:
            scored.append((time, [(box, 1.0) for box in boxes]))
        return self._describe(scored)

    def _detect(self, frames: Sequence[tuple[int, bytes]]) -> Iterator[list[Scored]]:
        """Yield boxes and scores of JPEGs, in pixels of files of the given widths."""
        for begin in range(0, len(frames), self.batch_size):
            widths, jpegs = zip(*frames[begin : begin + self.batch_size], strict=True)
            images = [Image.open(io.BytesIO(jpeg)).convert("RGB") for jpeg in jpegs]
            inputs = self.processor(images=images, return_tensors="pt").to(self.clock.device)
            with self.clock.measure():
                outputs = self.model(**inputs)
            sizes = [(image.height, image.width) for image in images]
            results = self.processor.post_process_object_detection(
                outputs, threshold=self.threshold, target_sizes=sizes
            )
            for result, width, image in zip(results, widths, images, strict=True):
                yield self._select(result, width / image.width)

    def _select(self, result: Mapping[str, Any], scale: float) -> list[Scored]:
        selected: list[Scored] = []
        values = (result[key].tolist() for key in ("boxes", "scores", "labels"))
        for box, score, label in zip(*values, strict=True):
            x0, y0, x1, y1 = (scale * side for side in box)
            if label in self.classes and x0 < x1 and y0 < y1:
                selected.append(((x0, y0, x1, y1), score))
        return selected

    def _describe(self, frames: Sequence[tuple[float, Sequence[Scored]]]) -> Row:
        scores: dict[tuple[float, Box], float] = {}
        boxes: list[tuple[float, list[Box]]] = []
        for time, entries in frames:
            scores |= {(time, box): score for box, score in entries}
            boxes.append((time, [box for box, _ in entries]))
        listed = []
        for number, track in enumerate(join_boxes(boxes, self.least_overlap, self.max_gap)):
            of_track = [scores[key] for key in zip(track.times, track.boxes, strict=True)]
            listed.append({"track": number, "times": track.times, "boxes": track.boxes, "scores": of_track})
        share = sum(bool(entries) for _, entries in frames) / max(1, len(frames))
        return {"persons": listed, "num_persons": len(listed), "person_share": share}
