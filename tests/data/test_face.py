"""Face crops: the box, the pixels, and frames without a face."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from omnihuman.data.chat import Chat
from omnihuman.data.dataset import Samples
from omnihuman.data.face import MTCNN, FaceInput, MediaPipe, YuNet, assign_times, select_largest
from omnihuman.data.module import OmniData
from omnihuman.data.packing import MicroBatch
from omnihuman.data.record import BadSample, FaceDetection, parse_faces, parse_record
from omnihuman.source.json import JsonSource

from .conftest import CHATML, WITH_FACES, count_tokens, write_clip

FRAMES = torch.arange(4 * 3 * 40 * 60, dtype=torch.int64).remainder(251).to(torch.uint8).view(4, 3, 40, 60)
TIMES = [0.0, 1.0, 2.0, 3.0]


def parse_boxes(*entries: Any) -> tuple[FaceDetection, ...]:
    faces = parse_faces([{"time": time, "box": box} for time, box in entries], "a.json[0]")
    assert faces is not None
    return faces


def crop(face_input: FaceInput, *entries: Any) -> Tensor:
    """Return the crop of the first frame."""
    face = face_input(FRAMES, TIMES, parse_boxes(*entries), "a.json[0]")[0]
    assert face is not None
    return face


def measure_crops(face_input: FaceInput, faces: tuple[FaceDetection, ...] | None) -> list[tuple[int, ...] | None]:
    """Return the size of the crop of every frame, ``None`` for a frame without a face."""
    return [None if face is None else tuple(face.shape[1:]) for face in face_input(FRAMES, TIMES, faces, "a.json[0]")]


def test_a_margin_of_a_quarter_is_added_on_every_side() -> None:
    assert torch.equal(crop(FaceInput(), (0, [20, 10, 40, 30])), FRAMES[0, :, 5:35, 15:45])


def test_the_crop_is_clipped_to_the_frame() -> None:
    assert torch.equal(crop(FaceInput(), (0, [-10, 30, 10, 50])), FRAMES[0, :, 25:40, 0:15])


def test_a_box_outside_the_frame_raises() -> None:
    boxes = parse_boxes((0, [70, 5, 80, 15]))
    with pytest.raises(BadSample, match=r"a\.json\[3\].*\[70\.0, 5\.0, 80\.0, 15\.0\].*60 x 40") as caught:
        FaceInput()(FRAMES, TIMES, boxes, "a.json[3]")
    assert caught.value.reason == "face_outside"


def test_boxes_are_interpolated_between_annotated_times() -> None:
    boxes = parse_boxes((0, [0, 0, 20, 20]), (2, [20, 20, 40, 40]))
    faces = FaceInput(margin=0.0)(FRAMES, TIMES, boxes, "")
    assert len(faces) == 4
    for index, begin in enumerate((0, 10, 20, 20)):
        span = slice(begin, begin + 20)
        assert torch.equal(faces[index], FRAMES[index, :, span, span])


def test_a_frame_without_a_face_has_no_crop() -> None:
    boxes = parse_boxes((0, None), (2.5, [0, 0, 5, 5]))
    assert measure_crops(FaceInput(margin=0.0), boxes) == [None, None, (5, 5), (5, 5)]
    assert measure_crops(FaceInput(), parse_boxes((0, None))) == [None] * 4
    assert measure_crops(FaceInput(), ()) == [None] * 4
    assert measure_crops(FaceInput(region="whole"), ()) == [None] * 4


def test_the_largest_face_is_selected_and_the_nearest_of_equal_ones() -> None:
    small, left, right = (0.0, 0.0, 4.0, 4.0), (0.0, 10.0, 8.0, 18.0), (30.0, 10.0, 38.0, 18.0)
    assert select_largest([small, right]) == right
    assert select_largest([left, right]) == left
    assert select_largest([left, right], near=(29.0, 10.0, 37.0, 18.0)) == right
    boxes = parse_boxes((0, list(right)), (1, list(left)), (1, list(right)))
    faces = FaceInput(margin=0.0)(FRAMES, TIMES, boxes, "")
    assert faces[1] is not None and torch.equal(faces[1], FRAMES[1, :, 10:18, 30:38])


def test_source_whole_needs_no_boxes_and_source_none_ignores_them() -> None:
    assert measure_crops(FaceInput(region="whole"), None) == [(40, 60)] * 4
    assert measure_crops(FaceInput(region="none"), parse_boxes((0, [20, 10, 40, 30]))) == [None] * 4


def test_a_detector_runs_only_without_annotated_boxes() -> None:
    calls: list[int] = []

    def detector(frame: Tensor) -> list[Any]:
        calls.append(1)
        return [] if len(calls) == 2 else [(0.0, 0.0, 10.0, 10.0)]

    face_input = FaceInput(margin=0.0, detector=detector)
    assert measure_crops(face_input, None) == [(10, 10), None, (10, 10), (10, 10)]
    assert measure_crops(face_input, parse_boxes((0, [0, 0, 5, 5]))) == [(5, 5)] * 4
    assert len(calls) == 4


@pytest.mark.parametrize("detector", [YuNet, MediaPipe])
def test_a_detector_without_its_model_file_raises(detector: Callable[..., Any], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"nowhere\.onnx: .*no such file"):
        detector(str(tmp_path / "nowhere.onnx"))


def test_mtcnn_keeps_sure_faces(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch, pytest.raises(ValueError, match=r"pip install --no-deps facenet-pytorch"):
        patch.setattr("omnihuman.data.face.find_spec", lambda name: None)
        MTCNN()
    sizes: list[Any] = []

    class Net:
        """Finds a face that is sure and one that is not, but none in a frame that is black."""

        def detect(self, frame: Any) -> Any:
            sizes.append(frame.shape)
            if not frame.any():
                return None, [None]
            return np.array([[1.0, 2.0, 3.0, 4.0], [5.0, 6.0, 7.0, 8.0]]), np.array([0.95, 0.5])

    monkeypatch.setattr("omnihuman.data.face.find_spec", lambda name: name)
    monkeypatch.setattr("omnihuman.data.face._mtcnn", lambda least_side: Net())
    frame = torch.zeros(3, 20, 30, dtype=torch.uint8)
    assert MTCNN()(frame) == [] and MTCNN()(frame + 1) == [(1.0, 2.0, 3.0, 4.0)] and sizes == [(20, 30, 3)] * 2


def test_one_box_per_frame_is_timed_by_the_frame_rate() -> None:
    faces = parse_faces([[0, 0, 5, 5], None, [1, 1, 6, 6]], "a.json[0]")
    assert faces is not None
    assert [face.time for face in assign_times(faces, 3, 10.0)] == [0.0, 0.1, 0.2]
    with pytest.raises(BadSample, match=r"faces .*3 boxes.*30 frames") as caught:
        assign_times(faces, 30, 10.0)
    assert caught.value.reason == "faces_mismatch"


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        ("left", r"faces .*list"),
        ([{"time": -1, "box": None}], r"faces\[0\]: time .*second.* -1"),
        ([{"time": 0, "box": [1, 2, 3]}], r"faces\[0\]: .*box .*\[x0, y0, x1, y1\]"),
        ([None, [5, 5, 1, 9]], r"faces\[1\]: .*\[5, 5, 1, 9\].*no area"),
    ],
)
def test_malformed_faces_raise(raw: Any, message: str, tmp_path: Path) -> None:
    write_clip(tmp_path / "a.mp4", num_frames=2, seconds=0)
    turns = [{"from": "human", "value": "<video>\nWho?"}, {"from": "gpt", "value": "me"}]
    record = {"video": "a.mp4", "conversations": turns, "faces": raw}
    with pytest.raises(BadSample, match=f"train.json:7.*{message}") as caught:
        parse_record(record, "1", tmp_path, "train.json:7")
    assert caught.value.reason == "malformed_faces"


@pytest.fixture
def write_records(tmp_path: Path) -> Callable[..., list[Any]]:
    """Return a function that writes records of a portrait video, one for each value of ``faces``."""
    write_clip(tmp_path / "tall.mp4", num_frames=20, seconds=0, size=(48, 64))
    turns = [{"from": "human", "value": "<video>\nWho?"}, {"from": "gpt", "value": "me"}]

    def write(*values: Any) -> list[Any]:
        entries = []
        for faces in values:
            entry = {"video": "tall.mp4", "conversations": turns}
            if faces is not None:
                entry["faces"] = faces
            entries.append(entry)
        (tmp_path / "r.json").write_text(json.dumps(entries))
        return list(JsonSource(tmp_path / "r.json", tmp_path).records())

    return write


def test_signals_have_gaps_for_frames_without_a_face(write_records: Any, tokenizer: Any) -> None:
    always = [{"time": 0, "box": [10, 10, 30, 50]}]
    first_half = [{"time": 0.0, "box": [10, 10, 30, 50]}, {"time": 0.79, "box": None}]
    never = [{"time": 0, "box": None}]
    records = write_records(always, first_half, never)
    samples = Samples(records, WITH_FACES, count_tokens, Chat(tokenizer, CHATML), num_frames=4)
    signal = samples[MicroBatch((0, 1, 2), 3)].signals["face"]
    assert signal.has_gaps and signal.values.shape[:2] == (3, 4)
    assert signal.mask.sum(dim=1).tolist() == [4, 2, 0] and not signal.values[~signal.mask].any()
    assert not samples[MicroBatch((0,), 1)].signals["face"].has_gaps


def test_a_data_set_without_boxes_raises(write_records: Any, tmp_path: Path, tokenizer: Any) -> None:
    def plan(face: FaceInput | None) -> Samples:
        source = JsonSource(tmp_path / "r.json", tmp_path)
        data = OmniData(source, str(tmp_path), num_frames=2, batch_size=1, max_tokens=999, face=face)
        data.connect(WITH_FACES, count_tokens, tokenizer, CHATML)
        return data.train_samples

    write_records(None, None)
    with pytest.raises(ValueError, match=r"2 samples.*face@data\.face=whole"):
        plan(None)
    assert plan(FaceInput(region="whole"))[MicroBatch((0,), 1)].signals["face"].mask.all()
    write_records(None, [{"time": 0, "box": [10, 10, 30, 50]}])
    assert len(plan(None)) == 2
