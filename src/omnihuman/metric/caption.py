"""Caption metrics: CIDEr and ROUGE-L against reference captions, without Java."""

import math
import re
from collections import Counter
from collections.abc import Sequence
from functools import cache, lru_cache
from itertools import chain
from typing import Any

from omnihuman.metric.chinese import HAN, separate_characters, to_half_width
from omnihuman.metric.score import Score

ROUGE_VARIANTS = ("coco", "rouge_score", "rouge_score_stemmed")
DROPPED = frozenset(["''", "'", "``", "`", ".", "?", "!", ",", ":", "-", "--", "...", ";"])
"""Tokens that the COCO evaluation drops. Its list has brackets too, but in capitals, so they never match and stay."""

ABBREVIATIONS = [
    "mr",
    "mrs",
    "ms",
    "dr",
    "prof",
    "st",
    "jr",
    "sr",
    "rev",
    "gen",
    "sgt",
    "lt",
    "capt",
    "col",
    "gov",
    "sen",
    "rep",
    "pres",
    "hon",
    "messrs",
    "mt",
    "ft",
    "vs",
    "etc",
    "inc",
    "co",
    "corp",
    "ltd",
    "bros",
    "jan",
    "feb",
    "mar",
    "apr",
    "jun",
    "jul",
    "aug",
    "sep",
    "sept",
    "oct",
    "nov",
    "dec",
    "mon",
    "tue",
    "wed",
    "thu",
    "fri",
    "ave",
    "blvd",
    "rd",
    "dept",
    "univ",
    "esq",
    "est",
    "cf",
    "al",
    "viz",
]
"""Abbreviations whose full stop does not end a sentence."""

PLAIN = str.maketrans(
    {"’": "'", "‘": "'", "“": '"', "”": '"', "…": "...", "–": " -- ", "—": " -- ", "£": "#", "€": "$", "°": " ° "}
)
SEPARATED = (
    (r"\b([a-z]\.[a-z]|etc)\.{2,}(?!\w)", r"\1. ..."),  # dots after an abbreviation
    (r"(?<!\w)('t)(?=is\b|was\b)", r"\1 "),
    (r"(?<=\w)('s)-(?=\w)", r"\1 "),  # crow's-feet
    (r"(?<=:\d\d)-(?=\d)", " -"),  # 0:05-0:10: the second is a negative number
)
"""Patterns and replacements that separate tokens as Stanford's tokenizer does and NLTK's does not."""

_ADDRESS = re.compile(
    r"""https?://[^\s"<>|(){}]+[^\s"<>|.!?(){},-]"""
    r"""|<?(?<![a-z0-9])[a-z0-9][^\s"<>|(){}]*@(?:[^\s"<>|().{}]+\.)*[^\s"<>|().\[\]{}]+>?"""
    r"""|(?<![\w.])(?:www\.(?:[^\s"<>|.!?(){},]+\.)+[a-z]{2,4}|(?:[a-z0-9-]+\.)+(?:com|net|org|edu))/[^\s"<>|()]*[^\s"<>|.!?(){},-]"""
    r"""|(?<!\w)[@#][a-z]\w*""",
    re.IGNORECASE,
)
"""Web and e-mail addresses, @names and #tags, which are one token in Stanford's tokenizer."""

Tokens = tuple[str, ...]

Vectors = list[dict[Tokens, float]]
"""For every order, n-gram -> weight."""

_HIDDEN = re.compile(r"address\d+hidden")
NOTE = "as pycocoevalcap, PTB tokens by NLTK"

MAX_ORDER = 4
"""Longest n-grams of CIDEr."""

LENGTH_SIGMA = 6.0
"""Standard deviation of CIDEr's penalty on the difference of lengths, in bigrams."""

BETA = 1.2
"""Weight of recall against precision in COCO's ROUGE-L."""
_SENTENCE_END = re.compile(r"""(?:(?<=[^\s.])\.|[!?]+)(?:["')\]}]*(?=\s|$)|["')\]}]+(?=[.,;:!?]))""")


