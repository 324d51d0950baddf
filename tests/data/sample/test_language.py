"""What is said: placeholders that fit the media, answers that fit the scene, few words in all."""

from collections import Counter

import numpy as np
import pytest

from omnihuman.data.sample.language import TASKS, Record, conversations, notes, picture_caption
from omnihuman.data.sample.phrases import EMOTION_STEMS, FEELS, PLACES, vocabulary
from omnihuman.data.sample.world import EMOTIONS, SOUNDS, Scene, scenes

Said = list[tuple[Scene, Record]]


@pytest.fixture(scope="module")
def said() -> Said:
    return [
        (scene, record) for scene in scenes(0) for record in conversations(scene, np.random.default_rng(scene.seed))
    ]


def test_every_task_is_there_in_train_and_test(said: Said) -> None:
    for split in ("train", "test"):
        assert {record["task"] for scene, record in said if scene.split == split} == set(TASKS)


def test_placeholders_fit_the_media_and_stand_in_the_first_turn_only(said: Said) -> None:
    for scene, record in said:
        turns = record["conversations"]
        assert [turn["from"] for turn in turns] == ["human", "gpt"] * (len(turns) // 2)
        wanted = "<image>\n" if scene.is_still else "<video>\n" * scene.has_video + "<audio>\n" * scene.has_audio
        assert turns[0]["value"].startswith(wanted) and "<" not in turns[0]["value"][len(wanted) :]
        assert all("<" not in turn["value"] for turn in turns[1:])
        assert ("video" not in record["needs"]) or scene.has_video
        assert ("audio" not in record["needs"]) or scene.has_audio


def test_emotion_questions_have_the_official_form(said: Said) -> None:
    sizes, orders = Counter(), set()
    for scene, record in said:
        if record["task"] == "emotion":
            question, answer = (turn["value"] for turn in record["conversations"])
            stem, options = question.split("\n")[-2:]
            assert options.split(" ,") == record["meta"]["options"] and len(stem) > 10
            assert answer == record["meta"]["label"] == scene.emotion and answer in record["meta"]["options"]
            assert record["needs"] == [] and set(record["meta"]["options"]) <= set(EMOTIONS)
            sizes[scene.split, len(record["meta"]["options"])] += 1
            orders.add(options)
    assert {size for split, size in sizes if split == "train"} == set(range(2, 8))
    assert {size for split, size in sizes if split != "train"} == {7}
    assert len(orders) > 500
    assert EMOTION_STEMS[0].endswith("most clearly expressed?")


def test_answers_tell_the_truth(said: Said) -> None:
    for scene, record in said:
        answer = record["conversations"][1]["value"]
        if record["task"] == "transcription" and not scene.partner:
            assert answer == " ".join(scene.words)
        if record["task"] == "sound":
            assert answer == scene.sound and answer in SOUNDS
        if record["task"] == "expression" and scene.face_emotion != "neutral":
            assert ("calms down" in answer) == scene.fades and ("at first" in answer)


def test_answers_are_short(said: Said) -> None:
    for _, record in said:
        for turn in record["conversations"]:
            if turn["from"] == "gpt":
                assert 1 <= len(turn["value"].split()) <= 34


def test_branch_questions_name_their_branch(said: Said) -> None:
    def asked(task: str) -> list[str]:
        return [record["conversations"][0]["value"].lower() for _, record in said if record["task"] == task]

    assert all("face" in question or "facial" in question for question in asked("face"))
    assert all("body" in question for question in asked("body"))
    assert all("interact" in question for question in asked("interaction"))


def test_answers_of_a_task_carry_information(said: Said) -> None:
    for task in TASKS:
        answers = Counter(record["conversations"][1]["value"] for _, record in said if record["task"] == task)
        assert len(answers) >= 7 and answers.most_common(1)[0][1] < 0.35 * answers.total(), task


def test_words_are_few_and_all_known(said: Said) -> None:
    known = vocabulary()
    assert len(known) <= 400
    marks = str.maketrans(",.;?\n", "     ")
    rng = np.random.default_rng(0)
    texts = [turn["value"] for _, record in said for turn in record["conversations"]]
    for scene in scenes(0):
        texts += notes(scene, rng).values()
        if scene.has_video:
            texts.append(picture_caption(scene, 1.0, rng))
    used = set()
    for text in texts:
        for slot in ("<video>", "<audio>", "<image>"):
            text = text.replace(slot, "")
        used |= set(text.lower().translate(marks).split())
    assert used <= known, used - known


def test_notes_tell_what_each_side_shows() -> None:
    rng = np.random.default_rng(0)
    for scene in scenes(0):
        told = notes(scene, rng)
        assert bool(told["video"]) == scene.has_video and bool(told["audio"]) == scene.has_audio
        if scene.kind == "talk":
            assert any(word in told["video"] for word in (scene.face_emotion, FEELS[scene.face_emotion]))
            if scene.words:
                assert " ".join(scene.words) in told["audio"]
                assert any(word in told["audio"] for word in (scene.voice_emotion, FEELS[scene.voice_emotion]))


def test_fine_notes_tell_the_skin_and_both_shots() -> None:
    for scene in scenes(0)[::20]:
        if scene.has_video and not scene.from_behind:
            assert f"{scene.identity.skin} skin" in notes(scene, np.random.default_rng(0), drop=0.0, fine=True)["video"]
    for scene in (s for s in scenes(0) if s.shots):
        told = notes(scene, np.random.default_rng(0), drop=0.0)["video"].partition("second shot")
        for text, shot in zip((told[0], told[2]), scene.shots, strict=True):
            assert f"{shot.identity.shirt} shirt" in text and PLACES[shot.background] in text


def test_same_generator_same_words() -> None:
    scene = scenes(0)[0]
    assert conversations(scene, np.random.default_rng(5)) == conversations(scene, np.random.default_rng(5))
