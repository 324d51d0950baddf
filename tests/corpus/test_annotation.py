"""Annotations are true of the frames: people are where the picture differs from the empty place."""

import numpy as np
import pytest

from omnihuman.corpus.annotation import annotate, annotate_file
from omnihuman.corpus.draw import SCALE, _draw_background, compute_person_boxes, render_frame
from omnihuman.corpus.world import Scene, build_scenes

SCENES = build_scenes(0)


def find_scene(kind: str, **fields: object) -> Scene:
    (key, value), *_ = [*fields.items(), ("kind", kind)]
    return next(scene for scene in SCENES if scene.kind == kind and getattr(scene, key) == value)


def measure_person(scene: Scene, t: float) -> np.ndarray:
    """Return the box of the pixels that differ from those of the empty place."""
    empty = _draw_background(scene.background, scene.width * SCALE, scene.height * SCALE).reduce(SCALE)
    changed = np.abs(render_frame(scene, t).astype(int) - np.asarray(empty).astype(int)).max(2) > 8
    rows, columns = np.flatnonzero(changed.any(1)), np.flatnonzero(changed.any(0))
    return np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1])


@pytest.mark.parametrize(
    ("kind", "fields"),
    [("talk", {}), ("act", {"action": "wave"}), ("act", {"action": "jump"}), ("act", {"action": "walk"}), ("pair", {})],
)
def test_boxes_hold_the_people(kind: str, fields: dict[str, object]) -> None:
    scene = find_scene(kind, **fields)
    for time in (0.0, 0.5, 1.0):
        boxes = np.array(compute_person_boxes(scene, time))
        assert len(boxes) == (2 if scene.partner else 1)
        joined = np.concatenate((boxes[:, :2].min(0), boxes[:, 2:].max(0)))
        assert np.abs(joined - measure_person(scene, time)).max() < 0.07 * scene.height


def test_words_have_times_and_the_face_of_the_speaker() -> None:
    scene = find_scene("pair")
    words = annotate(scene)["words"]
    assert [entry["word"] for entry in words] == [*scene.transcript, *scene.partner_transcript]
    assert all(entry["start"] < entry["end"] <= scene.duration for entry in words)
    centers = [(entry["box"][0] + entry["box"][2]) / 2 < scene.width / 2 for entry in words]
    assert centers == [True] * len(scene.transcript) + [False] * len(scene.partner_transcript)


def test_sound_alone_has_no_people() -> None:
    scene = find_scene("speech")
    annotation = annotate(scene)
    assert annotation["persons"] == [] and {entry["box"] for entry in annotation["words"]} == {None}
    assert annotate_file(f"media/{scene.id}.wav") == annotation and annotate_file("media/other.wav") == {}
