"""Detailed questions about faces: labels are options, answers match the scene, the other records are unchanged."""

import hashlib
import json
from collections import Counter
from typing import NamedTuple

import numpy as np
import pytest

from omnihuman.corpus import conversation
from omnihuman.corpus.closeup import TASKS, build_closeups, list_attributes
from omnihuman.corpus.conversation import Record
from omnihuman.corpus.phrases import (
    ATTRIBUTES,
    EMOTION_ADJECTIVES,
    EXPRESSION_PHRASES,
    FACE_STATES,
    SYNONYMS,
    VOICE_ADJECTIVES,
    build_vocabulary,
)
from omnihuman.corpus.world import EMOTIONS, Scene, build_scenes
from omnihuman.corpus.write import build_records

#: hash of the records of ``conversation.TASKS`` of the first scene of each kind in each split
DIGEST = "a1f8d9bd6541a52e72b9c0cfd1e30c92d25e41487ebe1a84baf08da33c128362"


class Sample(NamedTuple):
    """A record with its scene, its question and its answer."""

    scene: Scene
    record: Record
    question: str
    answer: str


@pytest.fixture(scope="module")
def samples() -> list[Sample]:
    """All detailed records of the corpus."""
    result: list[Sample] = []
    for scene in build_scenes(0):
        for record in build_closeups(scene, np.random.default_rng(scene.seed)):
            question, answer = record["conversations"]
            result.append(Sample(scene, record, question["value"], answer["value"]))
    return result


def _select(samples: list[Sample], task: str) -> list[Sample]:
    return [sample for sample in samples if sample.record["task"] == task]


def test_other_records_are_unchanged_and_come_first() -> None:
    firsts = {(scene.split, scene.kind): scene for scene in reversed(build_scenes(0))}
    digest = hashlib.sha256()
    for (_, kind), scene in sorted(firsts.items()):
        records = build_records(scene, 0)
        basic = [record for record in records if record["task"] in conversation.TASKS]
        assert basic == records[: len(basic)] and bool(basic) == (kind != "shots")
        if basic:
            digest.update(json.dumps(basic, sort_keys=True).encode())
    assert digest.hexdigest() == DIGEST


def test_every_split_has_every_task(samples: list[Sample]) -> None:
    for split in ("train", "val", "test"):
        assert {sample.record["task"] for sample in samples if sample.scene.split == split} == set(TASKS)
    assert not set(TASKS) & set(conversation.TASKS)


def test_same_generator_gives_the_same_records() -> None:
    for scene in build_scenes(0)[::40]:
        assert build_closeups(scene, np.random.default_rng(5)) == build_closeups(scene, np.random.default_rng(5))


def test_scenes_from_behind_have_no_records() -> None:
    for scene in build_scenes(0):
        if scene.from_behind:
            assert build_closeups(scene, np.random.default_rng(0)) == []


def test_placeholders_and_needs_match_the_media(samples: list[Sample]) -> None:
    for scene, record, question, answer in samples:
        placeholders = "<video>\n" * scene.has_video + "<audio>\n" * scene.has_audio
        if scene.is_still:
            placeholders = "<image>\n"
        assert question.startswith(placeholders) and "<" not in question[len(placeholders) :] + answer
        assert "video" not in record["needs"] or scene.has_video
        assert "audio" not in record["needs"] or scene.transcript
        if record["task"] not in ("open_emotion", "reason"):
            assert record["needs"] == ["video"]
        if scene.has_video and not scene.shots:
            assert record["meta"]["small"] == (not scene.is_portrait)


@pytest.mark.parametrize("task", ["attribute", "same_person"])
def test_choices_have_the_official_form(samples: list[Sample], task: str) -> None:
    for sample in _select(samples, task):
        options, label = sample.record["meta"]["options"], sample.record["meta"]["label"]
        assert sample.question.rsplit("\n", 1)[1].split(" ,") == options
        assert len(set(options)) == len(options) >= 2
        assert sample.answer == label and label in options


def test_attribute_labels_match_the_scene(samples: list[Sample]) -> None:
    counts: set[int] = set()
    orders: set[tuple[str, ...]] = set()
    for scene, record, _, _ in _select(samples, "attribute"):
        name, options = record["meta"]["attribute"], record["meta"]["options"]
        assert record["meta"]["label"] == list_attributes(scene)[name] and set(options) <= set(ATTRIBUTES[name])
        orders.add(tuple(options))
        if scene.split == "train":
            counts.add(len(options))
        else:
            assert len(options) == len(ATTRIBUTES[name])
    assert counts == set(range(2, 7)) and len(orders) > 200


def test_same_person_labels_match_the_shots(samples: list[Sample]) -> None:
    for scene, record, _, _ in _select(samples, "same_person"):
        first, second = scene.shots
        assert set(record["meta"]["options"]) == {"yes", "no"}
        assert (record["meta"]["label"] == "yes") == (first.identity.index == second.identity.index)


