"""People for the encoders' training: the corpus has 48, whom a network learns by heart instead of looking at them."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

import numpy as np

from omnihuman.data.sample import world
from omnihuman.data.sample.world import Identity, Scene


def looks(person: Identity) -> tuple[object, ...]:
    """A person; what the corpus tells people apart by."""
    return (person.gender, person.skin, person.hair, person.glasses, person.beard, person.hat, person.shirt)


@lru_cache
def held_out(seed: int = 0) -> frozenset[tuple[object, ...]]:
    """A seed; the looks of the val and test people, whom nothing here may show."""
    return frozenset(looks(person) for person in world.identities(seed) if person.split != "train")


def stranger(rng: np.random.Generator, gender: str) -> Identity:
    """A random generator and a gender; a person of the corpus' making who looks like none of val and test."""
    while True:
        person = world._identity(rng, 2 * int(rng.integers(1 << 20)) + (gender == "woman"), "train")
        if looks(person) not in held_out():
            return person


def random_scene(rng: np.random.Generator, split: str = "train", kind: str | None = None) -> Scene:
    """As the corpus' own; in training four scenes of five show new people."""
    scene = world.random_scene(rng, split, kind)
    if split != "train" or rng.random() < 0.2:
        return scene
    partner = scene.partner and stranger(rng, scene.partner.gender)
    return replace(scene, identity=stranger(rng, scene.identity.gender), partner=partner)
