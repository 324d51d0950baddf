"""Records: placeholders match the media, answers match the scene, and the vocabulary is small."""

from collections import Counter

import numpy as np
import pytest

from omnihuman.corpus.conversation import TASKS, Record, build_conversations
from omnihuman.corpus.phrases import EMOTION_STEMS, build_vocabulary
from omnihuman.corpus.world import EMOTIONS, SOUNDS, Scene, build_scenes

Samples = list[tuple[Scene, Record]]


@pytest.fixture(scope="module")
def samples() -> Samples:
    """Every scene of the corpus with each of its records."""
    pairs: Samples = []
    for scene in build_scenes(0):
        pairs += [(scene, record) for record in build_conversations(scene, np.random.default_rng(scene.seed))]
    return pairs


def test_train_and_test_have_every_task(samples: Samples) -> None:
    for split in ("train", "test"):
        assert {record["task"] for scene, record in samples if scene.split == split} == set(TASKS)


def test_placeholders_match_the_media_and_are_in_the_first_turn_only(samples: Samples) -> None:
    for scene, record in samples:
        turns = record["conversations"]
        assert [turn["from"] for turn in turns] == ["human", "gpt"] * (len(turns) // 2)
        placeholders = "<video>\n" * scene.has_video + "<audio>\n" * scene.has_audio
        if scene.is_still:
            placeholders = "<image>\n"
        assert turns[0]["value"].startswith(placeholders) and "<" not in turns[0]["value"][len(placeholders) :]
        assert all("<" not in turn["value"] for turn in turns[1:])
        assert ("video" not in record["needs"]) or scene.has_video
        assert ("audio" not in record["needs"]) or scene.has_audio


def test_emotion_questions_have_the_official_form(samples: Samples) -> None:
    counts: dict[str, set[int]] = {"train": set(), "val": set(), "test": set()}
    orders: set[str] = set()
    for scene, record in samples:
        if record["task"] != "emotion":
            continue
        question, answer = (turn["value"] for turn in record["conversations"])
        options = record["meta"]["options"]
        stem, last_line = question.split("\n")[-2:]
        assert last_line.split(" ,") == options and len(stem) > 10
        assert answer == record["meta"]["label"] == scene.emotion and answer in options
        assert record["needs"] == [] and set(options) <= set(EMOTIONS)
        counts[scene.split].add(len(options))
        orders.add(last_line)
    assert counts == {"train": set(range(2, 8)), "val": {7}, "test": {7}}
    assert len(orders) > 500
    assert EMOTION_STEMS[0].endswith("most clearly expressed?")


def test_answers_match_the_scene(samples: Samples) -> None:
    for scene, record in samples:
        answer = record["conversations"][1]["value"]
        if record["task"] == "transcription" and not scene.partner:
            assert answer == " ".join(scene.transcript)
        if record["task"] == "sound":
            assert answer == scene.sound and answer in SOUNDS
        if record["task"] == "expression" and scene.face_emotion != "neutral":
            assert ("calms down" in answer) == scene.fades and "at first" in answer


def test_answers_are_short(samples: Samples) -> None:
    for _, record in samples:
        for turn in record["conversations"]:
            if turn["from"] == "gpt":
                assert 1 <= len(turn["value"].split()) <= 34


@pytest.mark.parametrize(
    ("task", "words"), [("face", ("face", "facial")), ("body", ("body",)), ("interaction", ("interact",))]
)
def test_branch_questions_name_their_branch(samples: Samples, task: str, words: tuple[str, ...]) -> None:
    for _, record in samples:
        if record["task"] == task:
            question = record["conversations"][0]["value"].lower()
            assert any(word in question for word in words)


@pytest.mark.parametrize("task", TASKS)
def test_no_answer_of_a_task_is_too_frequent(samples: Samples, task: str) -> None:
    answers = Counter(record["conversations"][1]["value"] for _, record in samples if record["task"] == task)
    assert len(answers) >= 7 and answers.most_common(1)[0][1] < 0.35 * answers.total()


def test_vocabulary_is_small_and_covers_the_records(samples: Samples) -> None:
    vocabulary = build_vocabulary()
    assert len(vocabulary) <= 400
    punctuation = str.maketrans(",.;?\n", "     ")
    words: set[str] = set()
    for _, record in samples:
        for turn in record["conversations"]:
            text = turn["value"]
            for placeholder in ("<video>", "<audio>", "<image>"):
                text = text.replace(placeholder, "")
            words |= set(text.lower().translate(punctuation).split())
    assert words <= vocabulary, words - vocabulary


def test_same_generator_gives_the_same_records() -> None:
    scene = build_scenes(0)[0]
    first = build_conversations(scene, np.random.default_rng(5))
    assert first == build_conversations(scene, np.random.default_rng(5))
