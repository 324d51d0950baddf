"""Descriptions of the scenes of the built-in corpus, as text."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from omnihuman.corpus import phrases
from omnihuman.corpus.world import Identity, Scene

# the order of the draws from a generator is part of the corpus: another order gives other text for the same seed


def choose(rng: np.random.Generator, options: Sequence[str]) -> str:
    """Return one of the options at random."""
    return options[int(rng.integers(len(options)))]


def capitalize(text: str) -> str:
    """Return the text with a capital first letter."""
    return text[0].upper() + text[1:]


def describe_person(
    person: Identity,
    rng: np.random.Generator,
    count: int,
    from_behind: bool = False,
    drop: float = 0.0,
    with_skin: bool = False,
) -> str:
    """Return "a man with ..." with at most ``count`` features in random order, each dropped with a chance."""
    features = [phrases.describe_hair(person)]
    if not from_behind:
        features += phrases.list_accessories(person)
    features += phrases.list_clothes(person)
    if with_skin and not from_behind:
        features.append(f"{person.skin} skin")
    selected = [features[int(i)] for i in rng.permutation(len(features))[:count] if rng.random() >= drop]
    if not selected:
        return f"a {person.gender}"
    return f"a {person.gender} with {phrases.join_phrases(selected)}"


def describe_action(scene: Scene) -> str:
    """Return the action or interaction of the main person of a scene with whole bodies."""
    if scene.action is not None:
        return phrases.ACTION_PHRASES[scene.action][0]
    return phrases.INTERACTION_PHRASES[scene.interaction or ""][0].format(other=name_partner(scene))


def describe_ending(scene: Scene) -> str:
    """Return the end of a facial expression that is not neutral."""
    if scene.fades:
        return "calms down at the end"
    return f"stays {phrases.EMOTION_ADJECTIVES[scene.face_emotion]}"


def name_partner(scene: Scene) -> str:
    """Return "a man" or "a woman" for the partner, ``""`` without one."""
    return f"a {scene.partner.gender}" if scene.partner else ""


def describe_scene(scene: Scene, rng: np.random.Generator, drop: float = 0.05, fine: bool = False) -> dict[str, str]:
    """Describe the ``video`` and the ``audio`` of a scene in words, ``""`` for a missing one.

    The descriptions stand in for media while a language model is pretrained: they answer every question about the
    scene, but each feature of a person and the place are dropped with a chance of ``drop``. ``fine`` adds the skin.

    >>> from omnihuman.corpus.world import build_scenes
    >>> sorted(describe_scene(build_scenes(0)[0], np.random.default_rng(0)))
    ['audio', 'video']
    """
    descriptions = {"video": "", "audio": ""}
    if scene.has_video:
        descriptions["video"] = _describe_video(scene, rng, drop, fine)
    if scene.has_audio:
        descriptions["audio"] = _describe_audio(scene, rng)
    return descriptions


def _describe_video(scene: Scene, rng: np.random.Generator, drop: float, fine: bool) -> str:
    if scene.shots:
        first, second = (_describe_video(shot, rng, drop, fine) for shot in scene.shots)
        return f"first shot , {first}. second shot , {second}"
    person = describe_person(scene.identity, rng, 9, scene.from_behind, drop, fine)
    place: list[str] = []
    if rng.random() >= drop:
        place.append(phrases.PLACE_PHRASES[scene.background])
    if scene.kind == "pair" and scene.partner:
        other = describe_person(scene.partner, rng, 9, drop=drop, with_skin=fine)
        parts = [f"on the left {person} , on the right {other}", "they talk to each other", *place]
    elif scene.is_portrait:
        parts = [person, *place, *_describe_face(scene, rng)]
    else:
        parts = [person, *place, describe_action(scene)]
        if scene.partner:
            parts.append(f"the other is {describe_person(scene.partner, rng, 9, drop=drop, with_skin=fine)}")
        if scene.from_behind:
            parts.append("seen from behind")
    return _join_shuffled(parts, rng)


def _describe_face(scene: Scene, rng: np.random.Generator) -> list[str]:
    """Describe the course of an expression, and its emotion."""
    emotion = scene.face_emotion
    course = f"the face {choose(rng, phrases.EXPRESSION_PHRASES[emotion])}"
    if not scene.is_still and emotion != "neutral":
        course += " , then it calms down" if scene.fades else " , then it stays"
    adjective = phrases.EMOTION_ADJECTIVES[emotion]
    return [course, choose(rng, (f"expression {emotion}", f"looks {adjective}", f"{emotion} face"))]


def _describe_audio(scene: Scene, rng: np.random.Generator) -> str:
    speech = " ".join(scene.transcript)
    speaker = scene.identity.gender
    if scene.sound is not None:
        label = choose(rng, (f"sound of {scene.sound}", f"sound {scene.sound}"))
        parts = [phrases.SOUND_CLAUSES[scene.sound], label]
    elif scene.partner_transcript and scene.partner:
        reply = " ".join(scene.partner_transcript)
        parts = [f"the {speaker} says {speech} , then the {scene.partner.gender} says {reply}"]
    else:
        emotion = scene.voice_emotion
        adjective = phrases.EMOTION_ADJECTIVES[emotion]
        tone = choose(rng, (f"tone {emotion}", f"sounds {adjective}", f"{emotion} voice"))
        parts = [f"a {speaker} says {speech}", f"the voice is {phrases.VOICE_ADJECTIVES[emotion]}", tone]
    return _join_shuffled(parts, rng)


def _join_shuffled(parts: list[str], rng: np.random.Generator) -> str:
    return ". ".join(parts[int(i)] for i in rng.permutation(len(parts)))


def caption_frame(scene: Scene, intensity: float, rng: np.random.Generator) -> str:
    """Caption one frame of a scene for image-text training.

    Below an intensity of the expression (``draw.expression_intensity``) of 0.3 the face counts as neutral.
    """
    scene = scene.find_shot(0.0)[0]
    person = describe_person(scene.identity, rng, 3, scene.from_behind)
    place = phrases.PLACE_PHRASES[scene.background]
    if scene.kind == "pair" and scene.partner:
        return f"{person} and {describe_person(scene.partner, rng, 2)} talk {place}"
    if scene.is_portrait:
        emotion = scene.face_emotion if intensity > 0.3 else "neutral"
        clauses = phrases.EXPRESSION_PHRASES[emotion]
        clause = choose(rng, (clauses[0], clauses[1], f"looks {phrases.EMOTION_ADJECTIVES[emotion]}"))
        if rng.random() < 0.5:
            return f"{person} {clause} {place}"
        return f"{emotion} face of {person} {place}"
    if scene.from_behind:
        place = f"{place} seen from behind"
    return f"{person} {describe_action(scene)} {place}"