def tokenize_ptb(text: str) -> list[str]:
    """Split a text into lower-case Penn Treebank tokens without punctuation, as the COCO caption evaluation does.

    Reference: ``PTBTokenizer`` of pycocoevalcap, which is Stanford's (Java).
    Differs from it: a word with a full stop is an abbreviation only if it is in a short list or has the form of
    initials; ``!!``, ``<``, emoticons and ``'n'`` are split differently.

    >>> tokenize_ptb("Mr. Lee can't smile... He (finally) says, “No.”")
    ['mr.', 'lee', 'ca', "n't", 'smile', 'he', '-lrb-', 'finally', '-rrb-', 'says', 'no']
    """
    plain = text.translate(PLAIN)
    for pattern, replacement in SEPARATED:
        plain = re.sub(pattern, replacement, plain, flags=re.IGNORECASE)
    addresses: dict[str, str] = {}

    def hide(match: re.Match[str]) -> str:
        name = f"address{len(addresses)}hidden"
        addresses[name] = match[0].lower()
        return name

    tokens = []
    for sentence in split_sentences(_ADDRESS.sub(hide, plain)):
        for token in _nltk_tokenizer().tokenize(sentence, convert_parentheses=True):
            if token.lower() not in DROPPED:
                tokens.append(_HIDDEN.sub(lambda match: addresses.get(match[0], match[0]), token.lower()))
    return tokens


def split_sentences(text: str) -> list[str]:
    """Split a text after full stops, exclamation and question marks; by rules, without a trained model.

    >>> split_sentences("Dr. Lee frowns. Then she smiles.")
    ['Dr. Lee frowns.', 'Then she smiles.']
    """
    sentences, start = [], 0
    for end in _SENTENCE_END.finditer(text):
        word = re.split(r"[\s\"'(\[{]", text[start : end.start()])[-1].lower()
        is_number = word == "no" and re.match(r"\.\s+\d", text[end.start() :])  # No. 3
        is_initial = re.fullmatch(r"[a-hj-z]|([a-z]{1,2}\.)+[a-z]", word)
        if end[0][0] == "." and (word in ABBREVIATIONS or is_number or is_initial):
            continue
        sentences.append(text[start : end.end()].strip())
        start = end.end()
    sentences.append(text[start:].strip())
    return [sentence for sentence in sentences if sentence]


def cider(ids: Sequence[str], references: Sequence[str | Sequence[str]], candidates: Sequence[str]) -> Score:
    """Compute CIDEr, the tf-idf weighted n-gram similarity to the reference captions, on the scale of the papers.

    Document frequencies come from the references of this call: scores of a subset and of the full set are not
    comparable, and a single item scores 0. Resampling keeps the document frequencies of the full set.
    Reference: Vedantam et al., CIDEr (2015), section 4; the variant CIDEr-D (clipped counts, a Gaussian penalty on the
    difference of lengths, times 10) as in ``Cider`` of pycocoevalcap 1.2, which counts a length in bigrams.

    Args:
        ids: of the questions.
        references: one caption or several per question.
        candidates: one caption per question.

    Raises:
        ValueError: the lists differ in length, or are empty.

    >>> cider(["1", "2"], ["a man smiles", "a girl cries"], ["a man smiles", ""]).numerators[:, 0].round(2).tolist()
    [7.5, 0.0]
    """
    tokenized = _tokenize_captions(ids, references, candidates)
    return Score.mean("cider", ids, _compute_cider(*tokenized), scale=1.0, note=NOTE)


def rouge_l(
    ids: Sequence[str],
    references: Sequence[str | Sequence[str]],
    candidates: Sequence[str],
    variant: str = "coco",
) -> Score:
    """Compute ROUGE-L, the F-measure of the longest common subsequence with the references, from 0 to 1.

    Reference: Lin, ROUGE (2004), section 3. ``coco``: as ``Rouge`` of pycocoevalcap 1.2 (beta 1.2, best precision and
    best recall over the references); ``rouge_score``: as the package rouge-score 0.1.2 (F1, ASCII letters and digits
    only), ``_stemmed`` with Porter's stemmer for words of more than three letters.
    The papers state only "ROUGE-L"; the three differ by hundredths.

    Raises:
        ValueError: the lists differ in length or are empty, or the variant is unknown.

    >>> round(rouge_l(["1"], ["a man smiles"], ["the man smiles"]).value, 3)
    0.667
    """
    if variant not in ROUGE_VARIANTS:
        raise ValueError(f"rouge_l: variant={variant!r}; choose from {', '.join(ROUGE_VARIANTS)}.")
    if variant == "coco":
        tokenized, answers = _tokenize_captions(ids, references, candidates)
        values = [_rouge_coco(answer, captions) for answer, captions in zip(answers, tokenized, strict=True)]
        return Score.mean("rouge_l", ids, values, scale=1.0, note=NOTE)
    is_stemmed, values = variant.endswith("stemmed"), []
    for _, reference, candidate in zip(ids, references, candidates, strict=True):
        answer = _split_words(candidate, is_stemmed)
        captions = [_split_words(caption, is_stemmed) for caption in _as_list(reference)]
        values.append(max(_rouge_f1(answer, caption) for caption in captions))
    return Score.mean("rouge_l", ids, values, scale=1.0, note=f"{variant}: F1, tokens as rouge-score")


