"""New people for training: with the corpus' 48 alone, an encoder memorizes people instead of attributes."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

import numpy as np

from omnihuman.corpus import world
from omnihuman.corpus.world import Identity, Scene


def list_looks(person: Identity) -> tuple[object, ...]:
    """Return the features in which two people of the corpus differ."""
    return (person.gender, person.skin, person.hair, person.glasses, person.beard, person.hat, person.shirt)


@lru_cache
def list_held_out_looks(seed: int = 0) -> frozenset[tuple[object, ...]]:
    """Return the looks of the val and test people, which no training clip may show."""
    return frozenset(list_looks(person) for person in world.build_identities(seed) if person.split != "train")


def sample_person(rng: np.random.Generator, gender: str) -> Identity:
    """Sample a new person who looks like none of the val and test people."""
    while True:
        index = 2 * int(rng.integers(1 << 20)) + (gender == "woman")
        person = world.sample_identity(rng, index, "train")
        if list_looks(person) not in list_held_out_looks():
            return person


def sample_scene(rng: np.random.Generator, split: str = "train", kind: str | None = None) -> Scene:
    """Sample a scene like ``world.sample_scene``; in training four of five scenes show new people."""
    scene = world.sample_scene(rng, split, kind)
    if split != "train" or rng.random() < 0.2:
        return scene
    partner = None
    if scene.partner is not None:
        partner = sample_person(rng, scene.partner.gender)
    return replace(scene, identity=sample_person(rng, scene.identity.gender), partner=partner)


def replace_people(scene: Scene, rng: np.random.Generator, num_candidates: int) -> Scene:
    """Replace the people of a scene of two shots by new ones, the second a lookalike among some candidates."""
    first = second = sample_person(rng, scene.identity.gender)
    if not scene.is_same_person:
        candidates = [sample_person(rng, first.gender) for _ in range(num_candidates)]
        second = world.find_lookalike(rng, first, candidates)
    people = (first, replace(second, shirt=scene.shots[1].identity.shirt))
    shots = tuple(replace(shot, identity=person) for shot, person in zip(scene.shots, people, strict=True))
    return replace(scene, identity=first, shots=shots)
