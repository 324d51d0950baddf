"""The corpus' people and scenes: disjoint, balanced, and the same for one seed."""

from collections import Counter
from dataclasses import replace

import numpy as np

from omnihuman.data.sample.world import (
    ACTIONS,
    EMOTIONS,
    INTERACTIONS,
    NUM_IDENTITIES,
    SOUNDS,
    identities,
    random_scene,
    scenes,
)


def test_same_seed_same_scenes_and_another_seed_others() -> None:
    assert scenes(3) == scenes(3)
    assert scenes(3) != scenes(4)


def test_identities_are_disjoint_and_look_different() -> None:
    people = identities(0)
    assert Counter(person.split for person in people) == NUM_IDENTITIES
    looks = [
        replace(p, index=0, split="", face_width=0.0, eye_gap=0.0, mouth_drop=0.0, pitch=0.0, timbre=0.0)
        for p in people
    ]
    assert len(set(looks)) == len(people)
    for scene in scenes(0):
        assert scene.identity.split == scene.split
        assert scene.partner is None or (scene.partner.split == scene.split and scene.partner != scene.identity)


def test_train_people_cover_the_attributes_of_all_others() -> None:
    train = [person for person in identities(0) if person.split == "train"]
    for person in identities(0):
        for name in ("gender", "skin", "hair", "hair_color", "glasses", "beard", "hat", "shirt"):
            assert any(getattr(other, name) == getattr(person, name) for other in train), name


def test_emotions_and_ways_to_show_them_are_balanced() -> None:
    for split in ("train", "val", "test"):
        talk = [scene for scene in scenes(0) if scene.split == split and scene.kind == "talk"]
        emotions = Counter(scene.emotion for scene in talk)
        assert set(emotions) == set(EMOTIONS) and max(emotions.values()) - min(emotions.values()) <= 1
        ways = Counter((scene.emotion, scene.shown_by) for scene in talk if scene.emotion != "neutral")
        assert len(ways) == 18 and max(ways.values()) - min(ways.values()) <= 1
        assert all(scene.shown_by == "none" for scene in talk if scene.emotion == "neutral")


def test_face_and_voice_show_the_emotion_only_where_they_should() -> None:
    for scene in scenes(0):
        if scene.emotion is not None:
            seen, heard = scene.face_emotion == scene.emotion, scene.voice_emotion == scene.emotion
            assert (seen, heard) == {"both": (True, True), "face": (True, False), "voice": (False, True),
                                     "none": (True, True)}[scene.shown_by]  # fmt: skip
            if scene.shown_by in ("both", "voice"):
                assert scene.words and scene.has_audio


def test_every_action_interaction_and_sound_is_in_every_split() -> None:
    for split in ("train", "test"):
        some = [scene for scene in scenes(0) if scene.split == split]
        assert {scene.action for scene in some} >= set(ACTIONS)
        assert {scene.interaction for scene in some} >= set(INTERACTIONS)
        assert {scene.sound for scene in some} >= set(SOUNDS)


def test_sizes_of_the_corpus() -> None:
    corpus = scenes(0)
    counts = Counter(scene.split for scene in corpus)
    assert counts["train"] >= 700 and counts["val"] >= 110 and counts["test"] >= 270
    assert all(2 <= scene.duration <= 4 for scene in corpus)
    assert any(scene.has_video and not scene.has_audio and not scene.is_still for scene in corpus)
    assert any(scene.from_behind for scene in corpus)
    assert len({scene.id for scene in corpus}) == len(corpus)


def test_random_scenes_are_of_train_people_and_not_of_the_corpus() -> None:
    rng = np.random.default_rng(0)
    more = [random_scene(rng) for _ in range(100)]
    assert {scene.split for scene in more} == {"train"}
    assert not {scene.seed for scene in more} & {scene.seed for scene in scenes(0)}
    assert random_scene(np.random.default_rng(1)) == random_scene(np.random.default_rng(1))
