"""Who and what the built-in corpus shows: identities and scenes, sampled from a seed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import cycle, islice

import numpy as np

from omnihuman.data.sample.lexicon import sentence, spell

EMOTIONS = ("happy", "sad", "neutral", "angry", "surprise", "disgust", "fear")
ACTIONS = ("wave", "jump", "clap", "bow", "dance", "walk", "sit", "point")
#: the last two need another person
INTERACTIONS = ("drink", "read", "kick", "umbrella", "phone", "guitar", "box", "hug", "handshake")
WITH_PARTNER = ("hug", "handshake")
SOUNDS = ("dog", "bell", "rain", "engine", "siren", "knocking", "whistle", "clapping", "music")
BACKGROUNDS = ("room", "park", "street", "beach", "stage")
KINDS = ("talk", "act", "interact", "pair", "speech", "sound", "still")

SKINS = ("light", "tan", "dark")
HAIR_STYLES = ("short", "long", "curly", "no")
HAIR_COLORS = ("black", "brown", "blond", "red", "gray")
HAT_COLORS = ("red", "blue", "green", "yellow")
SHIRT_COLORS = ("red", "blue", "green", "yellow", "purple", "white")

#: how much faster or slower than neutral an emotion speaks
RATES = {"happy": 1.15, "sad": 0.72, "neutral": 1.0, "angry": 1.2, "surprise": 0.95, "disgust": 0.8, "fear": 1.35}

#: identities per split, and clips per split and kind
NUM_IDENTITIES = {"train": 48, "val": 14, "test": 28}
NUM_CLIPS = {
    "train": {"talk": 385, "act": 96, "interact": 99, "pair": 40, "speech": 42, "sound": 54, "still": 40},
    "val": {"talk": 84, "act": 8, "interact": 9, "pair": 5, "speech": 5, "sound": 5, "still": 4},
    "test": {"talk": 210, "act": 16, "interact": 18, "pair": 10, "speech": 7, "sound": 9, "still": 10},
}
#: clips of two shots, made after all others and by a generator of their own
NUM_SHOTS = {"train": 60, "val": 24, "test": 24}


@dataclass(frozen=True, slots=True)
class Identity:
    """A person: the looks and the voice that stay the same in all of that person's clips."""

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
    """One clip: who is in it, what is seen, what is heard, and when."""

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
    words: tuple[str, ...]
    partner_words: tuple[str, ...]
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

    def shot(self, t: float) -> tuple[Scene, float]:
        """A time; the shot that is seen then, and the time in it. The scene itself where it is one shot."""
        if not self.shots:
            return self, t
        index = min(int(t / self.shots[0].duration + 1e-6), len(self.shots) - 1)
        return self.shots[index], max(t - index * self.shots[0].duration, 0.0)

    @property
    def is_same_person(self) -> bool:
        """Whether all shots show one person."""
        return all(shot.identity.index == self.identity.index for shot in self.shots)

    @property
    def face_emotion(self) -> str:
        """The emotion that the face shows; ``neutral`` where only the voice tells it."""
        return self.emotion or "neutral" if self.shown_by in ("face", "both") else "neutral"

    @property
    def voice_emotion(self) -> str:
        """The emotion that the voice carries; ``neutral`` where only the face tells it."""
        return self.emotion or "neutral" if self.shown_by in ("voice", "both") else "neutral"

    @property
    def is_portrait(self) -> bool:
        """Whether one face fills the picture (otherwise whole bodies, or two faces, are seen)."""
        return self.action is None and self.interaction is None and self.partner is None

    @property
    def num_frames(self) -> int:
        """How many frames the clip has; 1 for a still, 0 where nothing is seen."""
        return 0 if not self.has_video else 1 if self.is_still else round(self.duration * self.fps)


@lru_cache(maxsize=4)
def identities(seed: int = 0) -> tuple[Identity, ...]:
    """A seed; all people, no two with the same looks, each in one split only.

    >>> len(identities(0)), identities(0)[0].split
    (90, 'train')
    """
    rng = np.random.default_rng((seed, 1))
    people: list[Identity] = []
    seen: set[tuple[object, ...]] = set()
    splits = [split for split, count in NUM_IDENTITIES.items() for _ in range(count)]
    while len(people) < len(splits):
        index = len(people)
        person = _identity(rng, index, splits[index])
        # hair colour alone is told apart badly under a hat, so it does not count as a difference
        looks = (person.gender, person.skin, person.hair, person.glasses, person.beard, person.hat, person.shirt)
        if looks not in seen:
            seen.add(looks)
            people.append(person)
    return tuple(people)


