"""Spoken words of the built-in corpus: their phonemes, and the sentences that they form."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

#: word -> its phonemes; the keys of ``VOWELS`` are vowels, all others consonants
LEXICON: dict[str, str] = {
    "we": "w i",
    "you": "y u",
    "they": "z ei",
    "i": "ai",
    "see": "s i",
    "want": "w o n t",
    "like": "l ai k",
    "make": "m ei k",
    "the": "z e",
    "dog": "d o g",
    "car": "k a r",
    "book": "b u k",
    "water": "w o t e",
    "tea": "t i",
    "food": "f u d",
    "go": "g ou",
    "come": "k a m",
    "run": "r a n",
    "stay": "s t ei",
    "home": "h ou m",
    "here": "h i r",
    "there": "z ei r",
    "now": "n au",
    "today": "t u d ei",
    "tomorrow": "t u m o r ou",
    "again": "a g e n",
}

#: vowel -> (first, second, third formant in Hz) at its start and at its end; they differ for diphthongs
VOWELS: dict[str, tuple[tuple[int, int, int], tuple[int, int, int]]] = {
    "i": ((290, 2300, 3000), (290, 2300, 3000)),
    "e": ((520, 1750, 2500), (520, 1750, 2500)),
    "a": ((760, 1250, 2450), (760, 1250, 2450)),
    "o": ((560, 880, 2400), (560, 880, 2400)),
    "u": ((320, 820, 2250), (320, 820, 2250)),
    "ai": ((760, 1250, 2450), (330, 2200, 2900)),
    "ei": ((500, 1800, 2500), (300, 2300, 3000)),
    "ou": ((560, 900, 2400), (320, 780, 2250)),
    "au": ((780, 1300, 2450), (330, 800, 2250)),
}

SUBJECTS = ("we", "you", "they", "i")
VERBS = ("see", "want", "like", "make")
OBJECTS = ("the dog", "the car", "the book", "water", "tea", "food")
MOTION_VERBS = ("go", "come", "run", "stay")
PLACES = ("home", "here", "there")
TIMES = ("now", "today", "tomorrow", "again")


class Phoneme(NamedTuple):
    """A phoneme of a sentence: the index of its word, its name (``""`` for a pause) and its length at neutral speed."""

    word: int
    name: str
    seconds: float


def phoneme_seconds(name: str) -> float:
    """Return the natural length of a phoneme in seconds at neutral speed."""
    if name in VOWELS:
        return 0.17 if len(name) == 2 else 0.14
    return {"s": 0.1, "f": 0.09, "h": 0.06}.get(name, 0.07)


def spell_words(words: tuple[str, ...]) -> list[Phoneme]:
    """Spell words as phonemes, with a pause between two words."""
    phonemes: list[Phoneme] = []
    for index, word in enumerate(words):
        if index:
            phonemes.append(Phoneme(index, "", 0.05))
        for name in LEXICON[word].split():
            phonemes.append(Phoneme(index, name, phoneme_seconds(name)))
    return phonemes


def sample_sentence(rng: np.random.Generator) -> tuple[str, ...]:
    """Sample a grammatical sentence of three to five words.

    >>> sample_sentence(np.random.default_rng(1))
    ('you', 'run', 'home')
    """
    words = [str(rng.choice(SUBJECTS))]
    if rng.random() < 0.6:
        words.append(str(rng.choice(VERBS)))
        words += str(rng.choice(OBJECTS)).split()
    else:
        words.append(str(rng.choice(MOTION_VERBS)))
        words.append(str(rng.choice(PLACES)))
    if rng.random() < 0.5:
        words.append(str(rng.choice(TIMES)))
    return tuple(words)
