"""Frames: the same for the same scene, bounding boxes inside the frame, expressions with a neutral start."""

import numpy as np
import pytest

from omnihuman.corpus.draw import compute_face_box, expression_intensity, render_frame, render_frames
from omnihuman.corpus.world import ACTIONS, EMOTIONS, INTERACTIONS, Scene, build_scenes

VISIBLE = [scene for scene in build_scenes(0) if scene.has_video]


def _find_talk(emotion: str, shown_by: str) -> Scene:
    return next(s for s in VISIBLE if (s.kind, s.emotion, s.shown_by) == ("talk", emotion, shown_by))


def _frame_change(scene: Scene, t: float) -> float:
    """Return the mean change of a pixel from the first frame to the frame at a time."""
    return float(np.abs(render_frame(scene, 0.0).astype(int) - render_frame(scene, t)).mean())


@pytest.mark.parametrize("scene", VISIBLE[::150], ids=lambda scene: scene.id)
def test_frames_have_the_size_of_the_scene_and_repeat(scene: Scene) -> None:
    frames = render_frames(scene)
    assert frames.shape == (scene.num_frames, scene.height, scene.width, 3) and frames.dtype == np.uint8
    assert (frames == render_frames(scene)).all()


def test_boxes_are_inside_the_frame_and_large_for_portraits() -> None:
    for scene in VISIBLE[::5]:
        for t in (0.0, 0.5, 1.5):
            box = compute_face_box(scene, t)
            assert (box is None) == scene.from_behind
            if box is not None:
                assert 0 <= box[0] < box[2] <= scene.width and 0 <= box[1] < box[3] <= scene.height
                if scene.kind == "talk":
                    assert 0.5 <= (box[3] - box[1]) / scene.height <= 0.8


@pytest.mark.parametrize("emotion", sorted(set(EMOTIONS) - {"neutral"}))
def test_expression_starts_neutral_and_changes_the_frame(emotion: str) -> None:
    scene = _find_talk(emotion, "face")
    assert expression_intensity(scene, 0.0) == 0 and expression_intensity(scene, scene.onset + 0.5) == 1
    assert _frame_change(scene, scene.onset + 0.6) > 4


def test_face_stays_neutral_if_only_the_voice_carries_the_emotion() -> None:
    voice, face = _find_talk("angry", "voice"), _find_talk("angry", "face")
    assert _frame_change(voice, 1.2) < 0.5 * _frame_change(face, 1.2)


@pytest.mark.parametrize("topic", ACTIONS + INTERACTIONS)
def test_bodies_move(topic: str) -> None:
    scene = next(s for s in VISIBLE if topic in (s.action, s.interaction) and not s.is_still)
    assert any((render_frame(scene, 0.1) != render_frame(scene, t)).any() for t in (0.4, 0.6, 0.9))


def test_each_shot_has_its_frames_and_box() -> None:
    scene = next(s for s in VISIBLE if s.shots and not s.is_same_person)
    first, second = scene.shots
    half, frames = scene.duration / 2, render_frames(scene)
    cut = round(half * scene.fps)
    assert (frames[:cut] == render_frames(first)).all()
    assert (frames[cut:] == render_frames(second)).all()
    assert compute_face_box(scene, half + 0.3) == compute_face_box(second, 0.3)
