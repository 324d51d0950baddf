"""Questions that look closely at faces: attributes, summaries, easy and hard ones, words and reasons for emotions."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from omnihuman.data.sample import phrases as say
from omnihuman.data.sample.language import Record, Turn, as_record, capital, deed, one_of
from omnihuman.data.sample.world import EMOTIONS, Scene

TASKS = ("attribute", "summary", "face_qa", "hard_qa", "open_emotion", "reason", "same_person")
SIDES: tuple[str, ...] = ("video", "audio")


def closeups(scene: Scene, rng: np.random.Generator) -> list[Record]:
    """A scene; its records of the tasks above, as ``conversations`` gives those of the others.

    >>> from omnihuman.data.sample.world import scenes
    >>> [record["task"] for record in closeups(scenes(0)[-1], np.random.default_rng(0))]
    ['same_person']
    """
    records = [as_record(scene, turn.task, [turn]) for turn in _turns(scene, rng)]
    if scene.has_video and not scene.shots:
        for record in records:
            record["meta"]["small"] = not scene.is_portrait
    return records


def attributes(scene: Scene) -> dict[str, str]:
    """A scene; the fine attributes of its main face that can be told from the pictures, by name.

    >>> from omnihuman.data.sample.world import scenes
    >>> attributes(scenes(0)[0])["mouth"]
    'smiling'
    """
    person = scene.identity
    if not scene.has_video or scene.from_behind or scene.kind == "pair" or scene.shots:
        return {}
    known = {
        "gender": person.gender,
        "glasses": "glasses" if person.glasses else "no glasses",
        "hat": f"{person.hat} hat" if person.hat else "no hat",
    }
    if not scene.is_still:  # a still may show a face that an emotion has coloured
        known["skin"] = person.skin
    if person.gender == "man":
        known["beard"] = "beard" if person.beard else "no beard"
    if person.hat is None or person.hair in ("long", "curly"):  # a hat hides the rest
        known["hair_style"] = "no hair" if person.hair == "no" else person.hair
        if person.hair != "no":
            known["hair_color"] = person.hair_color
    if scene.is_portrait:
        states = {part: states.get(scene.face_emotion) for part, states in say.STATES.items()}
        known |= {part: state for part, state in states.items() if state}
    return known


def _turns(scene: Scene, rng: np.random.Generator) -> Iterator[Turn]:
    if scene.shots:
        yield _choice(scene, rng, "same_person", "same_person", "yes" if scene.is_same_person else "no", ("yes", "no"))
        return
    known = attributes(scene)
    for name in rng.permutation(sorted(known)).tolist()[:2]:
        yield _choice(scene, rng, "attribute", name, known[name], say.ATTRIBUTES[name])
    if known:
        yield from _face_qa(scene, rng, 2 if scene.is_portrait else 1)
    if scene.is_portrait and scene.has_video and not scene.is_still:
        yield _turn(rng, "summary", "summary", _summary(scene, rng))
    if scene.has_video and not scene.from_behind and (not scene.is_portrait or not scene.is_still):
        yield _hard_qa(scene, rng)
    if scene.emotion is not None:
        words = ", ".join(say.SYNONYMS[scene.emotion])
        yield Turn("open_emotion", one_of(rng, say.ASK["open_emotion"]), words, ())
        yield _reason(scene, rng)


def _turn(rng: np.random.Generator, task: str, key: str, answer: str, **names: str) -> Turn:
    return Turn(task, one_of(rng, say.ASK[key]).format(**names), answer, ("video",))


def _choice(scene: Scene, rng: np.random.Generator, task: str, name: str, label: str, options: tuple[str, ...]) -> Turn:
    """A choice question in the official form; in training with any number of its options, two at least."""
    others = [option for option in options if option != label]
    count = int(rng.integers(1, len(others) + 1)) if scene.split == "train" else len(others)
    some = [label, *(others[int(i)] for i in rng.permutation(len(others))[:count])]
    shown = tuple(some[int(i)] for i in rng.permutation(len(some)))
    question = f"{one_of(rng, say.ASK[name])}\n{' ,'.join(shown)}"
    return Turn(task, question, label, ("video",), shown, name if task == "attribute" else "")


def _face_qa(scene: Scene, rng: np.random.Generator, count: int) -> list[Turn]:
    person, emotion = scene.identity, scene.face_emotion
    answers = {
        "qa_gender": f"The face is that of a {person.gender}.",
        "face_hair": f"The face has {say.hair(person)}.",
        "face_extras": f"The face has {say.joined(say.extras(person) or ['no glasses and no beard'])}.",
        "qa_hat": f"The {person.gender} wears {say.headwear(person)}.",
    }
    if not scene.is_still:
        answers["qa_skin"] = f"The face has {person.skin} skin."
    if scene.is_portrait:
        answers |= {
            "face_expression": f"The face {one_of(rng, say.LOOKS[emotion])}.",
            "face_emotion": f"The face looks {say.FEELS[emotion]}.",
            "face_mouth": say.MOUTHS[emotion],
            "face_brows": say.BROWS[emotion],
            "face_eyes": say.EYES[emotion],
        }
    keys = [str(key) for key in rng.permutation(sorted(answers))[:count]]
    return [_turn(rng, "face_qa", key, answers[key]) for key in keys]


def _summary(scene: Scene, rng: np.random.Generator) -> str:
    person, emotion = scene.identity, scene.face_emotion
    looks = [f"{person.skin} skin", say.hair(person), *say.extras(person), *say.clothes(person)]
    who = f"A {person.gender} with {say.joined(looks)} is {say.PLACES[scene.background]}."
    if emotion == "neutral":
        return f"{who} The face stays neutral and calm from start to end."
    end = "calms down at the end" if scene.fades else f"stays {say.FEELS[emotion]}"
    return f"{who} The face is neutral at first, then it {one_of(rng, say.LOOKS[emotion])} and {end}."


def _hard_qa(scene: Scene, rng: np.random.Generator) -> Turn:
    """A question that needs several facts: of a small face and its body, of two people, or of looks and time."""
    if scene.kind == "pair" and scene.partner:
        return _who_wears(scene, rng)
    if not scene.is_portrait:
        return _small_face(scene, rng)
    person, feels = scene.identity, say.FEELS[scene.face_emotion]
    wears = say.joined([*(["glasses"] if person.glasses else ["no glasses"]), say.headwear(person)])
    is_neutral = scene.face_emotion == "neutral"
    last = "calm" if scene.fades and not is_neutral else feels
    ends = "calms down" if scene.fades and not is_neutral else f"stays {feels}"
    key = one_of(rng, ("hard_end", "hard_hair", "hard_yes"))
    if key == "hard_end":
        return _turn(rng, "hard_qa", key, f"The person wears {wears}, and the expression {ends}.")
    if key == "hard_hair":
        return _turn(rng, "hard_qa", key, f"The face has {say.hair(person)} and is neutral first and {last} last.")
    look = one_of(rng, [say.hair(person), *say.extras(person), *say.clothes(person)])
    asked = scene.face_emotion
    if rng.random() < 0.5:  # a face that calms down is not asked for neutral: it is almost, but not yet
        asked = one_of(rng, [other for other in EMOTIONS if other not in (asked, "neutral")])
    verdict = "Yes" if asked == scene.face_emotion and last == feels else "No"
    return _turn(rng, "hard_qa", key, f"{verdict}, the face {ends}.", look=look, feels=say.FEELS[asked])


def _small_face(scene: Scene, rng: np.random.Generator) -> Turn:
    person, does = scene.identity, deed(scene)
    if rng.random() < 0.5:
        extras = say.joined(say.extras(person) or ["no glasses and no beard"])
        answer = f"The {person.gender} {does}, with {extras} on the face and {say.headwear(person)} on the head."
        return _turn(rng, "hard_qa", "hard_small", answer)
    looks = say.joined([f"{person.skin} skin", say.hair(person), *say.extras(person)])
    return _turn(rng, "hard_qa", "hard_who", f"The face has {looks}.", does=does)


def _who_wears(scene: Scene, rng: np.random.Generator) -> Turn:
    left, right = scene.identity, scene.partner
    assert right is not None
    thing = one_of(rng, ("glasses", "a hat"))
    worn = (left.glasses, right.glasses) if thing == "glasses" else (bool(left.hat), bool(right.hat))
    who = {(True, True): "Both people wear", (True, False): "The left person wears",
           (False, True): "The right person wears", (False, False): "Nobody wears"}[worn]  # fmt: skip
    return _turn(rng, "hard_qa", "hard_pair", f"{who} {thing}.", thing=thing)


def _reason(scene: Scene, rng: np.random.Generator) -> Turn:
    """The emotion with what is seen and heard of it, or with the side that shows it alone."""
    face = f"the face {one_of(rng, say.LOOKS[scene.face_emotion])}" if scene.has_video else ""
    voice = f"the voice is {say.VOICES[scene.voice_emotion]}" if scene.words else ""
    feels = say.FEELS[str(scene.emotion)]
    if face and voice and rng.random() < 0.6:
        first, second = (voice, face) if scene.shown_by == "voice" else (face, voice)
        link = " and " if scene.shown_by in ("both", "none") else ", but "
        # what speaks against the emotion comes first
        clues = f"{first}{link}{second}" if link == " and " else f"{second}{link}{first}"
        kind, needs = "visual and vocal", SIDES
    else:
        told = {"visual": face if scene.shown_by != "voice" else "", "vocal": voice if scene.shown_by != "face" else ""}
        kind = one_of(rng, [name for name, text in told.items() if text])
        clues, needs = told[kind], SIDES[:1] if kind == "visual" else SIDES[1:]
    question = one_of(rng, say.ASK["reason"]).format(clues=kind)
    return Turn("reason", question, f"{capital(clues)}, so the person feels {feels}.", needs)
