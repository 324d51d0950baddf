"""The corpus' people and scenes: disjoint, balanced, and the same for one seed."""

from collections import Counter
from dataclasses import replace

import numpy as np

from omnihuman.data.sample.world import (
    ACTIONS,
    EMOTIONS,
    INTERACTIONS,
    NUM_IDENTITIES,
    NUM_SHOTS,
    SOUNDS,
    double,
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


def test_shots_come_last_and_half_of_them_show_one_person() -> None:
    corpus = scenes(0)
    some = [scene for scene in corpus if scene.shots]
    assert corpus[-len(some) :] == some and {scene.kind for scene in some} == {"shots"}
    assert Counter(scene.split for scene in some) == NUM_SHOTS
    for split in NUM_SHOTS:
        same = [scene.is_same_person for scene in some if scene.split == split]
        assert sum(same) == len(same) / 2


def test_shots_differ_in_place_and_expression_and_not_by_clothes_alone() -> None:
    shirts = Counter[tuple[bool, bool]]()
    for scene in (scene for scene in scenes(0) if scene.shots):
        first, second = scene.shots
        one, two = first.identity, second.identity
        assert one == scene.identity and {one.split, two.split} == {scene.split} and one.gender == two.gender
        assert first.background != second.background and first.emotion != second.emotion
        assert (first.width, first.height, first.duration) == (second.width, second.height, scene.duration / 2)
        assert not (scene.has_audio or scene.words or first.words or first.has_audio)
        if scene.is_same_person:
            assert replace(two, shirt=one.shirt) == one
        else:
            assert sum(getattr(one, key) != getattr(two, key) for key in ("skin", "glasses", "beard", "hat")) + (
                (one.hair, one.hair_color) != (two.hair, two.hair_color)) >= 2  # fmt: skip
        shirts[scene.is_same_person, one.shirt == two.shirt] += 1
    assert min(shirts.values()) > 10


def test_a_time_names_its_shot() -> None:
    scene = next(scene for scene in scenes(0) if scene.shots)
    half = scene.shots[0].duration
    assert scene.shot(0.0) == (scene.shots[0], 0.0) and scene.shot(half) == (scene.shots[1], 0.0)
    assert scene.shot(half - 0.1)[0] == scene.shots[0] and scene.shot(scene.duration)[0] == scene.shots[1]
    assert scenes(0)[0].shot(1.25) == (scenes(0)[0], 1.25)


def test_a_double_looks_alike() -> None:
    people = [person for person in identities(0) if person.split == "test"]
    rng = np.random.default_rng(0)
    for person in people:
        other = double(rng, person, people)
        assert other.gender == person.gender and other != person
    assert random_scene(rng, kind="shots").shots