def test_attributes_are_of_large_and_small_faces(samples: list[Sample]) -> None:
    records = [sample.record for sample in _select(samples, "attribute")]
    assert {record["meta"]["attribute"] for record in records} == set(ATTRIBUTES)
    small = [record for record in records if record["meta"]["small"]]
    assert len(small) > 200
    assert not {record["meta"]["attribute"] for record in small} & set(FACE_STATES)


def test_attributes_match_the_person() -> None:
    for scene in build_scenes(0):
        person, labels = scene.identity, list_attributes(scene)
        if not labels:
            continue
        assert labels["gender"] == person.gender
        assert (labels["glasses"] == "glasses") == person.glasses
        assert labels["hat"] == (f"{person.hat} hat" if person.hat else "no hat")
        assert labels.get("hair_color", person.hair_color) == person.hair_color
        assert labels.get("skin", person.skin) == person.skin
        for part, states in FACE_STATES.items():
            expected = states.get(scene.face_emotion) if scene.is_portrait else None
            assert labels.get(part) == expected


def test_tables_are_consistent() -> None:
    assert tuple(SYNONYMS) == EMOTIONS
    words = sum(SYNONYMS.values(), ())
    assert len(set(words)) == len(words)
    assert all(EMOTION_ADJECTIVES[emotion] == group[0] for emotion, group in SYNONYMS.items())
    for part, states in FACE_STATES.items():
        assert set(states.values()) == set(ATTRIBUTES[part])


def test_open_emotion_answers_list_the_synonyms(samples: list[Sample]) -> None:
    for sample in _select(samples, "open_emotion"):
        assert tuple(sample.answer.split(", ")) == SYNONYMS[str(sample.scene.emotion)]
        assert sample.record["needs"] == []


def test_reasons_name_the_cues_of_the_emotion(samples: list[Sample]) -> None:
    kinds: set[tuple[str, bool, bool]] = set()
    for scene, record, question, answer in _select(samples, "reason"):
        clues, adjective = answer.split(", so the person feels ")
        assert adjective == f"{EMOTION_ADJECTIVES[str(scene.emotion)]}."
        has_visual = any(f"face {clause}" in clues for clause in EXPRESSION_PHRASES[scene.face_emotion])
        has_vocal = f"voice is {VOICE_ADJECTIVES[scene.voice_emotion]}" in clues
        assert has_visual == ("video" in record["needs"]) == ("visual" in question)
        assert has_vocal == ("audio" in record["needs"]) == ("vocal" in question)
        assert {"face": has_visual, "voice": has_vocal}.get(scene.shown_by, True)
        assert (", but " in clues) == (has_visual and has_vocal and scene.shown_by in ("face", "voice"))
        kinds.add((scene.shown_by, has_visual, has_vocal))
    assert len(kinds) == 10


def test_summaries_match_the_scene(samples: list[Sample]) -> None:
    for scene, _, _, answer in _select(samples, "summary"):
        person = scene.identity
        assert (" glasses" in answer) == person.glasses and (" beard" in answer) == person.beard
        assert f"{person.skin} skin" in answer and f"{person.shirt} shirt" in answer
        assert ("calms down" in answer) == (scene.fades and scene.face_emotion != "neutral")
        clauses = EXPRESSION_PHRASES[scene.face_emotion]
        assert scene.face_emotion == "neutral" or any(clause in answer for clause in clauses)


def test_hard_answers_match_the_scene(samples: list[Sample]) -> None:
    verdicts: Counter[str] = Counter()
    for scene, _, question, answer in _select(samples, "hard_qa"):
        assert not scene.from_behind
        if answer.startswith(("Yes", "No,")):
            adjective = question.removesuffix(" at the end?").rsplit(" ", 1)[1]
            stays = scene.face_emotion == "neutral" or not scene.fades
            is_true = stays and adjective == EMOTION_ADJECTIVES[scene.face_emotion]
            assert answer.startswith("Yes") == is_true
            verdicts[answer[:2]] += 1
        elif scene.kind == "pair" and scene.partner and "glasses" in answer:
            wearers = (scene.identity.glasses, scene.partner.glasses)
            assert answer.split()[0] == {(True, True): "Both", (False, False): "Nobody"}.get(wearers, "The")
            assert "left" not in answer or wearers == (True, False)
    assert min(verdicts.values()) > 0.25 * verdicts.total()


@pytest.mark.parametrize("task", TASKS)
def test_no_answer_of_a_task_is_too_frequent(samples: list[Sample], task: str) -> None:
    answers = Counter(sample.answer for sample in _select(samples, task))
    share = 0.5 if task == "same_person" else 0.25
    assert answers.most_common(1)[0][1] <= share * answers.total()
    assert all(1 <= len(answer.split()) <= 50 for answer in answers)


def test_records_use_known_words(samples: list[Sample]) -> None:
    punctuation = str.maketrans(",.;?\n", "     ")
    words: set[str] = set()
    for sample in samples:
        text = f"{sample.question} {sample.answer}"
        for placeholder in ("<video>", "<audio>", "<image>"):
            text = text.replace(placeholder, "")
        words |= set(text.lower().translate(punctuation).split())
    assert words <= build_vocabulary(), words - build_vocabulary()
