"""People and scenes of the corpus: disjoint splits, balanced topics, and the same for the same seed."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from omnihuman.corpus.world import (
    ACTIONS,
    EMOTIONS,
    INTERACTIONS,
    NUM_IDENTITIES,
    NUM_SHOTS,
    SOUNDS,
    Identity,
    Scene,
    build_identities,
    build_scenes,
    find_lookalike,
    sample_scene,
)

SHOTS = [scene for scene in build_scenes(0) if scene.shots]


def test_seed_determines_the_scenes() -> None:
    assert build_scenes(3) == build_scenes(3)
    assert build_scenes(3) != build_scenes(4)


def test_identities_differ_in_looks() -> None:
    people = build_identities(0)
    assert Counter(person.split for person in people) == NUM_IDENTITIES
    looks: set[Identity] = set()
    for person in people:
        same_shape = replace(person, face_width=0.0, eye_gap=0.0, mouth_drop=0.0, pitch=0.0, timbre=0.0)
        looks.add(replace(same_shape, index=0, split=""))
    assert len(looks) == len(people)


def test_splits_share_no_person() -> None:
    for scene in build_scenes(0):
        assert scene.identity.split == scene.split
        assert scene.partner is None or (scene.partner.split == scene.split and scene.partner != scene.identity)


@pytest.mark.parametrize("name", ["gender", "skin", "hair", "hair_color", "glasses", "beard", "hat", "shirt"])
def test_train_split_covers_the_attributes_of_all_people(name: str) -> None:
    train = {getattr(person, name) for person in build_identities(0) if person.split == "train"}
    assert {getattr(person, name) for person in build_identities(0)} <= train


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_emotions_and_their_sources_are_balanced(split: str) -> None:
    talk = [scene for scene in build_scenes(0) if scene.split == split and scene.kind == "talk"]
    emotions = Counter(scene.emotion for scene in talk)
    assert set(emotions) == set(EMOTIONS) and max(emotions.values()) - min(emotions.values()) <= 1
    sources = Counter((scene.emotion, scene.shown_by) for scene in talk if scene.emotion != "neutral")
    assert len(sources) == 18 and max(sources.values()) - min(sources.values()) <= 1
    assert {scene.shown_by for scene in talk if scene.emotion == "neutral"} == {"none"}


def test_face_and_voice_carry_the_emotion_as_shown_by_says() -> None:
    expected = {"both": (True, True), "face": (True, False), "voice": (False, True), "none": (True, True)}
    for scene in build_scenes(0):
        if scene.emotion is None:
            continue
        matches = (scene.face_emotion == scene.emotion, scene.voice_emotion == scene.emotion)
        assert matches == expected[scene.shown_by]
        if scene.shown_by in ("both", "voice"):
            assert scene.transcript and scene.has_audio


@pytest.mark.parametrize("split", ["train", "test"])
def test_splits_have_every_action_interaction_and_sound(split: str) -> None:
    scenes = [scene for scene in build_scenes(0) if scene.split == split]
    assert {scene.action for scene in scenes} >= set(ACTIONS)
    assert {scene.interaction for scene in scenes} >= set(INTERACTIONS)
    assert {scene.sound for scene in scenes} >= set(SOUNDS)


def test_size_of_the_corpus() -> None:
    scenes = build_scenes(0)
    counts = Counter(scene.split for scene in scenes)
    assert counts["train"] >= 700 and counts["val"] >= 110 and counts["test"] >= 270
    assert all(2 <= scene.duration <= 4 for scene in scenes)
    assert any(scene.has_video and not scene.has_audio and not scene.is_still for scene in scenes)
    assert any(scene.from_behind for scene in scenes)
    assert len({scene.id for scene in scenes}) == len(scenes)


def test_sampled_scenes_are_new_scenes_of_train_people() -> None:
    rng = np.random.default_rng(0)
    scenes = [sample_scene(rng) for _ in range(100)]
    assert {scene.split for scene in scenes} == {"train"}
    assert not {scene.seed for scene in scenes} & {scene.seed for scene in build_scenes(0)}
    assert sample_scene(np.random.default_rng(1)) == sample_scene(np.random.default_rng(1))


def test_clips_of_two_shots_come_last_and_half_show_one_person() -> None:
    assert build_scenes(0)[-len(SHOTS) :] == SHOTS and {scene.kind for scene in SHOTS} == {"shots"}
    assert Counter(scene.split for scene in SHOTS) == NUM_SHOTS
    for split in NUM_SHOTS:
        is_same = [scene.is_same_person for scene in SHOTS if scene.split == split]
        assert sum(is_same) == len(is_same) / 2


@pytest.mark.parametrize("scene", SHOTS, ids=lambda scene: scene.id)
def test_shots_are_silent_and_differ_in_place_and_emotion(scene: Scene) -> None:
    first, second = scene.shots
    assert first.background != second.background and first.emotion != second.emotion
    assert (first.width, first.height, first.duration) == (second.width, second.height, scene.duration / 2)
    assert not (scene.has_audio or scene.transcript or first.transcript or first.has_audio)


@pytest.mark.parametrize("scene", SHOTS, ids=lambda scene: scene.id)
def test_people_of_two_shots_differ_in_at_least_two_features_or_not_at_all(scene: Scene) -> None:
    one, two = (shot.identity for shot in scene.shots)
    assert one == scene.identity and {one.split, two.split} == {scene.split} and one.gender == two.gender
    if scene.is_same_person:
        assert replace(two, shirt=one.shirt) == one
    else:
        hair_differs = (one.hair, one.hair_color) != (two.hair, two.hair_color)
        differences = [getattr(one, key) != getattr(two, key) for key in ("skin", "glasses", "beard", "hat")]
        assert sum(differences) + hair_differs >= 2


def test_shirts_do_not_identify_the_person() -> None:
    shirts: Counter[tuple[bool, bool]] = Counter()
    for scene in SHOTS:
        first, second = scene.shots
        shirts[scene.is_same_person, first.identity.shirt == second.identity.shirt] += 1
    assert len(shirts) == 4 and min(shirts.values()) > 10


def test_find_shot_returns_the_shot_and_its_time() -> None:
    scene = SHOTS[0]
    first, second = scene.shots
    assert scene.find_shot(0.0) == (first, 0.0) and scene.find_shot(first.duration) == (second, 0.0)
    assert scene.find_shot(first.duration - 0.1)[0] == first and scene.find_shot(scene.duration)[0] == second
    single = build_scenes(0)[0]
    assert single.find_shot(1.25) == (single, 1.25)


def test_lookalikes_are_other_people_of_the_same_gender() -> None:
    people = [person for person in build_identities(0) if person.split == "test"]
    rng = np.random.default_rng(0)
    for person in people:
        lookalike = find_lookalike(rng, person, people)
        assert lookalike.gender == person.gender and lookalike != person


def test_clips_of_two_shots_can_be_sampled() -> None:
    assert sample_scene(np.random.default_rng(0), kind="shots").shots
