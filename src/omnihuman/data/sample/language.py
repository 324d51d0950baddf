"""Everything that is said about a scene of the built-in corpus: notes in words, and questions with their answers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from omnihuman.data.sample import phrases as say
from omnihuman.data.sample.world import EMOTIONS, SOUNDS, Identity, Scene

Record = dict[str, Any]
TASKS = (
    "face", "body", "interaction", "caption", "emotion", "expression", "audio_caption", "transcription", "sound",
    "speaker_speech", "general",
)  # fmt: skip


class Turn(NamedTuple):
    """One question with its answer, the task it belongs to, and the media without which nobody can answer."""

    task: str
    question: str
    answer: str
    needs: tuple[str, ...]
    options: tuple[str, ...] = ()
    attribute: str = ""


def one_of(rng: np.random.Generator, options: Sequence[str]) -> str:
    """One of the options, by chance."""
    return options[int(rng.integers(len(options)))]


def capital(text: str) -> str:
    """The text with a capital letter."""
    return text[0].upper() + text[1:]


def _person(
    person: Identity, rng: np.random.Generator, count: int, behind: bool = False, drop: float = 0.0, fine: bool = False
) -> str:
    """A person; "a man with ..." with at most ``count`` of the looks, in varying order, each left out by chance."""
    looks = [say.hair(person), *([] if behind else say.extras(person)), *say.clothes(person)]
    looks += [f"{person.skin} skin"] * (fine and not behind)
    some = [looks[int(i)] for i in rng.permutation(len(looks))[:count] if rng.random() >= drop]
    return f"a {person.gender} with {say.joined(some)}" if some else f"a {person.gender}"


def deed(scene: Scene) -> str:
    """A scene of whole bodies; what its main person does."""
    if scene.action is not None:
        return say.ACTS[scene.action][0]
    other = f"a {scene.partner.gender}" if scene.partner else ""
    return say.INTERACTS[scene.interaction or ""][0].format(other=other)


def notes(scene: Scene, rng: np.random.Generator, drop: float = 0.05, fine: bool = False) -> dict[str, str]:
    """A scene; what is seen (``video``) and heard (``audio``) in plain words, ``""`` where there is nothing.

    They stand in for media while a language model is pretrained: all that the questions ask for is in them, but
    each of the looks and the place is left out with a chance of ``drop``. With ``fine`` the skin is among the looks.

    >>> from omnihuman.data.sample.world import scenes
    >>> sorted(notes(scenes(0)[0], np.random.default_rng(0)))
    ['audio', 'video']
    """
    return {"video": _seen_notes(scene, rng, drop, fine) if scene.has_video else "",
            "audio": _heard_notes(scene, rng) if scene.has_audio else ""}  # fmt: skip


def _seen_notes(scene: Scene, rng: np.random.Generator, drop: float, fine: bool) -> str:
    if scene.shots:
        first, second = (_seen_notes(shot, rng, drop, fine) for shot in scene.shots)
        return f"first shot , {first}. second shot , {second}"
    person = _person(scene.identity, rng, 9, scene.from_behind, drop, fine)
    place = [say.PLACES[scene.background]] if rng.random() >= drop else []
    if scene.kind == "pair" and scene.partner:
        other = _person(scene.partner, rng, 9, drop=drop, fine=fine)
        parts = [f"on the left {person} , on the right {other}", "they talk to each other", *place]
    elif scene.is_portrait:
        emotion = scene.face_emotion
        look = one_of(rng, say.LOOKS[emotion])
        change = (
            ""
            if scene.is_still or emotion == "neutral"
            else f" , {'then it calms down' if scene.fades else 'then it stays'}"
        )
        feel = one_of(rng, (f"expression {emotion}", f"looks {say.FEELS[emotion]}", f"{emotion} face"))
        parts = [person, *place, f"the face {look}{change}", feel]
    else:
        parts = [person, *place, deed(scene)]
        if scene.partner:
            parts.append(f"the other is {_person(scene.partner, rng, 9, drop=drop, fine=fine)}")
        if scene.from_behind:
            parts.append("seen from behind")
    return ". ".join(parts[int(i)] for i in rng.permutation(len(parts)))


def _heard_notes(scene: Scene, rng: np.random.Generator) -> str:
    words = " ".join(scene.words)
    if scene.sound is not None:
        parts = [say.HEARD[scene.sound], one_of(rng, (f"sound of {scene.sound}", f"sound {scene.sound}"))]
    elif scene.partner_words and scene.partner:
        parts = [f"the {scene.identity.gender} says {words} , then the {scene.partner.gender} says "
                 f"{' '.join(scene.partner_words)}"]  # fmt: skip
    else:
        emotion = scene.voice_emotion
        parts = [f"a {scene.identity.gender} says {words}", f"the voice is {say.VOICES[emotion]}",
                 one_of(rng, (f"tone {emotion}", f"sounds {say.FEELS[emotion]}", f"{emotion} voice"))]  # fmt: skip
    return ". ".join(parts[int(i)] for i in rng.permutation(len(parts)))


def picture_caption(scene: Scene, level: float, rng: np.random.Generator) -> str:
    """A scene that is seen and how strong its expression is in one frame (``draw.level``); that frame in words.

    Made for image-text training: below a level of 0.3 the face is still neutral.
    """
    scene = scene.shot(0.0)[0]
    person = _person(scene.identity, rng, 3, scene.from_behind)
    place = say.PLACES[scene.background]
    if scene.kind == "pair" and scene.partner:
        return f"{person} and {_person(scene.partner, rng, 2)} talk {place}"
    if scene.is_portrait:
        emotion = scene.face_emotion if level > 0.3 else "neutral"
        looks = one_of(rng, (say.LOOKS[emotion][0], say.LOOKS[emotion][1], f"looks {say.FEELS[emotion]}"))
        return f"{person} {looks} {place}" if rng.random() < 0.5 else f"{emotion} face of {person} {place}"
    return f"{person} {deed(scene)} {place}{' seen from behind' if scene.from_behind else ''}"


# ---------------------------------------------------------------------------------------------- turns of each task


def _ask(rng: np.random.Generator, task: str, key: str, answer: str, *needs: str) -> Turn:
    return Turn(task, one_of(rng, say.ASK[key]), answer, needs)


def _face(scene: Scene, rng: np.random.Generator) -> list[Turn]:
    person, emotion = scene.identity, scene.face_emotion
    answers = {
        "face_hair": f"The face has {say.hair(person)}.",
        "face_extras": f"The face has {say.joined(say.extras(person) or ['no glasses and no beard'])}.",
        "face_expression": f"The face {one_of(rng, say.LOOKS[emotion])}.",
        "face_emotion": f"The face looks {say.FEELS[emotion]}.",
        "face_mouth": say.MOUTHS[emotion],
        "face_brows": say.BROWS[emotion],
        "face_eyes": say.EYES[emotion],
    }
    if scene.kind == "pair":
        return []
    if not scene.is_portrait:  # a small face shows its features only
        answers = {key: answers[key] for key in ("face_hair", "face_extras")}
    return [_ask(rng, "face", key, answer, "video") for key, answer in answers.items()]


def _body(scene: Scene, rng: np.random.Generator) -> list[Turn]:
    if scene.kind == "pair":
        return []
    gender = scene.identity.gender
    answers = {"body_clothes": f"The {gender} wears {say.joined(say.clothes(scene.identity))}."}
    if scene.action is not None:
        does, doing = say.ACTS[scene.action]
        answers["body_action"] = one_of(rng, (f"The {gender} {does}.", f"The {gender} is {doing}."))
        answers["body_pose"] = say.POSES[scene.action]
        answers["body_side"] = "It is seen from behind." if scene.from_behind else "It is seen from the front."
    elif scene.interaction is not None:
        other = f"a {scene.partner.gender}" if scene.partner else ""
        answers["body_action"] = f"The {gender} {deed(scene)}."
        answers["body_pose"] = say.INTERACTS[scene.interaction][2].format(other=other)
    return [_ask(rng, "body", key, answer, "video") for key, answer in answers.items()]


def _interaction(scene: Scene, rng: np.random.Generator) -> list[Turn]:
    gender = scene.identity.gender
    alone = f"No, the {gender} is alone."
    if scene.kind == "pair" and scene.partner:
        how, thing = "Two people talk to each other.", "There is no object."
    elif scene.interaction is not None:
        item = say.INTERACTS[scene.interaction][1]
        how = f"The {gender} {deed(scene)}."
        thing = f"The object is {item}." if item else "There is no object."
    else:
        how, thing = f"There is no interaction, the {gender} is alone.", "There is no object."
    people = f"Yes, {_person(scene.partner, rng, 2)}." if scene.partner else alone
    answers = {"interaction_how": how, "interaction_object": thing, "interaction_people": people,
               "interaction_place": f"It is {say.PLACES[scene.background]}."}  # fmt: skip
    return [_ask(rng, "interaction", key, answer, "video") for key, answer in answers.items()]


def _seen(scene: Scene, rng: np.random.Generator, count: int) -> str:
    """A scene; one or two sentences on what is seen, with at most ``count`` looks of the main person."""
    person, place = _person(scene.identity, rng, count, scene.from_behind), say.PLACES[scene.background]
    if scene.kind == "pair" and scene.partner:
        return f"{capital(person)} and {_person(scene.partner, rng, 1)} talk {place}."
    if scene.is_portrait:
        return f"{capital(person)} is {place}. The face {one_of(rng, say.LOOKS[scene.face_emotion])}."
    return f"{capital(person)} {deed(scene)} {place}."


def _heard(scene: Scene, speaker: str | None = None) -> str:
    """A scene with sound; one sentence on what is heard."""
    if scene.sound is not None:
        return f"{capital(say.HEARD[scene.sound])}."
    who, words = speaker or f"a {scene.identity.gender}", " ".join(scene.words)
    if scene.partner_words and scene.partner:
        reply = " ".join(scene.partner_words)
        return f"The {scene.identity.gender} says {words}, then the {scene.partner.gender} says {reply}."
    return f"{capital(who)} says {words} in a {say.VOICES[scene.voice_emotion]} voice."


def _caption(scene: Scene, rng: np.random.Generator) -> list[Turn]:
    turns = [_ask(rng, "caption", "caption_seen", _seen(scene, rng, 3), "video")]
    if scene.has_audio:
        heard = _heard(scene, f"the {scene.identity.gender}")
        turns.append(_ask(rng, "caption", "caption_both", f"{_seen(scene, rng, 1)} {heard}", "video", "audio"))
    return turns


def _expression(scene: Scene, rng: np.random.Generator) -> list[Turn]:
    if not scene.is_portrait or scene.is_still:
        return []
    emotion = scene.face_emotion
    if emotion == "neutral":
        text = one_of(
            rng, ("The face stays neutral and calm from start to end.", "The face is neutral and does not change.")
        )
    else:
        end = "and calms down at the end" if scene.fades else f"and stays {say.FEELS[emotion]}"
        text = f"The face is neutral at first, then it {one_of(rng, say.LOOKS[emotion])} {end}."
    return [_ask(rng, "expression", "expression", text, "video")]


def _emotion(scene: Scene, rng: np.random.Generator, count: int) -> Turn:
    """A scene with an emotion; the choice question in the official form with ``count`` options."""
    label = str(scene.emotion)
    others = [e for e in rng.permutation(np.array(EMOTIONS)).tolist() if e != label][: count - 1]
    options = tuple(rng.permutation(np.array([label, *others])).tolist())
    stems = say.EMOTION_STEMS_HEARD if not scene.has_video else say.EMOTION_STEMS[2 * scene.is_still :]
    stem = one_of(rng, stems)
    return Turn("emotion", f"{stem}\n{' ,'.join(options)}", label, (), options)


def _speech(scene: Scene, rng: np.random.Generator) -> list[Turn]:
    """A scene in which somebody speaks; what is asked about the speech."""
    words = " ".join(scene.words)
    if scene.partner_words and scene.partner:
        turns = []
        for person, spoken in ((scene.identity, words), (scene.partner, " ".join(scene.partner_words))):
            looks = [
                f"the {person.gender}",
                f"the {person.gender} with {one_of(rng, [say.hair(person), *say.clothes(person)])}",
            ]
            question = one_of(rng, say.ASK["speaker"]).format(who=one_of(rng, looks))
            turns.append(Turn("speaker_speech", question, spoken, ("audio",)))
        both = f"{words} {' '.join(scene.partner_words)}"
        return [*turns, _ask(rng, "transcription", "transcription", both, "audio")]
    turns = [
        _ask(rng, "transcription", "transcription", words, "audio"),
        _ask(rng, "audio_caption", "audio_caption", _heard(scene), "audio"),
        _ask(rng, "audio_caption", "audio_voice", f"The voice is {say.VOICES[scene.voice_emotion]}.", "audio"),
    ]
    if scene.has_video:
        look = one_of(rng, [say.hair(scene.identity), *say.clothes(scene.identity)])
        question = one_of(rng, say.ASK["speaker"]).format(who=f"the {scene.identity.gender} with {look}")
        turns.append(Turn("speaker_speech", question, words, ("audio",)))
    return turns


def _sound(scene: Scene, rng: np.random.Generator) -> list[Turn]:
    """A scene with a sound event; what is asked about it."""
    label, question = str(scene.sound), one_of(rng, say.ASK["sound"])
    options: tuple[str, ...] = ()
    if rng.random() < 0.5:
        others = [s for s in rng.permutation(np.array(SOUNDS)).tolist() if s != label][: int(rng.integers(2, 6))]
        options = tuple(rng.permutation(np.array([label, *others])).tolist())
        question = f"{question}\n{' ,'.join(options)}"
    return [Turn("sound", question, label, ("audio",), options),
            _ask(rng, "audio_caption", "audio_caption", _heard(scene), "audio")]  # fmt: skip


# ------------------------------------------------------------------------------------------------------- the records


def _some(rng: np.random.Generator, turns: list[Turn], count: int) -> list[Turn]:
    return [turns[int(i)] for i in sorted(rng.permutation(len(turns))[:count])]


def _chosen(scene: Scene, rng: np.random.Generator) -> Iterator[Turn]:
    """A scene; the questions that the corpus asks about it, about half a dozen; clips of two shots have others."""
    if scene.shots:
        return
    if scene.emotion is not None:
        yield _emotion(scene, rng, len(EMOTIONS))
        if scene.split == "train":
            yield _emotion(scene, rng, int(rng.integers(2, 7)))
    if scene.has_video:
        share = (
            {"face": 2, "body": 1, "interaction": 1} if scene.is_portrait else {"face": 1, "body": 2, "interaction": 2}
        )
        if scene.is_portrait and rng.random() < 0.6:
            share.pop("body" if rng.random() < 0.4 else "interaction")
        for task, count in share.items():
            if not (scene.from_behind and task == "face"):
                yield from _some(
                    rng, {"face": _face, "body": _body, "interaction": _interaction}[task](scene, rng), count
                )
        yield from _expression(scene, rng)
        yield from _some(rng, _caption(scene, rng), 1)
    if scene.words:
        yield from _some(rng, _speech(scene, rng), 1 if scene.kind == "talk" else 2)
    elif scene.sound is not None:
        yield from _some(rng, _sound(scene, rng), 1 if scene.has_video else 2)


def as_record(scene: Scene, task: str, turns: list[Turn]) -> Record:
    """A scene, a task and its turns; one record in the official form, without id and file names."""
    slots = "<image>\n" if scene.is_still else "<video>\n" * scene.has_video + "<audio>\n" * scene.has_audio
    meta: dict[str, Any] = {"identity": scene.identity.index, "split": scene.split, "emotion": scene.emotion,
                            "shown_by": scene.shown_by, "kind": scene.kind}  # fmt: skip
    if turns[0].options and len(turns) == 1:
        meta |= {"label": turns[0].answer, "options": list(turns[0].options)}
    if turns[0].attribute:
        meta["attribute"] = turns[0].attribute
    sides = [("human", (slots if index == 0 else "") + turn.question, turn.answer) for index, turn in enumerate(turns)]
    return {
        "task": task,
        "conversations": [{"from": who, "value": text} for role, question, answer in sides
                          for who, text in ((role, question), ("gpt", answer))],
        "needs": [name for name in ("video", "audio") if any(name in turn.needs for turn in turns)],
        "meta": meta,
    }  # fmt: skip


def conversations(scene: Scene, rng: np.random.Generator) -> list[Record]:
    """A scene; its records: task, conversations with placeholders, needs and meta, still without id and file names.

    >>> from omnihuman.data.sample.world import scenes
    >>> conversations(scenes(0)[0], np.random.default_rng(0))[0]["conversations"][1]["value"]
    'happy'
    """
    turns = list(_chosen(scene, rng))
    records = [as_record(scene, turn.task, [turn]) for turn in turns]
    open_turns = [turn for turn in turns if not turn.options]
    if len(open_turns) >= 2 and rng.random() < 0.3:
        records.append(as_record(scene, "general", _some(rng, open_turns, 2)))
    return records
