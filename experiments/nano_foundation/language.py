"""Text of the built-in corpus, as the foundation's text models read it; training people only."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from people import stranger

from omnihuman.data.sample.closeup import closeups
from omnihuman.data.sample.language import conversations, notes, picture_caption
from omnihuman.data.sample.phrases import hair
from omnihuman.data.sample.world import Scene, double, random_scene, scenes

SYSTEM = "You are Qwen, created by Alibaba Cloud. You are a helpful assistant."
MARKS = ("<vi_start>", "<vi_end>", "<au_start>", "<au_end>", "<im_start>", "<im_end>")


class Told(NamedTuple):
    """A record with its scene and the scene in words."""

    scene: Scene
    record: dict[str, Any]
    notes: dict[str, str]


def told(rng: np.random.Generator, split: str = "train") -> Iterator[Told]:
    """A random generator and a split; endless records, or those of the split's own clips.

    Notes for what looks closely at faces tell the skin; in training half of the others do.
    """
    for scene in _endless(rng) if split == "train" else (s for s in scenes(0) if s.split == split):
        for record in conversations(scene, rng):
            yield Told(scene, record, notes(scene, rng, fine=split == "train" and rng.random() < 0.5))
        for record in closeups(scene, rng):
            # a look that one shot's words leave out would be a difference
            yield Told(scene, record, notes(scene, rng, drop=0.0 if scene.shots else 0.05, fine=True))


def _endless(rng: np.random.Generator, shots: float = 0.4) -> Iterator[Scene]:
    while True:
        yield _strangers(random_scene(rng, kind="shots"), rng) if rng.random() < shots else random_scene(rng)


def _strangers(scene: Scene, rng: np.random.Generator) -> Scene:
    """A scene of two shots; the same with new people, since the pairs of 48 are soon known by heart."""
    first = second = stranger(rng, scene.identity.gender)
    if not scene.is_same_person:
        second = double(rng, first, [stranger(rng, first.gender) for _ in range(12)])
    people = (first, replace(second, shirt=scene.shots[1].identity.shirt))
    shots = tuple(replace(shot, identity=person) for shot, person in zip(scene.shots, people, strict=True))
    return replace(scene, identity=first, shots=shots)


def differences(scene: Scene) -> str:
    """A scene of two shots; the looks of the people in them that differ, clothes aside."""
    one, two = (shot.identity for shot in scene.shots)
    parts = {
        "hat": (one.hat, two.hat),
        "hair": (hair(one), hair(two)),
        "skin": (one.skin, two.skin),
        "glasses": (one.glasses, two.glasses),
        "beard": (one.beard, two.beard),
    }
    return ", ".join(name for name, (first, second) in parts.items() if first != second) or "nothing"


def sentences(rng: np.random.Generator, count: int) -> Iterator[str]:
    """A random generator and a number of scenes; every sentence that is asked, said and noted about them."""
    for _ in range(count):
        scene = random_scene(rng)
        for record in conversations(scene, rng):
            for turn in record["conversations"]:
                yield turn["value"].replace("<video>", "").replace("<audio>", "").replace("<image>", "").strip()
        yield from (text for text in notes(scene, rng).values() if text)
        if scene.has_video:
            yield picture_caption(scene, 1.0, rng)
