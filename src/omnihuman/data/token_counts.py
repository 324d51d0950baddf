"""Numbers of tokens of many texts, with each distinct word encoded once."""

import json
import os
import re
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from typing import Any

TEXTS_AT_ONCE, MAX_THREADS = 512, 8
"""Texts whose tokens a thread counts at once, in Rust beside the interpreter, and such threads."""

MAX_WORDS = 2**18
"""Words whose numbers of tokens are remembered."""

WORD_END = re.compile(r" (?<=[!-~] )(?=[!-~])")
"""A single space between two visible characters of ASCII, where all patterns of ``PATTERNS`` begin a part."""

PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|DIGITS| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
PATTERNS = tuple(PATTERN.replace("DIGITS", digits) for digits in (r"\p{N}", r"\p{N}{1,3}"))
"""Patterns of Qwen2 (with Qwen2.5, and the nano size) and of Llama 3, by which a text is split before its parts are
encoded. A part has a space in its first place alone, or is nothing but white space; and no pattern looks back. So a
text splits at ``WORD_END`` into texts whose tokens add up to its own."""


def encode_text(tokenizer: Any, text: str) -> list[int]:
    """Return the ids of a text, without special tokens around it.

    A tokenizer in Rust is called itself: what transformers does around it takes half of the time of a short text.
    """
    backend = _find_backend(tokenizer)
    if backend is None:
        return list(tokenizer.encode(text, add_special_tokens=False))
    return list(backend.encode(text, add_special_tokens=False).ids)


class TokenCounter:
    """Counts the tokens of texts, without special tokens around them.

    Args:
        tokenizer: where it splits texts between words (``PATTERNS``), words are counted once, and summed.
    """

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        self.adds_up = adds_up(_find_backend(tokenizer))
        self._firsts: dict[str, int] = {}
        self._inner: dict[str, int] = {}

    def count(self, texts: Iterable[str]) -> dict[str, int]:
        """Return the number of tokens of each text, many at once."""
        distinct = [text for text in dict.fromkeys(texts) if text]
        if not self.adds_up:
            return {"": 0, **dict(zip(distinct, self._count_each(distinct), strict=True))}
        words = [split_words(text) for text in distinct]
        self._learn(self._firsts, (parts[0] for parts in words), "")
        self._learn(self._inner, chain.from_iterable(parts[1:] for parts in words), " ")
        counts = {"": 0}
        count_inner = self._inner.__getitem__
        for text, (first, *rest) in zip(distinct, words, strict=True):
            counts[text] = self._firsts[first] + sum(map(count_inner, rest))
        return counts

    def _learn(self, counts: dict[str, int], words: Iterable[str], before: str) -> None:
        """Count the new ones of some words.

        Args:
            counts: of the words so far.
            words: of all texts.
            before: in front of each.
        """
        distinct = set(words)
        if len(counts) >= MAX_WORDS:
            counts.clear()
        new = list(distinct.difference(counts))
        counts.update(zip(new, self._count_each([before + word for word in new]), strict=True))

    def _count_each(self, texts: Sequence[str]) -> list[int]:
        return count_each(self.tokenizer, texts)


def split_words(text: str) -> list[str]:
    r"""Return the parts of a text between the spaces at which it may be split.

    >>> split_words("A man, who  laughs\n loudly")
    ['A', 'man,', 'who  laughs\n loudly']
    """
    is_plain = text.isascii() and text.isprintable() and "  " not in text and text[0] != " " and text[-1] != " "
    return text.split(" ") if is_plain else WORD_END.split(text)


def adds_up(backend: Any) -> bool:
    """Return true if the tokens of a text are known to be those of its parts between the spaces of ``WORD_END``.

    Args:
        backend: tokenizer in Rust, ``None`` without one.
    """
    if backend is None or backend.pre_tokenizer is None:
        return False
    if backend.normalizer is not None and json.loads(backend.normalizer.__getstate__())["type"] != "NFC":
        return False
    for token in backend.get_added_tokens_decoder().values():
        if token.lstrip or token.rstrip or token.single_word or " " in token.content:
            return False
    split, *rest = json.loads(backend.pre_tokenizer.__getstate__()).get("pretokenizers", [{}])
    is_known = split.get("pattern", {}).get("Regex") in PATTERNS and split["behavior"] == "Isolated"
    is_plain = is_known and not split["invert"]
    return is_plain and [(part["type"], part.get("add_prefix_space")) for part in rest] == [("ByteLevel", False)]


def count_each(tokenizer: Any, texts: Sequence[str]) -> list[int]:
    """Return the number of ids of each text, without special tokens around it."""
    backend = _find_backend(tokenizer)
    if backend is None or len(texts) < TEXTS_AT_ONCE:
        return [len(encode_text(tokenizer, text)) for text in texts]

    def count(start: int) -> list[int]:
        encodings = backend.encode_batch_fast(texts[start : start + TEXTS_AT_ONCE], add_special_tokens=False)
        return [len(encoding) for encoding in encodings]

    with ThreadPoolExecutor(min(MAX_THREADS, os.cpu_count() or 1)) as pool:
        return list(chain.from_iterable(pool.map(count, range(0, len(texts), TEXTS_AT_ONCE))))


def _find_backend(tokenizer: Any) -> Any:
    """Return the tokenizer in Rust; ``None`` without one, and for one that would cut or fill: ``encode`` does not."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    is_plain = backend is not None and backend.truncation is None and backend.padding is None
    return backend if is_plain else None