def _identity(rng: np.random.Generator, index: int, split: str) -> Identity:
    gender = "man" if index % 2 == 0 else "woman"
    is_man = gender == "man"
    hair = _choice(
        rng, HAIR_STYLES if is_man else HAIR_STYLES[:3], (0.45, 0.1, 0.25, 0.2) if is_man else (0.2, 0.5, 0.3)
    )
    return Identity(
        index=index,
        split=split,
        gender=gender,
        skin=_choice(rng, SKINS),
        hair=hair,
        hair_color=_choice(rng, HAIR_COLORS),
        glasses=bool(rng.random() < 0.35),
        beard=bool(is_man and rng.random() < 0.4),
        hat=_choice(rng, HAT_COLORS) if rng.random() < 0.35 else None,
        shirt=_choice(rng, SHIRT_COLORS),
        face_width=float(rng.uniform(0.74, 0.86)),
        eye_gap=float(rng.uniform(0.94, 1.08)),
        mouth_drop=float(rng.uniform(-0.03, 0.03)),
        pitch=float(rng.uniform(95, 135) if is_man else rng.uniform(180, 235)),
        timbre=float(rng.uniform(0.95, 1.03) if is_man else rng.uniform(1.12, 1.22)),
    )


def _choice(rng: np.random.Generator, options: tuple[str, ...], weights: tuple[float, ...] | None = None) -> str:
    return str(options[int(rng.choice(len(options), p=weights))])


@lru_cache(maxsize=16)
def _people(seed: int, split: str) -> tuple[Identity, ...]:
    return tuple(person for person in identities(seed) if person.split == split)


def scenes(seed: int = 0) -> list[Scene]:
    """A seed; every scene of the corpus, balanced over emotions, actions, interactions and sounds.

    >>> len(scenes(0))
    1264
    """
    result = []
    for split_index, (split, counts) in enumerate(NUM_CLIPS.items()):
        rng = np.random.default_rng((seed, 2, split_index))
        for kind, count in counts.items():
            people = cycle(rng.permutation(np.array(_people(seed, split), dtype=object)))
            for index, (topic, person) in enumerate(islice(zip(cycle(_topics(kind)), people, strict=False), count)):
                result.append(_scene(rng, f"{split}_{kind}_{index:03d}", kind, person, topic, seed))
    for split_index, (split, count) in enumerate(NUM_SHOTS.items()):
        rng = np.random.default_rng((seed, 5, split_index))
        people = cycle(rng.permutation(np.array(_people(seed, split), dtype=object)))
        for index, (topic, person) in enumerate(islice(zip(cycle(_topics("shots")), people, strict=False), count)):
            result.append(_shots(rng, f"{split}_shots_{index:03d}", person, topic, seed))
    return result


def random_scene(rng: np.random.Generator, split: str = "train", kind: str | None = None, seed: int = 0) -> Scene:
    """A random generator; one more scene of this split's people, alike in kind but not in the corpus.

    >>> random_scene(np.random.default_rng(0), kind="talk").kind
    'talk'
    """
    if kind is None:
        kind = _choice(rng, KINDS, (0.4, 0.14, 0.16, 0.08, 0.08, 0.08, 0.06))
    topics = _topics(kind)
    people = _people(seed, split)
    person = people[int(rng.integers(len(people)))]
    return _scene(rng, f"{split}_{kind}_{int(rng.integers(1 << 40)):010x}", kind, person, _choice(rng, topics), seed)


def _topics(kind: str) -> tuple[str, ...]:
    """A kind; what its clips are about, one after the other, so that a corpus is balanced over them."""
    ways = ("both", "face", "voice")
    # three ways times seven emotions; neutral is neutral in every way
    emotional = tuple(f"{emotion}/{'none' if emotion == 'neutral' else way}" for way in ways for emotion in EMOTIONS)
    if kind in ("talk", "speech"):
        return emotional
    if kind == "still":
        return (*(f"{e}/{'none' if e == 'neutral' else 'face'}" for e in EMOTIONS), *ACTIONS[:4], *INTERACTIONS)
    if kind == "shots":
        return ("same", "other")
    return {"act": ACTIONS, "interact": INTERACTIONS, "pair": ("pair",), "sound": SOUNDS}[kind]


