"""Speakers by the records' words, and by a model that sees the crops of a track and hears the sound."""

import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from omnihuman.build import build
from omnihuman.operator.base import Failed
from omnihuman.operator.speaking import SpeakerModel, Speaking, _cut
from tests.curation.conftest import compose_operator
from tests.data.conftest import write_clip
from tests.operator.conftest import apply_one, build_row

LEFT, RIGHT = [0.0, 0.0, 20.0, 24.0], [40.0, 0.0, 60.0, 24.0]
WORDS = [("she", 0.1, 0.3, LEFT), ("runs", 0.35, 0.45, LEFT), ("no", 0.6, 0.7, RIGHT), ("why", 0.8, 0.9, None)]


def build_tracks(*boxes: list[float]) -> list[dict[str, Any]]:
    tracks = []
    for number, box in enumerate(boxes):
        tracks.append({"track": number, "times": [0.0, 1.0], "boxes": [box, box], "scores": []})
    return tracks


def build_words(*words: tuple[str, float, float, Any]) -> list[dict[str, Any]]:
    return [dict(zip(("word", "start", "end", "box"), word, strict=True)) for word in words]


def speak(folder: Path, faces: Any, words: Any) -> Any:
    records = [json.dumps({"words": words} if words is not None else {})]
    row = build_row(folder / "a.mp4", records=records, faces=faces, words=words, has_sound=True)
    return apply_one(Speaking("truth"), folder, row)


def test_words_belong_to_the_tracks_of_their_boxes(tmp_path: Path) -> None:
    result = speak(tmp_path, build_tracks(LEFT, RIGHT), build_words(*WORDS))
    assert [(span["track"], span["start"], span["end"]) for span in result["speaking"]] == [
        (0, 0.1, 0.45),
        (1, 0.6, 0.7),
    ]
    speech = {entry["track"]: entry["speech"] for entry in result["track_speech"]}
    assert speech == {0: "she runs", 1: "no", None: "why"}


def test_a_speaker_without_a_track_is_nobody(tmp_path: Path) -> None:
    result = speak(tmp_path, build_tracks(RIGHT), build_words(*WORDS[:2]))
    assert result == {"speaking": [], "track_speech": [{"track": None, "speech": "she runs"}]}


def test_records_without_words_fail(tmp_path: Path) -> None:
    outcome = speak(tmp_path, [], None)
    assert isinstance(outcome, Failed) and outcome.why == "no_words"


class Brightness(SpeakerModel):
    """Scores the brightness of the crops in the second half of the span."""

    side = 8

    def __call__(self, faces: Tensor, waveform: Tensor) -> Tensor:
        assert faces.shape[1:] == (3, 8, 8) and len(waveform) == pytest.approx(640 * len(faces), abs=1)
        late = torch.arange(len(faces)) >= len(faces) // 2
        return faces.float().mean((1, 2, 3)) * late


def test_a_model_sees_crops_and_hears_the_sound(tmp_path: Path) -> None:
    faces = build_tracks(LEFT, RIGHT)
    words = build_words(("she", 0.1, 0.3, None), ("runs", 0.7, 0.8, None))
    row = build_row(
        write_clip(tmp_path / "a.mp4", num_frames=25, seconds=1.0), has_sound=True, faces=faces, words=words
    )
    operator = Speaking(model=partial(Brightness), threshold=1.0)
    result = apply_one(operator, tmp_path, row)
    assert {span["track"] for span in result["speaking"]} == {0, 1}
    for span in result["speaking"]:
        assert span["start"] == pytest.approx(0.48, abs=0.05) and span["end"] == pytest.approx(1.0, abs=0.02)
    surest = max(result["speaking"], key=lambda span: span["score"])["track"]
    speech = {entry["track"]: entry["speech"] for entry in result["track_speech"]}
    assert speech == {None: "she", surest: "runs"}


def test_a_package_names_its_model(monkeypatch: pytest.MonkeyPatch) -> None:
    name = f"{__name__}.Brightness"
    node = compose_operator("speaking", model={"_target_": name, "_partial_": True})
    nodes = {"pipeline": {"operators": {"speaking": node}}}
    with pytest.raises(ValueError, match=r"speaking\.model\._target_.*entry points"):
        build(nodes)
    monkeypatch.setattr("omnihuman.gate.list_plugins", lambda: {name: "mine"})
    model = build(nodes)["pipeline"]["operators"]["speaking"].model
    assert type(model()).__name__ == "Brightness"


def test_crops_are_squares_around_the_box() -> None:
    frame = torch.zeros(3, 20, 30, dtype=torch.uint8)
    frame[:, 5:15, 10:20] = 200
    assert _cut(frame, (20.0, 10.0, 40.0, 30.0), 0.5, 0.0, 4).unique().tolist() == [200]
    corner = _cut(frame, (0.0, 0.0, 10.0, 10.0), 1.0, 0.5, 20)
    assert corner.shape == (3, 20, 20) and corner[:, 10:, 16:].float().mean() > 100 and not corner[:, :9].any()


def test_a_missing_model_is_named() -> None:
    with pytest.raises(ValueError, match=r"speakers=model.*_partial_.*speakers=truth"):
        Speaking()
