"""Spoken words: sentences consist of known words, words of known phonemes, and no two words are spelled alike."""

import numpy as np

from omnihuman.corpus.lexicon import LEXICON, VOWELS, sample_sentence, spell_words
from omnihuman.corpus.voice import CONSONANTS


def test_words_have_distinct_spellings_of_known_phonemes() -> None:
    assert len(set(LEXICON.values())) == len(LEXICON)
    assert set(" ".join(LEXICON.values()).split()) <= set(VOWELS) | set(CONSONANTS)


def test_sentences_have_three_to_five_known_words() -> None:
    rng = np.random.default_rng(0)
    lengths = set()
    for _ in range(200):
        words = sample_sentence(rng)
        lengths.add(len(words))
        assert set(words) <= set(LEXICON)
    assert lengths == {3, 4, 5}


def test_words_are_separated_by_a_pause() -> None:
    assert [phoneme.name for phoneme in spell_words(("we", "go"))] == ["w", "i", "", "g", "ou"]
