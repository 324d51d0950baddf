"""Annotations of clips of the built-in corpus, beside their records: boxes of people, and words with their times."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import Any

from omnihuman.corpus.draw import compute_face_box, compute_person_boxes
from omnihuman.corpus.voice import align_words
from omnihuman.corpus.world import Scene, index_scenes


def annotate_file(file: str, seed: int = 0) -> dict[str, Any]:
    """Return the annotation of a media file of the corpus by its name, empty for a file of none of its scenes.

    >>> sorted(annotate_file("media/train_talk_000.mp4"))
    ['persons', 'words']
    """
    scene = index_scenes(seed).get(PurePosixPath(file).stem)
    return {} if scene is None else annotate(scene)


def annotate(scene: Scene) -> dict[str, Any]:
    """Return the annotation of a scene, in the form of records.

    ``persons`` are ``{"time", "box"}`` of everybody in the picture, twice a second. ``words`` are ``{"word", "start",
    "end", "box"}``, where the box is the speaker's face in the middle of the word, ``None`` where it cannot be seen.
    """
    persons = []
    for time in list_times(scene):
        for box in compute_person_boxes(scene, time):
            persons.append({"time": time, "box": list(box)})
    words = []
    for span in align_words(scene) if scene.has_audio else ():
        face = compute_face_box(scene, (span.start + span.end) / 2, span.speaker)
        start, end = round(span.start, 3), round(span.end, 3)
        words.append({"word": span.word, "start": start, "end": end, "box": None if face is None else list(face)})
    return {"persons": persons, "words": words}


def list_times(scene: Scene) -> Sequence[float]:
    """Return the seconds of a scene at which its boxes are listed: twice a second, and on both sides of a cut."""
    if not scene.has_video:
        return []
    if scene.is_still:
        return [0.0]
    times = {step / 2 for step in range(int(scene.duration * 2))}
    for shot in scene.shots[:-1]:
        # a box on both sides of a cut, so that interpolation moves no box across it
        times |= {shot.duration, shot.duration - 1 / scene.fps}
    return sorted(times)
