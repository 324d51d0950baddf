"""Identities and scenes of the built-in corpus, sampled from a seed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import cycle, islice
from typing import NamedTuple

import numpy as np

from omnihuman.corpus.lexicon import sample_sentence, spell_words

EMOTIONS = ("happy", "sad", "neutral", "angry", "surprise", "disgust", "fear")
ACTIONS = ("wave", "jump", "clap", "bow", "dance", "walk", "sit", "point")
#: the last two need another person
INTERACTIONS = ("drink", "read", "kick", "umbrella", "phone", "guitar", "box", "hug", "handshake")
WITH_PARTNER = ("hug", "handshake")
SOUNDS = ("dog", "bell", "rain", "engine", "siren", "knocking", "whistle", "clapping", "music")
BACKGROUNDS = ("room", "park", "street", "beach", "stage")
KINDS = ("talk", "act", "interact", "pair", "speech", "sound", "still")
KIND_WEIGHTS = (0.4, 0.14, 0.16, 0.08, 0.08, 0.08, 0.06)

GENDERS = ("man", "woman")
SKINS = ("light", "tan", "dark")
HAIR_STYLES = ("short", "long", "curly", "no")
HAIR_COLORS = ("black", "brown", "blond", "red", "gray")
HAT_COLORS = ("red", "blue", "green", "yellow")
SHIRT_COLORS = ("red", "blue", "green", "yellow", "purple", "white")
#: weights of the hair styles; a woman always has hair
HAIR_WEIGHTS = {"man": (0.45, 0.1, 0.25, 0.2), "woman": (0.2, 0.5, 0.3)}
#: range of the pitch in Hz, and of the factor on the formants
PITCH_RANGES = {"man": (95, 135), "woman": (180, 235)}
TIMBRE_RANGES = {"man": (0.95, 1.03), "woman": (1.12, 1.22)}

#: (width, height) in pixels
FRAME_SIZES = ((128, 128), (160, 120), (120, 160))
#: speed of speech, relative to neutral
SPEECH_RATES = {
    "happy": 1.15,
    "sad": 0.72,
    "neutral": 1.0,
    "angry": 1.2,
    "surprise": 0.95,
    "disgust": 0.8,
    "fear": 1.35,
}

#: identities per split, and clips per split and kind
NUM_IDENTITIES = {"train": 48, "val": 14, "test": 28}
NUM_CLIPS = {
    "train": {"talk": 385, "act": 96, "interact": 99, "pair": 40, "speech": 42, "sound": 54, "still": 40},
    "val": {"talk": 84, "act": 8, "interact": 9, "pair": 5, "speech": 5, "sound": 5, "still": 4},
    "test": {"talk": 210, "act": 16, "interact": 18, "pair": 10, "speech": 7, "sound": 9, "still": 10},
}
#: clips of two shots per split; they follow all other clips and have a generator of their own
NUM_SHOTS = {"train": 60, "val": 24, "test": 24}


@dataclass(frozen=True, slots=True)
class Identity:
    """A person: appearance and voice, constant over all clips of that person."""

    index: int
    split: str
    gender: str
    skin: str
    hair: str
    hair_color: str
    glasses: bool
    beard: bool
    hat: str | None
    shirt: str
    face_width: float
    eye_gap: float
    mouth_drop: float
    pitch: float
    timbre: float


@dataclass(frozen=True, slots=True)
class Scene:
    """One clip: its people, their emotion and action, the audio, and the timing.

    ``shown_by`` names the source of the emotion: ``face``, ``voice``, ``both``, or ``none`` for a neutral clip.
    """

    id: str
    split: str
    kind: str
    seed: int
    identity: Identity
    partner: Identity | None
    emotion: str | None
    shown_by: str
    action: str | None
    interaction: str | None
    background: str
    transcript: tuple[str, ...]
    partner_transcript: tuple[str, ...]
    sound: str | None
    duration: float
    fps: int
    width: int
    height: int
    has_video: bool
    has_audio: bool
    is_still: bool
    from_behind: bool
    onset: float
    fades: bool
    shots: tuple[Scene, ...] = ()

    def find_shot(self, t: float) -> tuple[Scene, float]:
        """Return the shot at a time and the time within it; the scene itself if it is a single shot."""
        if not self.shots:
            return self, t
        index = min(int(t / self.shots[0].duration + 1e-6), len(self.shots) - 1)
        return self.shots[index], max(t - index * self.shots[0].duration, 0.0)

    @property
    def is_same_person(self) -> bool:
        """True if all shots show one person."""
        return all(shot.identity.index == self.identity.index for shot in self.shots)

    @property
    def face_emotion(self) -> str:
        """Emotion of the face; ``neutral`` if only the voice carries the emotion."""
        if self.shown_by in ("face", "both"):
            return self.emotion or "neutral"
        return "neutral"

    @property
    def voice_emotion(self) -> str:
        """Emotion of the voice; ``neutral`` if only the face shows the emotion."""
        return _voice_emotion(self.emotion, self.shown_by)

    @property
    def is_portrait(self) -> bool:
        """True if one face fills the frame; other scenes show whole bodies or two faces."""
        return self.action is None and self.interaction is None and self.partner is None

    @property
    def num_frames(self) -> int:
        """Number of frames; 1 for a still image, 0 without video."""
        if not self.has_video:
            return 0
        return 1 if self.is_still else round(self.duration * self.fps)


class _Audio(NamedTuple):
    """Audio of a scene: speech of one or two people, a sound event, background noise only, or no audio track."""

    transcript: tuple[str, ...] = ()
    partner_transcript: tuple[str, ...] = ()
    sound: str | None = None
    has_audio: bool = True


@lru_cache(maxsize=4)
def build_identities(seed: int = 0) -> tuple[Identity, ...]:
    """Sample all people of the corpus; no two look the same, and each belongs to one split.

    >>> len(build_identities(0)), build_identities(0)[0].split
    (90, 'train')
    """
    rng = np.random.default_rng((seed, 1))
    people: list[Identity] = []
    used_looks: set[tuple[object, ...]] = set()
    splits: list[str] = []
    for split, count in NUM_IDENTITIES.items():
        splits += [split] * count
    while len(people) < len(splits):
        index = len(people)
        person = sample_identity(rng, index, splits[index])
        # a hat hides most of the hair, so a different hair colour alone is not a different look
        looks = (person.gender, person.skin, person.hair, person.glasses, person.beard, person.hat, person.shirt)
        if looks not in used_looks:
            used_looks.add(looks)
            people.append(person)
    return tuple(people)


def sample_identity(rng: np.random.Generator, index: int, split: str) -> Identity:
    """Sample a person; even indices are men.

    The order of the draws is part of the corpus: another order gives other people for the same seed.
    """
    gender = GENDERS[index % 2]
    hair_weights = HAIR_WEIGHTS[gender]
    hair = _choose(rng, HAIR_STYLES[: len(hair_weights)], hair_weights)
    skin = _choose(rng, SKINS)
    hair_color = _choose(rng, HAIR_COLORS)
    glasses = bool(rng.random() < 0.35)
    beard = gender == "man" and bool(rng.random() < 0.4)
    hat = None
    if rng.random() < 0.35:
        hat = _choose(rng, HAT_COLORS)
    return Identity(
        index=index,
        split=split,
        gender=gender,
        skin=skin,
        hair=hair,
        hair_color=hair_color,
        glasses=glasses,
        beard=beard,
        hat=hat,
        shirt=_choose(rng, SHIRT_COLORS),
        face_width=float(rng.uniform(0.74, 0.86)),
        eye_gap=float(rng.uniform(0.94, 1.08)),
        mouth_drop=float(rng.uniform(-0.03, 0.03)),
        pitch=float(rng.uniform(*PITCH_RANGES[gender])),
        timbre=float(rng.uniform(*TIMBRE_RANGES[gender])),
    )


def _choose(rng: np.random.Generator, options: tuple[str, ...], weights: tuple[float, ...] | None = None) -> str:
    return str(options[int(rng.choice(len(options), p=weights))])


@lru_cache(maxsize=16)
def _select_people(seed: int, split: str) -> tuple[Identity, ...]:
    return tuple(person for person in build_identities(seed) if person.split == split)


def build_scenes(seed: int = 0) -> list[Scene]:
    """Sample every scene of the corpus, balanced over emotions, actions, interactions and sound events.

    >>> len(build_scenes(0))
    1264
    """
    scenes: list[Scene] = []
    for split_index, (split, counts) in enumerate(NUM_CLIPS.items()):
        rng = np.random.default_rng((seed, 2, split_index))
        for kind, count in counts.items():
            scenes += _build_clips(rng, split, kind, count, seed)
    for split_index, (split, count) in enumerate(NUM_SHOTS.items()):
        rng = np.random.default_rng((seed, 5, split_index))
        scenes += _build_clips(rng, split, "shots", count, seed)
    return scenes


@lru_cache(maxsize=2)
def index_scenes(seed: int = 0) -> dict[str, Scene]:
    """Return the scenes of the corpus by their ids."""
    return {scene.id: scene for scene in build_scenes(seed)}


def _build_clips(rng: np.random.Generator, split: str, kind: str, count: int, seed: int) -> Iterator[Scene]:
    """Yield ``count`` scenes of one kind, in turn over its topics and over the people of the split."""
    people = cycle(rng.permutation(np.array(_select_people(seed, split), dtype=object)))
    pairs = zip(cycle(_list_topics(kind)), people, strict=False)
    for index, (topic, person) in enumerate(islice(pairs, count)):
        yield _build_scene(rng, f"{split}_{kind}_{index:03d}", kind, person, topic, seed)


def sample_scene(rng: np.random.Generator, split: str = "train", kind: str | None = None, seed: int = 0) -> Scene:
    """Sample a scene that is not in the corpus, with people of the split.

    >>> sample_scene(np.random.default_rng(0), kind="talk").kind
    'talk'
    """
    if kind is None:
        kind = _choose(rng, KINDS, KIND_WEIGHTS)
    people = _select_people(seed, split)
    person = people[int(rng.integers(len(people)))]
    name = f"{split}_{kind}_{int(rng.integers(1 << 40)):010x}"
    return _build_scene(rng, name, kind, person, _choose(rng, _list_topics(kind)), seed)


def _emotion_topic(emotion: str, shown_by: str) -> str:
    """Return ``emotion/shown_by``; neutral has no source."""
    if emotion == "neutral":
        shown_by = "none"
    return f"{emotion}/{shown_by}"


def _list_topics(kind: str) -> tuple[str, ...]:
    """List the topics of a kind; the clips take them in turn, so that the corpus is balanced."""
    if kind in ("talk", "speech"):
        topics: list[str] = []
        for shown_by in ("both", "face", "voice"):
            topics += [_emotion_topic(emotion, shown_by) for emotion in EMOTIONS]
        return tuple(topics)
    if kind == "still":
        faces = [_emotion_topic(emotion, "face") for emotion in EMOTIONS]
        return (*faces, *ACTIONS[:4], *INTERACTIONS)
    if kind == "shots":
        return ("same", "other")
    return {"act": ACTIONS, "interact": INTERACTIONS, "pair": ("pair",), "sound": SOUNDS}[kind]


def _build_scene(rng: np.random.Generator, name: str, kind: str, person: Identity, topic: str, seed: int) -> Scene:
    if kind == "shots":
        return _build_shots(rng, name, person, topic, seed)
    emotion, shown_by = None, "none"
    if "/" in topic:
        emotion, shown_by = topic.split("/")
    if kind == "speech" and shown_by != "none":
        shown_by = "voice"  # a clip without video
    interaction = topic if topic in INTERACTIONS else None
    audio = _sample_audio(rng, kind, topic, shown_by)
    partner = None
    if kind == "pair" or interaction in WITH_PARTNER:
        partner = _sample_partner(rng, person, seed)
    width, height = FRAME_SIZES[int(rng.choice(3, p=(0.85, 0.08, 0.07)))]
    words = audio.transcript + audio.partner_transcript
    duration = _sample_duration(rng, words, _voice_emotion(emotion, shown_by))
    return Scene(
        id=name,
        split=person.split,
        kind=kind,
        seed=int(rng.integers(1 << 31)),
        identity=person,
        partner=partner,
        emotion=emotion,
        shown_by=shown_by,
        action=topic if topic in ACTIONS else None,
        interaction=interaction,
        background=_choose(rng, BACKGROUNDS),
        transcript=audio.transcript,
        partner_transcript=audio.partner_transcript,
        sound=audio.sound,
        duration=duration,
        fps=10,
        width=width,
        height=height,
        has_video=kind not in ("speech", "sound"),
        has_audio=audio.has_audio,
        is_still=kind == "still",
        from_behind=kind == "act" and topic not in ("clap", "sit") and bool(rng.random() < 0.15),
        onset=float(rng.uniform(0.15, 0.45)),
        fades=bool(rng.random() < 0.35),
    )


def _voice_emotion(emotion: str | None, shown_by: str) -> str:
    if shown_by in ("voice", "both"):
        return emotion or "neutral"
    return "neutral"


def _sample_audio(rng: np.random.Generator, kind: str, topic: str, shown_by: str) -> _Audio:
    """Sample the audio of a scene; clips whose emotion is in the voice always have speech."""
    chance = float(rng.random())
    match kind:
        case "still":
            return _Audio(has_audio=False)
        case "sound":
            return _Audio(sound=topic)
        case "pair":
            return _Audio(_sample_short_sentence(rng), _sample_short_sentence(rng))
        case "speech":
            return _Audio(sample_sentence(rng))
    speech_share, audio_share = (0.6, 0.85) if kind == "talk" else (0.35, 0.7)
    if shown_by in ("voice", "both") or chance < speech_share:
        return _Audio(sample_sentence(rng))
    if chance < audio_share:
        return _Audio(sound=_sample_sound(rng, topic))
    return _Audio(has_audio=False)


def _sample_sound(rng: np.random.Generator, topic: str) -> str:
    """Sample a sound event; clapping and guitars come with their own."""
    matching = {"clap": "clapping", "guitar": "music"}
    return matching[topic] if topic in matching else _choose(rng, SOUNDS)


def _build_shots(rng: np.random.Generator, name: str, person: Identity, topic: str, seed: int) -> Scene:
    """Join two silent portraits of one person (topic ``same``) or of two people who look alike (``other``)."""
    second = person
    if topic == "other":
        second = find_lookalike(rng, person, _select_people(seed, person.split))
    # the shirt must not identify the person: half of the clips change it, half repeat it
    shirt = person.shirt
    if rng.random() < 0.5:
        shirt = _choose(rng, SHIRT_COLORS)
    people = (person, replace(second, shirt=shirt))
    backgrounds = rng.permutation(len(BACKGROUNDS))
    emotions = rng.permutation(len(EMOTIONS))
    duration = float(rng.choice((1.5, 2.0)))
    shots: list[Scene] = []
    for number in range(2):
        topic = _emotion_topic(EMOTIONS[int(emotions[number])], "face")
        portrait = _build_scene(rng, f"{name}_{number}", "talk", people[number], topic, seed)
        first = shots[0] if shots else portrait
        shot = replace(
            portrait,
            transcript=(),
            sound=None,
            has_audio=False,
            duration=duration,
            width=first.width,
            height=first.height,
            background=BACKGROUNDS[int(backgrounds[number])],
        )
        shots.append(shot)
    return replace(
        shots[0],
        id=name,
        kind="shots",
        emotion=None,
        shown_by="none",
        duration=2 * duration,
        shots=tuple(shots),
    )


def find_lookalike(rng: np.random.Generator, person: Identity, people: Sequence[Identity]) -> Identity:
    """Sample one of the four people of the same gender with the most similar face, the person excluded."""
    traits = _face_traits(person)
    distances: list[tuple[int, int]] = []
    for index, other in enumerate(people):
        if other.gender != person.gender:
            continue
        differences = [a != b for a, b in zip(traits, _face_traits(other), strict=True)]
        # a hat or a strong expression may hide a single difference
        if sum(differences) >= 2:
            distances.append((sum(differences), index))
    nearest = sorted(distances)[:4]
    return people[nearest[int(rng.integers(len(nearest)))][1]]


def _face_traits(person: Identity) -> tuple[object, ...]:
    hair_color = None if person.hair == "no" else person.hair_color
    return (person.skin, (person.hair, hair_color), person.glasses, person.beard, person.hat)


def _sample_short_sentence(rng: np.random.Generator) -> tuple[str, ...]:
    """Sample a sentence of three words, so that two people fit into one clip."""
    while True:
        words = sample_sentence(rng)
        if len(words) == 3:
            return words


def _sample_partner(rng: np.random.Generator, person: Identity, seed: int) -> Identity:
    """Sample a person of the other gender and the same split."""
    candidates = [other for other in _select_people(seed, person.split) if other.gender != person.gender]
    return candidates[int(rng.integers(len(candidates)))]


def _sample_duration(rng: np.random.Generator, words: tuple[str, ...], emotion: str) -> float:
    """Sample a duration that fits the words: a multiple of half a second, between 2 and 4 seconds."""
    speech_seconds = sum(phoneme.seconds for phoneme in spell_words(words)) / SPEECH_RATES[emotion]
    shortest = max(2.0, np.ceil(2 * (speech_seconds + 0.5)) / 2)
    return float(min(4.0, shortest + 0.5 * int(rng.integers(3))))
