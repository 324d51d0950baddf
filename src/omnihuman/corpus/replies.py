"""Replies of a language model about clips of the built-in corpus, made of the truth about their scenes."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any
from zlib import crc32

import numpy as np

from omnihuman.corpus import phrases
from omnihuman.corpus.closeup import build_face_qa, build_hard_qa, build_reason, summarize_face
from omnihuman.corpus.conversation import (
    Turn,
    build_body_turns,
    build_face_turns,
    build_interaction_turns,
    caption_audio,
    caption_video,
    sample_turns,
)
from omnihuman.corpus.description import choose, describe_action
from omnihuman.corpus.world import Scene, index_scenes

Reply = dict[str, Any]
Item = Mapping[str, Any]
Answer = Callable[[Scene, Item, np.random.Generator], "Reply | None"]
"""Scene, values of the prompt, generator of the clip -> the reply; ``None`` where the scene has no answer."""

RECORD_ID = re.compile(r"((?:train|val|test)_[a-z]+_\d{3})_\d+_\w+")

FALSE_CLAIMS = (
    "A cat sleeps in the corner.",
    "It snows outside.",
    "A clock hangs on the wall.",
    "A child runs past.",
)
"""Claims that no clip of the corpus supports: a describer makes one of them up, another describer another one."""

EMOTION_NAMES = {"happy": "happy", "sad": "sadness", "angry": "anger"}
"""Emotion -> its name in CelebV-HQ, where it differs."""

FACE_ACTIONS = {"happy": "smile", "sad": "cry", "angry": "frown", "disgust": "make a face"}
HAIR_NAMES = {"black": "black hair", "brown": "brown hair", "blond": "blonde hair", "gray": "gray hair"}
STYLE_NAMES = {"no": "bald", "long": "long hair", "curly": "wavy hair"}
INTENSITIES = {"both": "high", "face": "medium", "voice": "medium", "none": "low"}


def reply(protocol: str, item: Item, seed: int = 0, repeat: int = 0) -> Reply | None:
    """Return the reply to a protocol about the clip of an item.

    Args:
        protocol: its name, one of ``REPLIES``.
        item: values of the prompt, with the ``records`` of the clip, and ``start``, its second in the file.
        seed: of the corpus.
        repeat: another describer, who makes other things up.

    Returns:
        The fields; ``None`` for clips that are not of this corpus, or that have no answer.
    """
    scene = find_scene(item["records"], seed)
    if scene is None:
        return None
    shot, _ = scene.find_shot(float(item.get("start") or 0.0))
    rng = np.random.default_rng((seed, 8, shot.seed, crc32(protocol.encode())))
    return REPLIES[protocol](shot, {**item, "repeat": repeat}, rng)


def find_scene(records: Iterable[str], seed: int = 0) -> Scene | None:
    """Return the scene of the records of a clip, ``None`` if they are not of the corpus of this seed.

    >>> find_scene(['{"id": "train_talk_000_0_emotion", "meta": {"identity": 27}}']).emotion
    'happy'
    """
    for text in records:
        record = json.loads(text)
        match = RECORD_ID.fullmatch(str(record.get("id")))
        scene = match and index_scenes(seed).get(match[1])
        if scene and record.get("meta", {}).get("identity") == scene.identity.index:
            return scene
    return None


def split_sentences(text: str) -> list[str]:
    """Return the sentences of a text.

    >>> split_sentences("He waves. She bows.")
    ['He waves.', 'She bows.']
    """
    return [sentence for sentence in re.split(r"(?<=[.!?])\s+", text.strip()) if sentence]


def list_claims(scene: Scene, rng: np.random.Generator) -> dict[str, list[str]]:
    """Return the statements about a scene: aspect of HumanOmni's branches -> sentences about what is visible."""
    person, emotion = scene.identity, scene.face_emotion
    meeting, *_, place = build_interaction_turns(scene, rng)
    claims: dict[str, list[str]] = {"interaction": [meeting.answer, place.answer]}
    if scene.kind == "pair":
        return claims
    claims["appearance"] = [f"The {person.gender} wears {phrases.join_phrases(phrases.list_clothes(person))}."]
    if not scene.from_behind:
        claims["face"] = [
            f"The face has {phrases.describe_hair(person)}.",
            f"The face has {phrases.describe_accessories(person)}.",
        ]
    if scene.is_portrait:
        claims["emotion"] = [f"The face looks {phrases.EMOTION_ADJECTIVES[emotion]}."]
        claims["expression"] = [f"The face {choose(rng, phrases.EXPRESSION_PHRASES[emotion])}."]
    else:
        claims["action"] = [f"The {person.gender} {describe_action(scene)}."]
        claims["pose"] = [build_body_turns(scene, rng)[2].answer]
    return claims


