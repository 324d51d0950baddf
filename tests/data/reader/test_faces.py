"""The reader of faces: a crop per frame, ``None`` where a frame has no face."""

from dataclasses import replace
from pathlib import Path

import torch

from omnihuman.data.face import FaceInput
from omnihuman.data.media import Clip, Header
from omnihuman.data.reader.base import ReadOptions
from omnihuman.data.reader.faces import FacesReader
from omnihuman.data.record import FaceDetection, Record

READER = FacesReader(ReadOptions(num_frames=2, face=FaceInput(margin=0.0)))
DETECTIONS = (FaceDetection(0.0, ((0.0, 0.0, 8.0, 8.0),)), FaceDetection(1.0, ()))
RECORD = Record("1", Path("a.mp4"), "video", (), ("video",), faces=DETECTIONS)
FRAMES = torch.zeros(2, 3, 16, 16, dtype=torch.uint8)


def test_a_frame_without_a_face_has_no_crop() -> None:
    crops = READER.read(RECORD, Clip(FRAMES, (0.0, 1.0), num_first=2))
    assert crops[0].shape == (3, 8, 8) and crops[1] is None
    assert READER.read(RECORD, Clip()) is None


def test_boxes_belong_to_the_first_clip() -> None:
    clip = Clip(FRAMES, (0.0, 0.0), num_first=1)
    crops = READER.read(replace(RECORD, second_clip=Path("b.mp4")), clip)
    assert crops[0] is not None and crops[1] is None


def test_the_mask_hides_frames_without_a_face() -> None:
    crops = READER.read(RECORD, Clip(FRAMES, (0.0, 1.0), num_first=2))
    values, mask = READER.to_signal(crops, lambda frames: frames[..., :4, :4], torch.zeros(1, 3, 4, 4))
    assert values.shape == (2, 3, 4, 4) and mask is not None and mask.tolist() == [True, False]


def test_boxes_of_every_frame_get_their_times_from_the_header() -> None:
    per_frame = tuple(replace(detection, time=None) for detection in DETECTIONS)
    prepared = READER.prepare(replace(RECORD, faces=per_frame), Header(True, num_frames=2, fps=1.0))
    assert prepared.faces is not None and [detection.time for detection in prepared.faces] == [0.0, 1.0]


def test_no_faces_are_read_where_the_source_is_none() -> None:
    options = ReadOptions(num_frames=2, face=FaceInput(region="none"))
    assert READER.is_enabled and not FacesReader(options).is_enabled


def test_what_decides_the_crops_is_in_the_cache_key() -> None:
    wider = FacesReader(ReadOptions(num_frames=2, face=FaceInput(margin=0.5)))
    assert wider.cache_key(RECORD) != READER.cache_key(RECORD)
    assert READER.cache_key(replace(RECORD, faces=None)) != READER.cache_key(RECORD)
