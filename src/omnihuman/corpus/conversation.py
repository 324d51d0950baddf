"""Questions about the scenes of the built-in corpus, and their answers, as records."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from omnihuman.corpus import phrases
from omnihuman.corpus.description import (
    capitalize,
    choose,
    describe_action,
    describe_ending,
    describe_person,
    name_partner,
)
from omnihuman.corpus.world import EMOTIONS, SOUNDS, Identity, Scene

Record = dict[str, Any]
TASKS = (
    "face",
    "body",
    "interaction",
    "caption",
    "emotion",
    "expression",
    "audio_caption",
    "transcription",
    "sound",
    "speaker_speech",
    "general",
)


class Turn(NamedTuple):
    """A question with its answer, its task, and the media that the answer depends on."""

    task: str
    question: str
    answer: str
    needs: tuple[str, ...]
    options: tuple[str, ...] = ()
    attribute: str = ""


def _build_turn(rng: np.random.Generator, task: str, key: str, answer: str, *needs: str) -> Turn:
    return Turn(task, choose(rng, phrases.QUESTIONS[key]), answer, needs)


def build_face_turns(scene: Scene, rng: np.random.Generator) -> list[Turn]:
    """Build the questions about the face, about its permanent features alone where it is small."""
    person, emotion = scene.identity, scene.face_emotion
    answers = {
        "face_hair": f"The face has {phrases.describe_hair(person)}.",
        "face_extras": f"The face has {phrases.describe_accessories(person)}.",
        "face_expression": f"The face {choose(rng, phrases.EXPRESSION_PHRASES[emotion])}.",
        "face_emotion": f"The face looks {phrases.EMOTION_ADJECTIVES[emotion]}.",
        "face_mouth": phrases.MOUTH_SENTENCES[emotion],
        "face_brows": phrases.BROW_SENTENCES[emotion],
        "face_eyes": phrases.EYE_SENTENCES[emotion],
    }
    if scene.kind == "pair":
        return []
    if not scene.is_portrait:  # a small face shows permanent features only
        answers = {key: answers[key] for key in ("face_hair", "face_extras")}
    return [_build_turn(rng, "face", key, answer, "video") for key, answer in answers.items()]


def build_body_turns(scene: Scene, rng: np.random.Generator) -> list[Turn]:
    """Build the questions about clothes, action and pose of the main person."""
    if scene.kind == "pair":
        return []
    gender = scene.identity.gender
    clothes = phrases.join_phrases(phrases.list_clothes(scene.identity))
    answers = {"body_clothes": f"The {gender} wears {clothes}."}
    if scene.action is not None:
        does, doing = phrases.ACTION_PHRASES[scene.action]
        side = "behind" if scene.from_behind else "the front"
        answers["body_action"] = choose(rng, (f"The {gender} {does}.", f"The {gender} is {doing}."))
        answers["body_pose"] = phrases.POSE_SENTENCES[scene.action]
        answers["body_side"] = f"It is seen from {side}."
    elif scene.interaction is not None:
        pose = phrases.INTERACTION_PHRASES[scene.interaction][2]
        answers["body_action"] = f"The {gender} {describe_action(scene)}."
        answers["body_pose"] = pose.format(other=name_partner(scene))
    return [_build_turn(rng, "body", key, answer, "video") for key, answer in answers.items()]


def build_interaction_turns(scene: Scene, rng: np.random.Generator) -> list[Turn]:
    """Build the questions about objects, other people and the place."""
    gender = scene.identity.gender
    interaction = f"There is no interaction, the {gender} is alone."
    item = None
    if scene.kind == "pair":
        interaction = "Two people talk to each other."
    elif scene.interaction is not None:
        interaction = f"The {gender} {describe_action(scene)}."
        item = phrases.INTERACTION_PHRASES[scene.interaction][1]
    people = f"No, the {gender} is alone."
    if scene.partner:
        people = f"Yes, {describe_person(scene.partner, rng, 2)}."
    answers = {
        "interaction_how": interaction,
        "interaction_object": f"The object is {item}." if item else "There is no object.",
        "interaction_people": people,
        "interaction_place": f"It is {phrases.PLACE_PHRASES[scene.background]}.",
    }
    return [_build_turn(rng, "interaction", key, answer, "video") for key, answer in answers.items()]


def caption_video(scene: Scene, rng: np.random.Generator, count: int) -> str:
    """Caption the frames in one or two sentences, with at most ``count`` features of the main person."""
    person = capitalize(describe_person(scene.identity, rng, count, scene.from_behind))
    place = phrases.PLACE_PHRASES[scene.background]
    if scene.kind == "pair" and scene.partner:
        return f"{person} and {describe_person(scene.partner, rng, 1)} talk {place}."
    if scene.is_portrait:
        return f"{person} is {place}. The face {choose(rng, phrases.EXPRESSION_PHRASES[scene.face_emotion])}."
    return f"{person} {describe_action(scene)} {place}."


def caption_audio(scene: Scene, speaker: str | None = None) -> str:
    """Caption the audio track in one sentence."""
    if scene.sound is not None:
        return f"{capitalize(phrases.SOUND_CLAUSES[scene.sound])}."
    gender, speech = scene.identity.gender, " ".join(scene.transcript)
    if scene.partner_transcript and scene.partner:
        reply = " ".join(scene.partner_transcript)
        return f"The {gender} says {speech}, then the {scene.partner.gender} says {reply}."
    voice = phrases.VOICE_ADJECTIVES[scene.voice_emotion]
    return f"{capitalize(speaker or f'a {gender}')} says {speech} in a {voice} voice."


def _build_caption_turns(scene: Scene, rng: np.random.Generator) -> list[Turn]:
    turns = [_build_turn(rng, "caption", "caption_seen", caption_video(scene, rng, 3), "video")]
    if scene.has_audio:
        audio = caption_audio(scene, f"the {scene.identity.gender}")
        caption = f"{caption_video(scene, rng, 1)} {audio}"
        turns.append(_build_turn(rng, "caption", "caption_both", caption, "video", "audio"))
    return turns


def _build_expression_turns(scene: Scene, rng: np.random.Generator) -> list[Turn]:
    if not scene.is_portrait or scene.is_still:
        return []
    emotion = scene.face_emotion
    if emotion == "neutral":
        answers = ("The face stays neutral and calm from start to end.", "The face is neutral and does not change.")
        answer = choose(rng, answers)
    else:
        apex = choose(rng, phrases.EXPRESSION_PHRASES[emotion])
        answer = f"The face is neutral at first, then it {apex} and {describe_ending(scene)}."
    return [_build_turn(rng, "expression", "expression", answer, "video")]


def _build_emotion_turn(scene: Scene, rng: np.random.Generator, count: int) -> Turn:
    """Build the multiple-choice question about the emotion in the official form, with ``count`` options."""
    label = str(scene.emotion)
    options = _sample_options(rng, EMOTIONS, label, count - 1)
    stems: tuple[str, ...] = phrases.VOICE_EMOTION_STEMS
    if scene.has_video:
        # the official stems speak of a video
        stems = phrases.EMOTION_STEMS[2:] if scene.is_still else phrases.EMOTION_STEMS
    return Turn("emotion", _append_options(choose(rng, stems), options), label, (), options)


def _sample_options(
    rng: np.random.Generator, labels: tuple[str, ...], label: str, num_distractors: int | None = None
) -> tuple[str, ...]:
    """Sample the options of a question: the label and its distractors (by default two to five) in random order."""
    distractors = [name for name in rng.permutation(np.array(labels)).tolist() if name != label]
    if num_distractors is None:
        num_distractors = int(rng.integers(2, 6))
    return tuple(rng.permutation(np.array([label, *distractors[:num_distractors]])).tolist())


def _append_options(stem: str, options: Sequence[str]) -> str:
    """Append the options to a question; the space before the comma is the official form."""
    return f"{stem}\n{' ,'.join(options)}"


def _build_speech_turns(scene: Scene, rng: np.random.Generator) -> list[Turn]:
    """Build the turns about speech, for a scene with one or two speakers."""
    speech = " ".join(scene.transcript)
    if scene.partner_transcript and scene.partner:
        reply = " ".join(scene.partner_transcript)
        turns = [
            build_speaker_turn(scene.identity, speech, rng),
            build_speaker_turn(scene.partner, reply, rng),
        ]
        return [*turns, _build_turn(rng, "transcription", "transcription", f"{speech} {reply}", "audio")]
    voice = f"The voice is {phrases.VOICE_ADJECTIVES[scene.voice_emotion]}."
    turns = [
        _build_turn(rng, "transcription", "transcription", speech, "audio"),
        _build_turn(rng, "audio_caption", "audio_caption", caption_audio(scene), "audio"),
        _build_turn(rng, "audio_caption", "audio_voice", voice, "audio"),
    ]
    if scene.has_video:
        speaker = _name_speaker(scene.identity, rng)
        question = choose(rng, phrases.QUESTIONS["speaker"]).format(who=speaker)
        turns.append(Turn("speaker_speech", question, speech, ("audio",)))
    return turns


def _name_speaker(person: Identity, rng: np.random.Generator) -> str:
    """Return a name of a speaker that refers to the face or the clothes."""
    feature = choose(rng, [phrases.describe_hair(person), *phrases.list_clothes(person)])
    return f"the {person.gender} with {feature}"


def build_speaker_turn(person: Identity, speech: str, rng: np.random.Generator) -> Turn:
    """Build the question about the speech of one of two people, who are of different gender."""
    names = (f"the {person.gender}", _name_speaker(person, rng))
    question = choose(rng, phrases.QUESTIONS["speaker"])
    return Turn("speaker_speech", question.format(who=choose(rng, names)), speech, ("audio",))


def _build_sound_turns(scene: Scene, rng: np.random.Generator) -> list[Turn]:
    """Build the turns about a sound event; half of the questions list options."""
    label, question = str(scene.sound), choose(rng, phrases.QUESTIONS["sound"])
    options: tuple[str, ...] = ()
    if rng.random() < 0.5:
        options = _sample_options(rng, SOUNDS, label)
        question = _append_options(question, options)
    return [
        Turn("sound", question, label, ("audio",), options),
        _build_turn(rng, "audio_caption", "audio_caption", caption_audio(scene), "audio"),
    ]


def sample_turns(rng: np.random.Generator, turns: list[Turn], count: int) -> list[Turn]:
    """Sample ``count`` turns without replacement, in their order."""
    return [turns[int(i)] for i in sorted(rng.permutation(len(turns))[:count])]


def _build_turns(scene: Scene, rng: np.random.Generator) -> list[Turn]:
    """Build the turns of a scene, about half a dozen; clips of two shots have none of these tasks."""
    turns: list[Turn] = []
    if scene.shots:
        return turns
    if scene.emotion is not None:
        turns.append(_build_emotion_turn(scene, rng, len(EMOTIONS)))
        if scene.split == "train":
            turns.append(_build_emotion_turn(scene, rng, int(rng.integers(2, 7))))
    if scene.has_video:
        turns += _build_video_turns(scene, rng)
    if scene.transcript:
        turns += sample_turns(rng, _build_speech_turns(scene, rng), 1 if scene.kind == "talk" else 2)
    elif scene.sound is not None:
        turns += sample_turns(rng, _build_sound_turns(scene, rng), 1 if scene.has_video else 2)
    return turns


def _build_video_turns(scene: Scene, rng: np.random.Generator) -> list[Turn]:
    counts = {"face": 1, "body": 2, "interaction": 2}
    if scene.is_portrait:
        counts = {"face": 2, "body": 1, "interaction": 1}
        if rng.random() < 0.6:
            counts.pop("body" if rng.random() < 0.4 else "interaction")
    if scene.from_behind:
        counts.pop("face")
    builders = {"face": build_face_turns, "body": build_body_turns, "interaction": build_interaction_turns}
    turns: list[Turn] = []
    for task, count in counts.items():
        turns += sample_turns(rng, builders[task](scene, rng), count)
    turns += _build_expression_turns(scene, rng)
    return turns + sample_turns(rng, _build_caption_turns(scene, rng), 1)


def build_record(scene: Scene, task: str, turns: list[Turn]) -> Record:
    """Build a record in the official form, without id and file names."""
    placeholders = "<video>\n" * scene.has_video + "<audio>\n" * scene.has_audio
    if scene.is_still:
        placeholders = "<image>\n"
    meta: dict[str, Any] = {
        "identity": scene.identity.index,
        "split": scene.split,
        "emotion": scene.emotion,
        "shown_by": scene.shown_by,
        "kind": scene.kind,
    }
    if turns[0].options and len(turns) == 1:
        meta |= {"label": turns[0].answer, "options": list(turns[0].options)}
    if turns[0].attribute:
        meta["attribute"] = turns[0].attribute
    conversation: list[dict[str, str]] = []
    needs: set[str] = set()
    for turn in turns:
        question = turn.question if conversation else placeholders + turn.question
        conversation.append({"from": "human", "value": question})
        conversation.append({"from": "gpt", "value": turn.answer})
        needs |= set(turn.needs)
    return {
        "task": task,
        "conversations": conversation,
        "needs": [name for name in ("video", "audio") if name in needs],
        "meta": meta,
    }


def build_conversations(scene: Scene, rng: np.random.Generator) -> list[Record]:
    """Build the records of a scene: task, conversations with placeholders, needs and meta.

    >>> from omnihuman.corpus.world import build_scenes
    >>> build_conversations(build_scenes(0)[0], np.random.default_rng(0))[0]["conversations"][1]["value"]
    'happy'
    """
    turns = _build_turns(scene, rng)
    records = [build_record(scene, turn.task, [turn]) for turn in turns]
    open_turns = [turn for turn in turns if not turn.options]
    if len(open_turns) >= 2 and rng.random() < 0.3:
        records.append(build_record(scene, "general", sample_turns(rng, open_turns, 2)))
    return records
