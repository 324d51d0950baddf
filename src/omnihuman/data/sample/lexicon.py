"""The spoken words of the built-in corpus: how each is spelled in sounds, and the sentences they form."""

from __future__ import annotations

import numpy as np

#: word -> its sounds; vowels are the keys of ``VOWELS``, all else consonants
LEXICON: dict[str, str] = {
    "we": "w i", "you": "y u", "they": "z ei", "i": "ai",
    "see": "s i", "want": "w o n t", "like": "l ai k", "make": "m ei k",
    "the": "z e", "dog": "d o g", "car": "k a r", "book": "b u k",
    "water": "w o t e", "tea": "t i", "food": "f u d",
    "go": "g ou", "come": "k a m", "run": "r a n", "stay": "s t ei",
    "home": "h ou m", "here": "h i r", "there": "z ei r",
    "now": "n au", "today": "t u d ei", "tomorrow": "t u m o r ou", "again": "a g e n",
}  # fmt: skip

#: vowel -> (first, second, third formant in Hz) at its start and at its end (glides differ)
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
THINGS = ("the dog", "the car", "the book", "water", "tea", "food")
TIMES = ("now", "today", "tomorrow", "again")


def seconds(sound: str) -> float:
    """One sound; its natural length in seconds at a neutral speed."""
    if sound in VOWELS:
        return 0.17 if len(sound) == 2 else 0.14
    return {"s": 0.1, "f": 0.09, "h": 0.06, "z": 0.07}.get(sound, 0.07)


def spell(words: tuple[str, ...]) -> list[tuple[int, str, float]]:
    """Words; (word index, sound, seconds) for every sound, with ``""`` as the pause between words."""
    sounds: list[tuple[int, str, float]] = []
    for index, word in enumerate(words):
        if index:
            sounds.append((index, "", 0.05))
        sounds += [(index, sound, seconds(sound)) for sound in LEXICON[word].split()]
    return sounds


def sentence(rng: np.random.Generator) -> tuple[str, ...]:
    """A random generator; a small grammatical sentence of three to five words.

    >>> sentence(np.random.default_rng(1))
    ('you', 'run', 'home')
    """
    words = [str(rng.choice(SUBJECTS))]
    if rng.random() < 0.6:
        words += [str(rng.choice(("see", "want", "like", "make"))), *str(rng.choice(THINGS)).split()]
    else:
        words += [str(rng.choice(("go", "come", "run", "stay"))), str(rng.choice(("home", "here", "there")))]
    if rng.random() < 0.5:
        words.append(str(rng.choice(TIMES)))
    return tuple(words)
