"""Numbers of tokens: those of a text equal the sum over its words, for every tokenizer that is said to split so."""

import random
from typing import Any

import pytest
from tokenizers import AddedToken, Regex, Tokenizer, models, normalizers, pre_tokenizers

from omnihuman.data import token_counts
from omnihuman.data.token_counts import PATTERNS, TEXTS_AT_ONCE, TokenCounter, adds_up, count_each, encode_text

PARTS = [
    "It's",
    "7B",
    "a",
    "é",
    "e\u0301",
    "好",
    "\u3000",
    "!",
    "...",
    "<",
    "<vi_start>",
    "\n",
    "\r\n",
    "\t",
    " ",
    "\x1c",
    "'LL",
]


class Wrapped:
    """A tokenizer in Rust, as transformers holds it."""

    def __init__(self, backend: Tokenizer) -> None:
        self.backend_tokenizer = backend


def build_backend(pattern: str, **options: Any) -> Tokenizer:
    """Return a tokenizer of single bytes with merges that would cross spaces, were they not split there."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges = [("Ġ", "a"), ("a", "Ġ"), ("!", "Ġ"), ("Ġ", "Ġ"), ("l", "a"), ("Ġ", "la"), ("Ċ", "Ċ"), (".", ".")]
    vocabulary = {token: number for number, token in enumerate([*letters, *map("".join, merges)])}
    backend = Tokenizer(models.BPE(vocabulary, merges))
    split = pre_tokenizers.Split(Regex(pattern), "isolated")
    byte_level = pre_tokenizers.ByteLevel(use_regex=False, **{"add_prefix_space": False} | options)
    backend.pre_tokenizer = pre_tokenizers.Sequence([split, byte_level])
    backend.normalizer = normalizers.NFC()
    return backend


def draw_texts(num: int) -> list[str]:
    rng = random.Random(0)
    texts = []
    for _ in range(num):
        parts = rng.choices([*PARTS, "la", "la", "man"], k=rng.randint(1, 12))
        texts.append("".join(part + rng.choice(["", " ", " ", "  "]) for part in parts))
    return texts


@pytest.mark.parametrize("pattern", PATTERNS)
def test_words_add_up(pattern: str) -> None:
    tokenizer = Wrapped(build_backend(pattern))
    counter = TokenCounter(tokenizer)
    assert counter.adds_up
    texts = draw_texts(1000)
    expected = [len(encode_text(tokenizer, text)) for text in texts]
    counts = counter.count([*texts, ""])
    assert [counts[text] for text in texts] == expected and counts[""] == 0


def test_each_word_is_encoded_once(monkeypatch: pytest.MonkeyPatch) -> None:
    encoded = list[str]()
    counter = TokenCounter(Wrapped(build_backend(PATTERNS[0])))

    def count(tokenizer: Any, texts: list[str]) -> list[int]:
        encoded.extend(texts)
        return count_each(tokenizer, texts)

    monkeypatch.setattr(token_counts, "count_each", count)
    counter.count(["a man laughs", "a man cries"])
    counter.count(["a man laughs", "man a"])
    assert sorted(encoded) == [" a", " cries", " laughs", " man", "a", "man"]


def test_few_words_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(token_counts, "MAX_WORDS", 2)
    tokenizer = Wrapped(build_backend(PATTERNS[0]))
    counter = TokenCounter(tokenizer)
    for text in draw_texts(20):
        assert counter.count([text])[text] == len(encode_text(tokenizer, text))


def test_tokenizers_that_do_not_split_between_words() -> None:
    assert not adds_up(None)
    assert not adds_up(build_backend(r"\S+ \S+"))
    assert not adds_up(build_backend(PATTERNS[0], add_prefix_space=True))
    stripping, lower = build_backend(PATTERNS[0]), build_backend(PATTERNS[0])
    stripping.add_special_tokens([AddedToken("<end>", lstrip=True)])
    lower.normalizer = normalizers.Lowercase()
    assert not adds_up(stripping) and not adds_up(lower)
    tokenizer = Wrapped(stripping)
    text = "la  <end> la"
    assert TokenCounter(tokenizer).count([text])[text] == len(encode_text(tokenizer, text))


def test_many_texts_are_counted_as_single_ones(tokenizer: Any) -> None:
    texts = [f"{number} men\n  dance,{' la' * number} 好" for number in range(TEXTS_AT_ONCE + 9)]
    assert count_each(tokenizer, texts) == [len(encode_text(tokenizer, text)) for text in texts]
