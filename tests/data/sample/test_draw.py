"""Pictures: the same for one scene, boxes inside the frame, and expressions that begin neutral."""

import numpy as np
import pytest

from omnihuman.data.sample.draw import draw, face_box, frames, level
from omnihuman.data.sample.world import ACTIONS, EMOTIONS, INTERACTIONS, Scene, scenes

SEEN = [scene for scene in scenes(0) if scene.has_video]


def _first(**wanted: object) -> Scene:
    return next(s for s in SEEN if all(getattr(s, key) == value for key, value in wanted.items()))


@pytest.mark.parametrize("scene", SEEN[::150], ids=lambda scene: scene.id)
def test_frames_have_the_told_size_and_never_differ(scene: Scene) -> None:
    pictures = frames(scene)
    assert pictures.shape == (scene.num_frames, scene.height, scene.width, 3) and pictures.dtype == np.uint8
    assert (pictures == frames(scene)).all()


def test_boxes_lie_inside_the_frame_and_portraits_are_large() -> None:
    for scene in SEEN[::5]:
        for t in (0.0, 0.5, 1.5):
            box = face_box(scene, t)
            assert (box is None) == scene.from_behind
            if box is not None:
                assert 0 <= box[0] < box[2] <= scene.width and 0 <= box[1] < box[3] <= scene.height
                if scene.kind == "talk":
                    assert 0.5 <= (box[3] - box[1]) / scene.height <= 0.8


def test_an_expression_begins_neutral_and_then_shows() -> None:
    for emotion in set(EMOTIONS) - {"neutral"}:
        scene = _first(kind="talk", emotion=emotion, shown_by="face")
        assert level(scene, 0.0) == 0 and level(scene, scene.onset + 0.5) == 1
        change = np.abs(draw(scene, 0.0).astype(int) - draw(scene, scene.onset + 0.6)).mean()
        assert change > 4, f"{emotion} changes the picture by {change:.1f} only"


def test_the_face_stays_neutral_where_only_the_voice_tells() -> None:
    voice, face = (
        _first(kind="talk", emotion="angry", shown_by="voice"),
        _first(kind="talk", emotion="angry", shown_by="face"),
    )
    changes = [np.abs(draw(s, 0.0).astype(int) - draw(s, 1.2)).mean() for s in (voice, face)]
    assert changes[0] < 0.5 * changes[1]


@pytest.mark.parametrize("name", ACTIONS + INTERACTIONS)
def test_bodies_move(name: str) -> None:
    scene = next(s for s in SEEN if name in (s.action, s.interaction) and not s.is_still)
    assert any((draw(scene, 0.1) != draw(scene, t)).any() for t in (0.4, 0.6, 0.9))


def test_two_shots_show_each_its_own_picture_and_box() -> None:
    scene = _first(kind="shots", is_same_person=False)
    half, pictures = scene.duration / 2, frames(scene)
    cut = round(half * scene.fps)
    assert (pictures[cut:] == frames(scene.shots[1])).all() and (pictures[:cut] == frames(scene.shots[0])).all()
    assert face_box(scene, half + 0.3) == face_box(scene.shots[1], 0.3)
