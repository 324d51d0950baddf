"""Close looks at faces: labels among options, answers that fit the scene, and nothing old that changed."""

import hashlib
import json
from collections import Counter

import numpy as np
import pytest

from omnihuman.data.sample import language
from omnihuman.data.sample.closeup import TASKS, attributes, closeups
from omnihuman.data.sample.language import Record
from omnihuman.data.sample.phrases import ATTRIBUTES, FEELS, LOOKS, STATES, SYNONYMS, VOICES, vocabulary
from omnihuman.data.sample.world import EMOTIONS, Scene, scenes
from omnihuman.data.sample.write import records_of

Said = list[tuple[Scene, Record]]
#: of the records that the corpus had before there were closeups, of the first scene of each kind in each split
BEFORE = "a1f8d9bd6541a52e72b9c0cfd1e30c92d25e41487ebe1a84baf08da33c128362"


@pytest.fixture(scope="module")
def said() -> Said:
    return [(scene, record) for scene in scenes(0) for record in closeups(scene, np.random.default_rng(scene.seed))]


def _of(said: Said, task: str) -> list[tuple[Scene, str, str, Record]]:
    texts = ((scene, *(turn["value"] for turn in record["conversations"]), record) for scene, record in said)
    return [(scene, asked, answer, record) for scene, asked, answer, record in texts if record["task"] == task]


def test_old_records_are_the_same_and_come_first() -> None:
    firsts = {(scene.split, scene.kind): scene for scene in reversed(scenes(0))}
    digest = hashlib.sha256()
    for (_, kind), scene in sorted(firsts.items()):
        records = records_of(scene, 0)
        old = [record for record in records if record["task"] in language.TASKS]
        assert old == records[: len(old)] and bool(old) == (kind != "shots")
        if old:
            digest.update(json.dumps(old, sort_keys=True).encode())
    assert digest.hexdigest() == BEFORE


def test_every_task_is_there_in_every_split(said: Said) -> None:
    for split in ("train", "val", "test"):
        assert {record["task"] for scene, record in said if scene.split == split} == set(TASKS)
    assert not set(TASKS) & set(language.TASKS)


def test_same_generator_same_words_and_no_faces_from_behind() -> None:
    for scene in scenes(0)[::40]:
        assert closeups(scene, np.random.default_rng(5)) == closeups(scene, np.random.default_rng(5))
    assert not [r for s in scenes(0) if s.from_behind for r in closeups(s, np.random.default_rng(0))]


def test_placeholders_and_needs_fit_the_media(said: Said) -> None:
    for scene, record in said:
        slots = "<image>\n" if scene.is_still else "<video>\n" * scene.has_video + "<audio>\n" * scene.has_audio
        (question, answer) = (turn["value"] for turn in record["conversations"])
        assert question.startswith(slots) and "<" not in question[len(slots) :] + answer
        assert "video" not in record["needs"] or scene.has_video
        assert "audio" not in record["needs"] or scene.words
        if record["task"] not in ("open_emotion", "reason"):
            assert record["needs"] == ["video"]
        if scene.has_video and not scene.shots:
            assert record["meta"]["small"] == (not scene.is_portrait)


def test_choices_have_the_official_form_and_true_labels(said: Said) -> None:
    sizes, orders = Counter[tuple[str, int]](), set()
    for task in ("attribute", "same_person"):
        for scene, asked, answer, record in _of(said, task):
            shown, label = record["meta"]["options"], record["meta"]["label"]
            assert asked.rsplit("\n", 1)[1].split(" ,") == shown and len(set(shown)) == len(shown) >= 2
            assert answer == label and label in shown
            if task == "attribute":
                name = record["meta"]["attribute"]
                assert label == attributes(scene)[name] and set(shown) <= set(ATTRIBUTES[name])
                assert scene.split == "train" or len(shown) == len(ATTRIBUTES[name])
                sizes[scene.split, len(shown)] += 1
                orders.add(tuple(shown))
            else:
                assert set(shown) == {"yes", "no"}
                assert (label == "yes") == (scene.shots[0].identity.index == scene.shots[1].identity.index)
    assert {size for split, size in sizes if split == "train"} == set(range(2, 7)) and len(orders) > 200


def test_attributes_come_from_large_and_small_faces(said: Said) -> None:
    rows = _of(said, "attribute")
    assert {record["meta"]["attribute"] for *_, record in rows} == set(ATTRIBUTES)
    small = [record for *_, record in rows if record["meta"]["small"]]
    assert len(small) > 200
    assert not {record["meta"]["attribute"] for record in small} & set(STATES)
    assert all(attributes(scene) for scene, *_ in rows)