def _invent(item: Item, rng: np.random.Generator) -> str:
    first = int(rng.integers(len(FALSE_CLAIMS)))
    return FALSE_CLAIMS[(first + item["repeat"]) % len(FALSE_CLAIMS)]


def _reply_brief(scene: Scene, item: Item, rng: np.random.Generator) -> Reply:
    return {"caption": caption_video(scene, rng, 1)}


def _reply_detailed(scene: Scene, item: Item, rng: np.random.Generator) -> Reply:
    sentences = [caption_video(scene, rng, 3)]
    for aspect in list_claims(scene, rng).values():
        sentences += aspect
    return {"caption": " ".join([*dict.fromkeys(sentences), _invent(item, rng)])}


def _reply_consensus(scene: Scene, item: Item, rng: np.random.Generator) -> Reply:
    first, second = split_sentences(item["first_caption"]), split_sentences(item["second_caption"])
    shared = [sentence for sentence in first if sentence in second]
    return {
        "caption": " ".join(shared),
        "evidence": [f"{sentence} | {sentence}" for sentence in shared],
        "only_first": [sentence for sentence in first if sentence not in shared],
        "only_second": [sentence for sentence in second if sentence not in shared],
    }


def _reply_supported(scene: Scene, item: Item, rng: np.random.Generator) -> Reply:
    sentences = split_sentences(item["caption"])
    first, second = split_sentences(item["first_caption"]), split_sentences(item["second_caption"])
    supported = [sentence for sentence in sentences if sentence in first and sentence in second]
    unsupported = [sentence for sentence in sentences if sentence not in supported]
    return {"supported": supported, "unsupported": unsupported, "share": len(supported) / max(1, len(sentences))}


def _reply_branches(scene: Scene, item: Item, rng: np.random.Generator) -> Reply:
    claims = list_claims(scene, rng)
    aspects = ("face", "emotion", "expression", "appearance", "action", "pose", "interaction")
    return {aspect: " ".join(claims.get(aspect, [])) or None for aspect in aspects}


def _pair(turns: Sequence[Turn]) -> Reply:
    return {"pairs": [{"question": turn.question, "answer": turn.answer} for turn in turns]}


def _reply_face_instructions(scene: Scene, item: Item, rng: np.random.Generator) -> Reply:
    return _pair(sample_turns(rng, build_face_turns(scene, rng), 2 if scene.is_portrait else 1))


def _reply_body_instructions(scene: Scene, item: Item, rng: np.random.Generator) -> Reply:
    return _pair(sample_turns(rng, build_body_turns(scene, rng), 1 if scene.is_portrait else 2))


def _reply_interaction_instructions(scene: Scene, item: Item, rng: np.random.Generator) -> Reply:
    return _pair(sample_turns(rng, build_interaction_turns(scene, rng), 1))


def _reply_global(scene: Scene, item: Item, rng: np.random.Generator) -> Reply:
    sentences = [caption_video(scene, rng, 3), f"It is {phrases.PLACE_PHRASES[scene.background]}."]
    return {"description": " ".join([*sentences, _invent(item, rng)])}


def _reply_face(scene: Scene, item: Item, rng: np.random.Generator) -> Reply:
    claims = list_claims(scene, rng)
    sentences = [*claims.get("face", []), *claims.get("expression", [])]
    return {"gender": scene.identity.gender, "age": "adult", "expression": " ".join(sentences)}


def _reply_sound(scene: Scene, item: Item, rng: np.random.Generator) -> Reply | None:
    if not scene.transcript and scene.sound is None:
        return {"caption": "Nothing but noise is heard.", "voice": None, "emotion": None}
    caption = caption_audio(scene)
    if not scene.transcript or scene.partner_transcript:
        return {"caption": caption, "voice": None, "emotion": None}
    emotion = scene.voice_emotion
    return {"caption": caption, "voice": f"The voice is {phrases.VOICE_ADJECTIVES[emotion]}.", "emotion": emotion}