def _scene(rng: np.random.Generator, name: str, kind: str, person: Identity, topic: str, seed: int) -> Scene:
    if kind == "shots":
        return _shots(rng, name, person, topic, seed)
    emotion, _, shown_by = topic.partition("/") if "/" in topic else (None, "", "none")
    if kind == "speech" and shown_by not in ("none", "voice"):
        shown_by = "voice"  # nothing is seen, so the voice tells it
    action = topic if topic in ACTIONS else None
    interaction = topic if topic in INTERACTIONS else None
    words: tuple[str, ...] = ()
    partner_words: tuple[str, ...] = ()
    sound: str | None = None
    has_audio = kind != "still"
    chance = float(rng.random())
    if kind == "sound":
        sound = topic
    elif kind == "pair":
        words, partner_words = _whole(rng), _whole(rng)
    elif kind == "speech" or (kind == "talk" and (shown_by in ("voice", "both") or chance < 0.6)):
        words = sentence(rng)
    elif kind == "talk":
        # the face alone tells it (or there is nothing to tell): another sound, or no sound track at all
        has_audio = chance < 0.85
        sound = _choice(rng, SOUNDS) if has_audio else None
    elif kind in ("act", "interact"):
        has_audio = chance < 0.7
        if has_audio and chance < 0.35:
            words = sentence(rng)
        elif has_audio:
            sound = "clapping" if action == "clap" else "music" if interaction == "guitar" else _choice(rng, SOUNDS)
    partner = _partner(rng, person, seed) if kind == "pair" or interaction in WITH_PARTNER else None
    width, height = ((128, 128), (160, 120), (120, 160))[int(rng.choice(3, p=(0.85, 0.08, 0.07)))]
    voice = (emotion or "neutral") if shown_by in ("voice", "both") else "neutral"
    duration = _duration(rng, words + partner_words, voice)
    return Scene(
        id=name, split=person.split, kind=kind, seed=int(rng.integers(1 << 31)), identity=person, partner=partner,
        emotion=emotion, shown_by=shown_by, action=action, interaction=interaction,
        background=_choice(rng, BACKGROUNDS), words=words, partner_words=partner_words, sound=sound,
        duration=duration, fps=10, width=width, height=height,
        has_video=kind not in ("speech", "sound"), has_audio=has_audio, is_still=kind == "still",
        from_behind=kind == "act" and action not in ("clap", "sit") and bool(rng.random() < 0.15),
        onset=float(rng.uniform(0.15, 0.45)), fades=bool(rng.random() < 0.35),
    )  # fmt: skip


def _shots(rng: np.random.Generator, name: str, person: Identity, topic: str, seed: int) -> Scene:
    """Two silent portraits one after the other: of one person (``same``), or of two who look alike (``other``)."""
    second = person if topic == "same" else double(rng, person, _people(seed, person.split))
    if rng.random() < 0.5:  # clothes tell nothing about who it is
        second = replace(second, shirt=_choice(rng, SHIRT_COLORS))
    else:
        second = replace(second, shirt=person.shirt)
    places, emotions = rng.permutation(len(BACKGROUNDS)), rng.permutation(len(EMOTIONS))
    duration = float(rng.choice((1.5, 2.0)))
    shots: tuple[Scene, ...] = ()
    for number, who in enumerate((person, second)):
        emotion = EMOTIONS[int(emotions[number])]
        topic = f"{emotion}/{'none' if emotion == 'neutral' else 'face'}"
        shot = _scene(rng, f"{name}_{number}", "talk", who, topic, seed)
        first = (*shots, shot)[0]
        shots += (replace(shot, words=(), sound=None, has_audio=False, duration=duration, width=first.width,
                          height=first.height, background=BACKGROUNDS[int(places[number])]),)  # fmt: skip
    return replace(shots[0], id=name, kind="shots", emotion=None, shown_by="none", duration=2 * duration, shots=shots)


def double(rng: np.random.Generator, person: Identity, people: Sequence[Identity]) -> Identity:
    """A random generator, a person and others; somebody of the same gender who looks alike, but not the same."""
    unlike = [(sum(a != b for a, b in zip(_face(person), _face(other), strict=True)), n)
              for n, other in enumerate(people) if other.gender == person.gender]  # fmt: skip
    # one difference may be hidden by a hat or by a strong expression
    nearest = sorted(pair for pair in unlike if pair[0] >= 2)[:4]
    return people[nearest[int(rng.integers(len(nearest)))][1]]


def _face(person: Identity) -> tuple[object, ...]:
    hair = (person.hair, None if person.hair == "no" else person.hair_color)
    return (person.skin, hair, person.glasses, person.beard, person.hat)


def _whole(rng: np.random.Generator) -> tuple[str, ...]:
    """A random generator; a sentence of three words, short enough for two people to speak in one clip."""
    while True:
        words = sentence(rng)
        if len(words) == 3:
            return words


def _partner(rng: np.random.Generator, person: Identity, seed: int) -> Identity:
    """A random generator and a person; somebody of the other gender and the same split."""
    others = [other for other in _people(seed, person.split) if other.gender != person.gender]
    return others[int(rng.integers(len(others)))]


def _duration(rng: np.random.Generator, words: tuple[str, ...], emotion: str) -> float:
    """A random generator and what is said; seconds on the grid of half seconds, between 2 and 4."""
    spoken = sum(length for _, _, length in spell(words)) / RATES[emotion]
    least = max(2.0, np.ceil(2 * (spoken + 0.5)) / 2)
    return float(min(4.0, least + 0.5 * int(rng.integers(3))))