def _tokenize_captions(
    ids: Sequence[str], references: Sequence[str | Sequence[str]], candidates: Sequence[str]
) -> tuple[list[list[Tokens]], list[Tokens]]:
    """Return the tokens of the references of each question, and of its candidate."""
    if not ids:
        raise ValueError("there is no caption to score; pass at least one.")
    tokenized, answers = [], []
    for _, reference, candidate in zip(ids, references, candidates, strict=True):
        tokenized.append([_tokenize(caption) for caption in _as_list(reference)])
        answers.append(_tokenize(candidate))
    return tokenized, answers


def _compute_cider(references: Sequence[Sequence[Tokens]], candidates: Sequence[Tokens]) -> list[float]:
    """Return CIDEr-D of each candidate; document frequencies count the questions whose references have an n-gram."""
    counts = [list(map(_count_ngrams, captions)) for captions in references]
    frequencies = Counter[Tokens]()
    for captions in counts:
        frequencies.update(set(chain.from_iterable(captions)))

    def weigh(ngrams: Counter[Tokens]) -> Vectors:
        vectors: Vectors = [{} for _ in range(MAX_ORDER)]
        for ngram, count in ngrams.items():
            rarity = math.log(len(references)) - math.log(max(1, frequencies[ngram]))
            vectors[len(ngram) - 1][ngram] = count * rarity
        return vectors

    values = list[float]()
    for candidate, captions in zip(candidates, counts, strict=True):
        vectors = weigh(_count_ngrams(candidate))
        num_bigrams = max(0, len(candidate) - 1)
        total = 0.0
        for caption, reference in zip(captions, references[len(values)], strict=True):
            difference = num_bigrams - max(0, len(reference) - 1)
            penalty = math.exp(-(difference**2) / (2 * LENGTH_SIGMA**2))
            total += penalty * sum(map(_cosine, vectors, weigh(caption)))
        values.append(10 * total / MAX_ORDER / len(captions))
    return values


def _count_ngrams(tokens: Tokens) -> Counter[Tokens]:
    ngrams = Counter[Tokens]()
    for order in range(1, MAX_ORDER + 1):
        ngrams.update(tokens[start : start + order] for start in range(len(tokens) - order + 1))
    return ngrams


def _cosine(candidate: dict[Tokens, float], reference: dict[Tokens, float]) -> float:
    """Return the cosine of two vectors, of which the first is clipped to the second; 0 where one of them is zero."""
    norm = math.hypot(*candidate.values()) * math.hypot(*reference.values())
    if not norm:
        return 0.0
    return (
        sum(min(weight, reference.get(ngram, 0.0)) * reference.get(ngram, 0.0) for ngram, weight in candidate.items())
        / norm
    )


def _rouge_coco(candidate: Tokens, references: Sequence[Tokens]) -> float:
    """Return the F-measure of the best precision and the best recall over the references."""
    candidate = candidate or ("",)  # a caption without tokens has one in COCO's evaluation
    precision, recall = 0.0, 0.0
    for reference in references:
        reference = reference or ("",)
        length = _common_length(candidate, reference)
        precision, recall = max(precision, length / len(candidate)), max(recall, length / len(reference))
    if not precision:
        return 0.0
    return (1 + BETA**2) * precision * recall / (recall + BETA**2 * precision)


def _rouge_f1(candidate: Tokens, reference: Tokens) -> float:
    length = _common_length(candidate, reference)
    return 2 * length / max(1, len(candidate) + len(reference))


def _common_length(first: Tokens, second: Tokens) -> int:
    """Return the length of the longest common subsequence."""
    from rapidfuzz.distance import LCSseq

    return int(LCSseq.similarity(first, second))


def _split_words(text: str, is_stemmed: bool) -> Tokens:
    words = re.findall(r"[a-z0-9]+", text.lower())
    if is_stemmed:
        words = [_stemmer().stem(word) if len(word) > 3 else word for word in words]
    return tuple(words)


def _as_list(reference: str | Sequence[str]) -> list[str]:
    return [reference] if isinstance(reference, str) else list(reference)


@lru_cache(maxsize=1 << 14)  # CIDEr, ROUGE-L and every trivial baseline tokenize the same references
def _tokenize(text: str) -> Tokens:
    if re.search(f"[{HAN}]", text):
        text = separate_characters(to_half_width(text).replace("、", " , "))
    # an address may have a space in it
    return tuple(" ".join(tokenize_ptb(text)).split())


@cache
def _stemmer() -> Any:
    from nltk.stem.porter import PorterStemmer

    return PorterStemmer()


@cache
def _nltk_tokenizer() -> Any:
    from nltk.tokenize import NLTKWordTokenizer

    return NLTKWordTokenizer()
