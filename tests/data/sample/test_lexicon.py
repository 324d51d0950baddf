"""The spoken words: every sentence is made of known words, every word of known sounds, no two alike."""

import numpy as np

from omnihuman.data.sample.lexicon import LEXICON, VOWELS, sentence, spell
from omnihuman.data.sample.voice import CONSONANTS


def test_words_are_spelled_differently_and_in_known_sounds() -> None:
    assert len(set(LEXICON.values())) == len(LEXICON)
    assert {sound for word in LEXICON.values() for sound in word.split()} <= set(VOWELS) | set(CONSONANTS)


def test_sentences_have_three_to_five_known_words() -> None:
    rng = np.random.default_rng(0)
    lengths = set()
    for _ in range(200):
        words = sentence(rng)
        lengths.add(len(words))
        assert set(words) <= set(LEXICON)
    assert lengths == {3, 4, 5}


def test_a_pause_stands_between_words() -> None:
    assert [sound for _, sound, _ in spell(("we", "go"))] == ["w", "i", "", "g", "ou"]