def test_attributes_agree_with_the_person() -> None:
    for scene in scenes(0):
        person, known = scene.identity, attributes(scene)
        if known:
            assert known["gender"] == person.gender
            assert (known["glasses"] == "glasses") == person.glasses
            assert known["hat"] == (f"{person.hat} hat" if person.hat else "no hat")
            assert known.get("hair_color", person.hair_color) == person.hair_color
            assert known.get("skin", person.skin) == person.skin
            for part, states in STATES.items():
                assert known.get(part) == (states.get(scene.face_emotion) if scene.is_portrait else None)


def test_tables_fit_each_other() -> None:
    assert tuple(SYNONYMS) == EMOTIONS
    words = [word for group in SYNONYMS.values() for word in group]
    assert len(set(words)) == len(words)
    assert all(FEELS[emotion] == group[0] for emotion, group in SYNONYMS.items())
    for part, states in STATES.items():
        assert set(states.values()) == set(ATTRIBUTES[part])


def test_open_words_are_those_of_the_emotion(said: Said) -> None:
    for scene, _, answer, record in _of(said, "open_emotion"):
        assert tuple(answer.split(", ")) == SYNONYMS[str(scene.emotion)] and record["needs"] == []


def test_reasons_name_what_shows_the_emotion_and_need_what_they_name(said: Said) -> None:
    kinds = set()
    for scene, asked, answer, record in _of(said, "reason"):
        clues, feels = answer.split(", so the person feels ")
        assert feels == f"{FEELS[str(scene.emotion)]}."
        seen = any(f"face {look}" in clues for look in LOOKS[scene.face_emotion])
        heard = f"voice is {VOICES[scene.voice_emotion]}" in clues
        assert seen == ("video" in record["needs"]) == ("visual" in asked)
        assert heard == ("audio" in record["needs"]) == ("vocal" in asked)
        assert {"face": seen, "voice": heard}.get(scene.shown_by, True)
        assert (", but " in clues) == (seen and heard and scene.shown_by in ("face", "voice"))
        kinds.add((scene.shown_by, seen, heard))
    assert len(kinds) == 10


def test_summaries_and_hard_answers_tell_the_truth(said: Said) -> None:
    for scene, _, answer, _ in _of(said, "summary"):
        person = scene.identity
        assert (" glasses" in answer) == person.glasses and (" beard" in answer) == person.beard
        assert f"{person.skin} skin" in answer and f"{person.shirt} shirt" in answer
        assert ("calms down" in answer) == (scene.fades and scene.face_emotion != "neutral")
        assert any(look in answer for look in LOOKS[scene.face_emotion]) or scene.face_emotion == "neutral"
    verdicts = Counter[str]()
    for scene, asked, answer, _ in _of(said, "hard_qa"):
        assert not scene.from_behind
        if answer.startswith(("Yes", "No,")):
            feels = asked.removesuffix(" at the end?").rsplit(" ", 1)[1]
            stays = scene.face_emotion == "neutral" or not scene.fades
            assert answer.startswith("Yes") == (feels == FEELS[scene.face_emotion] and stays)
            verdicts[answer[:2]] += 1
        elif scene.kind == "pair" and scene.partner and "glasses" in answer:
            wear = (scene.identity.glasses, scene.partner.glasses)
            assert answer.split()[0] == {(True, True): "Both", (False, False): "Nobody"}.get(wear, "The")
            assert "left" not in answer or wear == (True, False)
    assert min(verdicts.values()) > 0.25 * verdicts.total()


def test_answers_carry_information(said: Said) -> None:
    for task in TASKS:
        answers = Counter(answer for *_, answer, _ in _of(said, task))
        assert answers.most_common(1)[0][1] <= (0.5 if task == "same_person" else 0.25) * answers.total(), task
        assert all(1 <= len(answer.split()) <= 50 for answer in answers)


def test_words_are_known(said: Said) -> None:
    marks = str.maketrans(",.;?\n", "     ")
    texts = [turn["value"] for _, record in said for turn in record["conversations"]]
    texts += [t for s in scenes(0)[::7] for t in language.notes(s, np.random.default_rng(0), fine=True).values()]
    for slot in ("<video>", "<audio>", "<image>"):
        texts = [text.replace(slot, "") for text in texts]
    used = {word for text in texts for word in text.lower().translate(marks).split()}
    assert used <= vocabulary(), used - vocabulary()
