"""Questions about faces in detail: attributes, summaries, easy and hard questions, synonyms and cues of emotions."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from omnihuman.corpus import phrases
from omnihuman.corpus.conversation import Record, Turn, build_record
from omnihuman.corpus.description import capitalize, choose, describe_action, describe_ending
from omnihuman.corpus.world import EMOTIONS, Scene

TASKS = ("attribute", "summary", "face_qa", "hard_qa", "open_emotion", "reason", "same_person")


def build_closeups(scene: Scene, rng: np.random.Generator) -> list[Record]:
    """Build the records of the tasks above for a scene, in the form of ``conversation.build_conversations``.

    >>> from omnihuman.corpus.world import build_scenes
    >>> [record["task"] for record in build_closeups(build_scenes(0)[-1], np.random.default_rng(0))]
    ['same_person']
    """
    records = [build_record(scene, turn.task, [turn]) for turn in _build_turns(scene, rng)]
    if scene.has_video and not scene.shots:
        for record in records:
            record["meta"]["small"] = not scene.is_portrait
    return records


def list_attributes(scene: Scene) -> dict[str, str]:
    """Return attribute -> label for the main face of a scene, limited to attributes that are visible.

    >>> from omnihuman.corpus.world import build_scenes
    >>> list_attributes(build_scenes(0)[0])["mouth"]
    'smiling'
    """
    person = scene.identity
    if not scene.has_video or scene.from_behind or scene.kind == "pair" or scene.shots:
        return {}
    labels = {
        "gender": person.gender,
        "glasses": "glasses" if person.glasses else "no glasses",
        "hat": "no hat",
    }
    if person.hat:
        labels["hat"] = f"{person.hat} hat"
    if not scene.is_still:  # an emotion may colour the skin of a still
        labels["skin"] = person.skin
    if person.gender == "man":
        labels["beard"] = "beard" if person.beard else "no beard"
    if person.hat is None or person.hair in ("long", "curly"):  # a hat hides short hair
        labels["hair_style"] = "no hair" if person.hair == "no" else person.hair
        if person.hair != "no":
            labels["hair_color"] = person.hair_color
    if scene.is_portrait:
        for part, states in phrases.FACE_STATES.items():
            if scene.face_emotion in states:
                labels[part] = states[scene.face_emotion]
    return labels


def _build_turns(scene: Scene, rng: np.random.Generator) -> Iterator[Turn]:
    if scene.shots:
        label = "yes" if scene.is_same_person else "no"
        yield _build_choice(scene, rng, "same_person", "same_person", label, ("yes", "no"))
        return
    labels = list_attributes(scene)
    for name in rng.permutation(sorted(labels)).tolist()[:2]:
        turn = _build_choice(scene, rng, "attribute", name, labels[name], phrases.ATTRIBUTES[name])
        yield turn._replace(attribute=name)
    if labels:
        yield from build_face_qa(scene, rng, 2 if scene.is_portrait else 1)
    is_small = not scene.is_portrait
    if scene.has_video and not is_small and not scene.is_still:
        yield _build_turn(rng, "summary", "summary", summarize_face(scene, rng))
    if scene.has_video and not scene.from_behind and (is_small or not scene.is_still):
        yield build_hard_qa(scene, rng)
    if scene.emotion is not None:
        synonyms = ", ".join(phrases.SYNONYMS[scene.emotion])
        yield Turn("open_emotion", choose(rng, phrases.QUESTIONS["open_emotion"]), synonyms, ())
        yield build_reason(scene, rng)


def _build_turn(rng: np.random.Generator, task: str, key: str, answer: str, **names: str) -> Turn:
    return Turn(task, choose(rng, phrases.QUESTIONS[key]).format(**names), answer, ("video",))


def _build_choice(
    scene: Scene, rng: np.random.Generator, task: str, name: str, label: str, labels: tuple[str, ...]
) -> Turn:
    """Build a multiple-choice question in the official form; in training with two to all of the labels."""
    distractors = [option for option in labels if option != label]
    count = len(distractors)
    if scene.split == "train":
        count = int(rng.integers(1, count + 1))
    candidates = [label]
    candidates += [distractors[int(i)] for i in rng.permutation(len(distractors))[:count]]
    options = tuple(candidates[int(i)] for i in rng.permutation(len(candidates)))
    question = f"{choose(rng, phrases.QUESTIONS[name])}\n{' ,'.join(options)}"
    return Turn(task, question, label, ("video",), options)


def build_face_qa(scene: Scene, rng: np.random.Generator, count: int) -> list[Turn]:
    """Build ``count`` questions about single features of the face."""
    person, emotion = scene.identity, scene.face_emotion
    answers = {
        "qa_gender": f"The face is that of a {person.gender}.",
        "face_hair": f"The face has {phrases.describe_hair(person)}.",
        "face_extras": f"The face has {phrases.describe_accessories(person)}.",
        "qa_hat": f"The {person.gender} wears {phrases.describe_headwear(person)}.",
    }
    if not scene.is_still:
        answers["qa_skin"] = f"The face has {person.skin} skin."
    if scene.is_portrait:
        answers |= {
            "face_expression": f"The face {choose(rng, phrases.EXPRESSION_PHRASES[emotion])}.",
            "face_emotion": f"The face looks {phrases.EMOTION_ADJECTIVES[emotion]}.",
            "face_mouth": phrases.MOUTH_SENTENCES[emotion],
            "face_brows": phrases.BROW_SENTENCES[emotion],
            "face_eyes": phrases.EYE_SENTENCES[emotion],
        }
    keys = rng.permutation(sorted(answers)).tolist()[:count]
    return [_build_turn(rng, "face_qa", key, answers[key]) for key in keys]


def _list_features(scene: Scene) -> list[str]:
    """List hair, accessories and clothes of the main person."""
    person = scene.identity
    return [phrases.describe_hair(person), *phrases.list_accessories(person), *phrases.list_clothes(person)]


def summarize_face(scene: Scene, rng: np.random.Generator) -> str:
    """Describe the person and the course of the expression in two sentences."""
    person, emotion = scene.identity, scene.face_emotion
    features = phrases.join_phrases([f"{person.skin} skin", *_list_features(scene)])
    subject = f"A {person.gender} with {features} is {phrases.PLACE_PHRASES[scene.background]}."
    if emotion == "neutral":
        return f"{subject} The face stays neutral and calm from start to end."
    apex = choose(rng, phrases.EXPRESSION_PHRASES[emotion])
    return f"{subject} The face is neutral at first, then it {apex} and {describe_ending(scene)}."


def build_hard_qa(scene: Scene, rng: np.random.Generator) -> Turn:
    """Build a question that combines facts: a small face and its body, two people, or features and time."""
    if scene.kind == "pair":
        return _build_comparison(scene, rng)
    if not scene.is_portrait:
        return _build_small_face(scene, rng)
    person, emotion = scene.identity, scene.face_emotion
    adjective = phrases.EMOTION_ADJECTIVES[emotion]
    calms_down = scene.fades and emotion != "neutral"
    end = "calms down" if calms_down else f"stays {adjective}"
    key = choose(rng, ("hard_end", "hard_hair", "hard_yes"))
    if key == "hard_end":
        glasses = "glasses" if person.glasses else "no glasses"
        accessories = phrases.join_phrases([glasses, phrases.describe_headwear(person)])
        return _build_turn(rng, "hard_qa", key, f"The person wears {accessories}, and the expression {end}.")
    if key == "hard_hair":
        last = "calm" if calms_down else adjective
        answer = f"The face has {phrases.describe_hair(person)} and is neutral first and {last} last."
        return _build_turn(rng, "hard_qa", key, answer)
    feature = choose(rng, _list_features(scene))
    candidate = emotion
    if rng.random() < 0.5:
        # never neutral: a face that calms down is almost neutral at the end, so neither answer is right
        candidate = choose(rng, [other for other in EMOTIONS if other not in (emotion, "neutral")])
    verdict = "Yes" if candidate == emotion and not calms_down else "No"
    feels = phrases.EMOTION_ADJECTIVES[candidate]
    return _build_turn(rng, "hard_qa", key, f"{verdict}, the face {end}.", look=feature, feels=feels)


def _build_small_face(scene: Scene, rng: np.random.Generator) -> Turn:
    """Build a question about the action and the face of a person whose whole body is visible."""
    person, action = scene.identity, describe_action(scene)
    if rng.random() < 0.5:
        accessories = phrases.describe_accessories(person)
        headwear = phrases.describe_headwear(person)
        answer = f"The {person.gender} {action}, with {accessories} on the face and {headwear} on the head."
        return _build_turn(rng, "hard_qa", "hard_small", answer)
    features = [f"{person.skin} skin", phrases.describe_hair(person), *phrases.list_accessories(person)]
    return _build_turn(rng, "hard_qa", "hard_who", f"The face has {phrases.join_phrases(features)}.", does=action)


def _build_comparison(scene: Scene, rng: np.random.Generator) -> Turn:
    """Build a question about two people: which one wears glasses or a hat."""
    left, right = scene.identity, scene.partner
    assert right is not None
    thing = choose(rng, ("glasses", "a hat"))
    wearers = (left.glasses, right.glasses)
    if thing == "a hat":
        wearers = (bool(left.hat), bool(right.hat))
    subjects = {
        (True, True): "Both people wear",
        (True, False): "The left person wears",
        (False, True): "The right person wears",
        (False, False): "Nobody wears",
    }
    return _build_turn(rng, "hard_qa", "hard_pair", f"{subjects[wearers]} {thing}.", thing=thing)


def build_reason(scene: Scene, rng: np.random.Generator) -> Turn:
    """Build a question about an emotion and its visual cues, its vocal cues, or both."""
    face, voice = "", ""
    needs: tuple[str, ...] = ("video", "audio")
    if scene.has_video:
        face = f"the face {choose(rng, phrases.EXPRESSION_PHRASES[scene.face_emotion])}"
    if scene.transcript:
        voice = f"the voice is {phrases.VOICE_ADJECTIVES[scene.voice_emotion]}"
    if face and voice and rng.random() < 0.6:
        kind = "visual and vocal"
        clues = f"{face} and {voice}"
        # the cue that contradicts the emotion comes first
        if scene.shown_by == "voice":
            clues = f"{face}, but {voice}"
        elif scene.shown_by == "face":
            clues = f"{voice}, but {face}"
    else:
        cues: dict[str, str] = {}
        if face and scene.shown_by != "voice":
            cues["visual"] = face
        if voice and scene.shown_by != "face":
            cues["vocal"] = voice
        kind = choose(rng, list(cues))
        clues = cues[kind]
        needs = {"visual": ("video",), "vocal": ("audio",)}[kind]
    question = choose(rng, phrases.QUESTIONS["reason"]).format(clues=kind)
    adjective = phrases.EMOTION_ADJECTIVES[str(scene.emotion)]
    return Turn("reason", question, f"{capitalize(clues)}, so the person feels {adjective}.", needs)
