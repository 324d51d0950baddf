"""Caption metrics: CIDEr and ROUGE-L against reference captions, without Java."""

import re
from collections.abc import Sequence
from functools import cache, lru_cache
from typing import Any

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

_HIDDEN = re.compile(r"address\d+hidden")
NOTE = "pycocoevalcap, PTB tokens by NLTK"
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
    Reference: pycocoevalcap's ``Cider`` (which is CIDEr-D: sigma 6, times 10).

    Args:
        ids: of the questions.
        references: one caption or several per question.
        candidates: one caption per question.

    Raises:
        ValueError: the lists differ in length, or are empty.

    >>> cider(["1", "2"], ["a man smiles", "a girl cries"], ["a man smiles", ""]).numerators[:, 0].round(2).tolist()
    [7.5, 0.0]
    """
    from pycocoevalcap.cider.cider import Cider

    _, values = Cider().compute_score(*_tokenize_captions(ids, references, candidates))
    return Score.mean("cider", ids, list(map(float, values)), scale=1.0, note=NOTE)


def rouge_l(
    ids: Sequence[str],
    references: Sequence[str | Sequence[str]],
    candidates: Sequence[str],
    variant: str = "coco",
) -> Score:
    """Compute ROUGE-L, the F-measure of the longest common subsequence with the references, from 0 to 1.

    Reference: ``coco``: pycocoevalcap's ``Rouge`` (beta 1.2, best precision and best recall over the references);
    ``rouge_score``: the package of this name (F1, letters and digits only), ``_stemmed`` with its stemmer.
    The papers state only "ROUGE-L"; the three differ by hundredths.

    Raises:
        ValueError: the lists differ in length or are empty, or the variant is unknown.

    >>> round(rouge_l(["1"], ["a man smiles"], ["the man smiles"]).value, 3)
    0.667
    """
    if variant not in ROUGE_VARIANTS:
        raise ValueError(f"rouge_l: variant={variant!r}; choose from {', '.join(ROUGE_VARIANTS)}.")
    if variant == "coco":
        from pycocoevalcap.rouge.rouge import Rouge

        tokenized, answers = _tokenize_captions(ids, references, candidates)
        values = [float(Rouge().calc_score(answers[key], tokenized[key])) for key in tokenized]
        return Score.mean("rouge_l", ids, values, scale=1.0, note=NOTE)
    from rouge_score.rouge_scorer import RougeScorer

    scorer = RougeScorer(["rougeL"], use_stemmer=variant.endswith("stemmed"))
    values = []
    for _, reference, candidate in zip(ids, references, candidates, strict=True):
        values.append(scorer.score_multi(_as_list(reference), candidate)["rougeL"].fmeasure)
    return Score.mean("rouge_l", ids, values, scale=1.0, note=f"{variant}: F1, tokens of rouge-score")


def _tokenize_captions(
    ids: Sequence[str], references: Sequence[str | Sequence[str]], candidates: Sequence[str]
) -> tuple[dict[int, list[str]], dict[int, list[str]]]:
    """Return references and candidates in pycocoevalcap's form: index -> texts of space-separated tokens."""
    if not ids:
        raise ValueError("there is no caption to score; pass at least one.")
    tokenized: dict[int, list[str]] = {}
    answers: dict[int, list[str]] = {}
    for index, (_, reference, candidate) in enumerate(zip(ids, references, candidates, strict=True)):
        tokenized[index] = [_tokenize(caption) for caption in _as_list(reference)]
        answers[index] = [_tokenize(candidate)]
    return tokenized, answers


def _as_list(reference: str | Sequence[str]) -> list[str]:
    return [reference] if isinstance(reference, str) else list(reference)


@lru_cache(maxsize=1 << 14)  # CIDEr, ROUGE-L and every trivial baseline tokenize the same references
def _tokenize(text: str) -> str:
    return " ".join(tokenize_ptb(text))


@cache
def _nltk_tokenizer() -> Any:
    from nltk.tokenize import NLTKWordTokenizer

    return NLTKWordTokenizer()
