"""Faces: which box, which pixels, and what happens where there is none."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from omnihuman.data.chat import Chat
from omnihuman.data.datafile import read_records
from omnihuman.data.dataset import Samples
from omnihuman.data.face import FaceInput, MediaPipe, YuNet, largest, timed
from omnihuman.data.module import OmniData
from omnihuman.data.plan import Row
from omnihuman.data.record import BadSample, Sighting, parse_record, sightings

from .conftest import TRANSFORMS, layouts, write_clip

FRAMES = torch.arange(4 * 3 * 40 * 60, dtype=torch.int64).remainder(251).to(torch.uint8).view(4, 3, 40, 60)
TIMES = [0.0, 1.0, 2.0, 3.0]


def seen(*entries: Any) -> tuple[Sighting, ...]:
    found = sightings([{"time": time, "box": box} for time, box in entries], "a.json[0]")
    assert found is not None
    return found


def cut(faces: FaceInput, found: tuple[Sighting, ...] | None) -> list[tuple[int, int] | None]:
    return [None if face is None else tuple(face.shape[1:]) for face in faces(FRAMES, TIMES, found, "a.json[0]")]


def test_a_quarter_is_added_on_every_side() -> None:
    face = FaceInput()(FRAMES, TIMES, seen((0, [20, 10, 40, 30])), "here")[0]
    assert face is not None and torch.equal(face, FRAMES[0, :, 5:35, 15:45])


def test_the_crop_stays_inside_the_frame() -> None:
    face = FaceInput()(FRAMES, TIMES, seen((0, [-10, 30, 10, 50])), "here")[0]
    assert face is not None and torch.equal(face, FRAMES[0, :, 25:40, 0:15])


def test_a_box_outside_the_frame_names_box_and_frame() -> None:
    with pytest.raises(BadSample, match=r"a\.json\[3\].*\[70\.0, 5\.0, 80\.0, 15\.0\].*60 x 40") as caught:
        FaceInput()(FRAMES, TIMES, seen((0, [70, 5, 80, 15])), "a.json[3]")
    assert caught.value.reason == "face_outside"


def test_boxes_move_between_annotated_moments() -> None:
    found = seen((0, [0, 0, 20, 20]), (2, [20, 20, 40, 40]))
    assert [torch.equal(a, b) for a, b in zip(FaceInput(margin=0.0)(FRAMES, TIMES, found, ""), (
        FRAMES[0, :, 0:20, 0:20], FRAMES[1, :, 10:30, 10:30], FRAMES[2, :, 20:40, 20:40], FRAMES[3, :, 20:40, 20:40]
    ), strict=True)] == [True] * 4  # fmt: skip


def test_a_frame_without_a_face_has_none() -> None:
    assert cut(FaceInput(margin=0.0), seen((0, None), (2.5, [0, 0, 5, 5]))) == [None, None, (5, 5), (5, 5)]
    assert cut(FaceInput(), seen((0, None))) == [None] * 4
    assert cut(FaceInput(), ()) == cut(FaceInput(source="whole"), ()) == [None] * 4


def test_of_two_faces_the_larger_and_of_equal_ones_the_one_before() -> None:
    small, left, right = (0.0, 0.0, 4.0, 4.0), (0.0, 10.0, 8.0, 18.0), (30.0, 10.0, 38.0, 18.0)
    assert largest([small, right]) == right
    assert largest([left, right]) == left and largest([left, right], near=(29.0, 10.0, 37.0, 18.0)) == right
    found = seen((0, list(right)), (1, list(left)), (1, list(right)))
    faces = FaceInput(margin=0.0)(FRAMES, TIMES, found, "")
    assert faces[1] is not None and torch.equal(faces[1], FRAMES[1, :, 10:18, 30:38])


def test_whole_frames_need_no_box() -> None:
    assert cut(FaceInput(source="whole"), None) == [(40, 60)] * 4
    assert cut(FaceInput(source="none"), seen((0, [20, 10, 40, 30]))) == [None] * 4


def test_a_detector_looks_where_the_record_says_nothing() -> None:
    asked: list[int] = []

    def detector(frame: torch.Tensor) -> list[Any]:
        asked.append(1)
        return [] if len(asked) == 2 else [(0.0, 0.0, 10.0, 10.0)]

    faces = FaceInput(margin=0.0, detector=detector)
    assert cut(faces, None) == [(10, 10), None, (10, 10), (10, 10)]
    assert cut(faces, seen((0, [0, 0, 5, 5]))) == [(5, 5)] * 4 and len(asked) == 4


@pytest.mark.parametrize("kind", [YuNet, MediaPipe])
def test_a_detector_without_its_model_says_so(kind: Callable[..., Any], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"nowhere\.onnx: there is no such file"):
        kind(str(tmp_path / "nowhere.onnx"))


def test_one_box_a_frame_counts_the_frames() -> None:
    found = sightings([[0, 0, 5, 5], None, [1, 1, 6, 6]], "a.json[0]")
    assert found is not None
    assert [entry.time for entry in timed(found, 3, 10.0, "")] == [0.0, 0.1, 0.2]
    with pytest.raises(BadSample, match=r"here: faces has 3 boxes, the file has 30 frames") as caught:
        timed(found, 30, 10.0, "here")
    assert caught.value.reason == "faces_mismatch"


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        ("left", "faces is a list"),
        ([{"time": -1, "box": None}], r"faces\[0\] has the time -1"),
        ([{"time": 0, "box": [1, 2, 3]}], r"faces\[0\]: a box is \[x0, y0, x1, y1\]"),
        ([None, [5, 5, 1, 9]], r"faces\[1\]: the box \[5, 5, 1, 9\] has no area"),
    ],
)
def test_malformed_faces_name_their_place(raw: Any, message: str, tmp_path: Path) -> None:
    write_clip(tmp_path / "a.mp4", frames=2, seconds=0)
    turns = [{"from": "human", "value": "<video>\nWho?"}, {"from": "gpt", "value": "me"}]
    with pytest.raises(BadSample, match=f"train.json:7.*{message}") as caught:
        record = {"video": "a.mp4", "conversations": turns, "faces": raw}
        parse_record(record, "1", tmp_path, "train.json:7")
    assert caught.value.reason == "malformed_faces"


@pytest.fixture
def records(tmp_path: Path) -> Callable[..., list[Any]]:
    """Records of a portrait video, one for each given value of ``faces``."""
    write_clip(tmp_path / "tall.mp4", frames=20, seconds=0, size=(48, 64))

    def write(*faces: Any) -> list[Any]:
        turns = [{"from": "human", "value": "<video>\nWho?"}, {"from": "gpt", "value": "me"}]
        entries = [{"video": "tall.mp4", "conversations": turns} | ({} if f is None else {"faces": f}) for f in faces]
        (tmp_path / "r.json").write_text(json.dumps(entries))
        return list(read_records(tmp_path / "r.json", tmp_path))

    return write


WITH_FACES = {**TRANSFORMS, "face": ("faces", TRANSFORMS["video"][1])}


def test_signals_have_gaps_where_frames_have_no_face(records: Any, tokenizer: Any) -> None:
    box, nobody = [{"time": 0, "box": [10, 10, 30, 50]}], [{"time": 0, "box": None}]
    half = [{"time": 0.0, "box": [10, 10, 30, 50]}, {"time": 0.79, "box": None}]
    made = Samples(records(box, half, nobody), WITH_FACES, layouts, Chat(tokenizer), num_frames=4)
    batch = made[Row((0, 1, 2), 3)]
    signal = batch.signals["face"]
    assert signal.has_gaps and signal.values.shape[:2] == (3, 4)
    assert signal.mask.sum(dim=1).tolist() == [4, 2, 0] and not signal.values[~signal.mask].any()
    assert not made[Row((0,), 1)].signals["face"].has_gaps


def test_a_corpus_without_any_box_is_refused(records: Any, tmp_path: Path, tokenizer: Any) -> None:
    def data(face: FaceInput | None) -> Samples:
        made = OmniData(str(tmp_path / "r.json"), str(tmp_path), num_frames=2, batch_size=1, max_tokens=999, face=face)
        made.connect(WITH_FACES, layouts, tokenizer)
        return made.train_samples

    records(None, None)
    with pytest.raises(ValueError, match=r"2 samples.*face@data\.face=whole"):
        data(None)
    assert data(FaceInput(source="whole"))[Row((0,), 1)].signals["face"].mask.all()
    records(None, [{"time": 0, "box": [10, 10, 30, 50]}])
    assert len(data(None)) == 2