def _reply_consistency(scene: Scene, item: Item, rng: np.random.Generator) -> Reply:
    sentences = []
    for key in ("description", "faces", "sound", "voice"):
        sentences += split_sentences(_strip(item.get(key)))
    return {
        "claims": [sentence for sentence in sentences if sentence not in FALSE_CLAIMS],
        "discarded": [sentence for sentence in sentences if sentence in FALSE_CLAIMS],
    }


def _strip(value: Any) -> str:
    """Return the sentences in a value of a prompt, of faces those about their expressions."""
    text = "" if value in (None, "null") else str(value)
    if text.startswith("["):
        return " ".join(str(face["expression"]) for face in json.loads(text))
    return text


def _reply_reason(scene: Scene, item: Item, rng: np.random.Generator) -> Reply | None:
    if scene.emotion is None:
        return None
    visual, vocal, textual = None, None, None
    if scene.has_video:
        visual = list_claims(scene, rng)["expression"][0]
    if scene.transcript:
        vocal = f"The voice is {phrases.VOICE_ADJECTIVES[scene.voice_emotion]}."
        textual = f"The person says {' '.join(scene.transcript)}."
    return {
        "visual": visual,
        "vocal": vocal,
        "textual": textual,
        "text": build_reason(scene, rng).answer,
        "labels": list(phrases.SYNONYMS[scene.emotion]),
        "intensity": INTENSITIES[scene.shown_by],
    }


def _reply_alignment(scene: Scene, item: Item, rng: np.random.Generator) -> Reply:
    """Score an emotion that only the voice shows with 3 to 6, one that the face shows higher, and another label 0."""
    score = {"both": 10, "none": 8, "face": 7, "voice": int(rng.integers(3, 7))}[scene.shown_by]
    if item["label"] != scene.emotion:
        return {"reason": f"The clip shows {scene.emotion}.", "score": 0}
    return {"reason": f"The clip shows {scene.emotion} by {scene.shown_by}.", "score": score}


def _reply_attributes(scene: Scene, item: Item, rng: np.random.Generator) -> Reply | None:
    if not scene.is_portrait or not scene.has_video:
        return None
    person, emotion = scene.identity, scene.face_emotion
    appearance = ["male"] * (person.gender == "man") + ["no beard"] * (not person.beard)
    appearance += ["eyeglasses"] * person.glasses + ["wearing hat"] * bool(person.hat)
    if person.hair in STYLE_NAMES:
        appearance.append(STYLE_NAMES[person.hair])
    if person.hair != "no" and person.hair_color in HAIR_NAMES:
        appearance.append(HAIR_NAMES[person.hair_color])
    actions = ["talk"] * bool(scene.transcript)
    if emotion in FACE_ACTIONS:
        actions.append(FACE_ACTIONS[emotion])
    return {"appearance": appearance, "actions": actions, "emotions": [EMOTION_NAMES.get(emotion, emotion)]}


def _reply_summary(scene: Scene, item: Item, rng: np.random.Generator) -> Reply | None:
    return {"text": summarize_face(scene, rng)} if scene.is_portrait else None


def _reply_qa(scene: Scene, item: Item, rng: np.random.Generator) -> Reply | None:
    if not scene.is_portrait:
        return None
    return _pair([*build_face_qa(scene, rng, 3), build_hard_qa(scene, rng)])


REPLIES: Mapping[str, Answer] = {
    "brief": _reply_brief,
    "detailed": _reply_detailed,
    "consensus": _reply_consensus,
    "supported": _reply_supported,
    "branches": _reply_branches,
    "face_instructions": _reply_face_instructions,
    "body_instructions": _reply_body_instructions,
    "interaction_instructions": _reply_interaction_instructions,
    "global": _reply_global,
    "face": _reply_face,
    "sound": _reply_sound,
    "consistency": _reply_consistency,
    "reason": _reply_reason,
    "alignment": _reply_alignment,
    "attributes": _reply_attributes,
    "summary": _reply_summary,
    "qa": _reply_qa,
}
"""Protocol of conf/protocol -> its replies."""
