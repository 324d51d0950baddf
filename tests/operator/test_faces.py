"""Tracks of the records' boxes, and of a detector."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from omnihuman.data.record import Box
from omnihuman.operator.base import Failed
from omnihuman.operator.extract_frames import ExtractFrames
from omnihuman.operator.faces import Faces
from omnihuman.operator.tracks import join_boxes
from tests.data.conftest import write_clip
from tests.operator.conftest import apply_one, build_row

BOX = [0.0, 0.0, 32.0, 24.0]


@dataclass(frozen=True)
class Bright:
    """Finds a face in the left half of every frame."""

    def __call__(self, frame: torch.Tensor) -> list[Box]:
        return [(0.0, 0.0, frame.shape[2] / 2, float(frame.shape[1]))]


def read_truth(tmp_path: Path, faces: Any, **fields: Any) -> Any:
    record = json.dumps({"faces": faces} if faces is not None else {})
    return apply_one(Faces("truth"), tmp_path, build_row(tmp_path / "a.mp4", records=[record], **fields))


def test_boxes_of_records_become_tracks(tmp_path: Path) -> None:
    other = [40.0, 24.0, 64.0, 48.0]
    faces = [
        {"time": 0.0, "box": BOX},
        {"time": 0.5, "box": BOX},
        {"time": 0.5, "box": other},
        {"time": 1.0, "box": None},
    ]
    result = read_truth(tmp_path, faces)
    assert [track["times"] for track in result["faces"]] == [[0.0, 0.5], [0.5]]
    assert result["num_faces"] == 2 and result["face_share"] == pytest.approx(2 / 3) and result["face_area_min"] == 0.0


def test_the_smallest_share_of_the_area(tmp_path: Path) -> None:
    half = [0.0, 0.0, 64.0, 24.0]
    result = read_truth(tmp_path, [{"time": 0.0, "box": BOX}, {"time": 0.2, "box": half}])
    assert result["face_area_min"] == pytest.approx(0.25) and result["face_share"] == 1.0


def test_boxes_outside_the_span_do_not_count(tmp_path: Path) -> None:
    faces = [{"time": time, "box": BOX} for time in (0.0, 0.5, 0.9)]
    result = read_truth(tmp_path, faces, start=0.4, end=0.8, seconds=0.4)
    assert [track["times"] for track in result["faces"]] == [[0.5]]


def test_records_without_boxes_fail(tmp_path: Path) -> None:
    outcome = read_truth(tmp_path, None)
    assert isinstance(outcome, Failed) and outcome.why == "no_boxes"


def test_a_detector_sees_smaller_frames(tmp_path: Path) -> None:
    row = build_row(write_clip(tmp_path / "a.mp4", num_frames=25, seconds=0.0))
    row |= apply_one(ExtractFrames(side=32), tmp_path, row)
    result = apply_one(Faces(detector=Bright()), tmp_path, row)
    (track,) = result["faces"]
    assert len(track["times"]) == 5 and track["boxes"][0] == (0.0, 0.0, 32.0, 48.0)
    assert result["face_area_min"] == pytest.approx(0.5)


def test_crossing_faces_stay_apart_and_a_gap_ends_a_track() -> None:
    frames = []
    for step in range(10):
        frames.append(
            (step / 5, [(step * 3.0, 0.0, step * 3.0 + 10, 10.0), (40 - step * 3.0, 20.0, 50 - step * 3.0, 30.0)])
        )
    assert [len(track.times) for track in join_boxes(frames)] == [10, 10]
    frames.append((5.0, [(27.0, 0.0, 37.0, 10.0)]))
    assert [len(track.times) for track in join_boxes(frames)] == [10, 10, 1]
