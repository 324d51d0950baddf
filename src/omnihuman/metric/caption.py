"""Captions against reference captions: CIDEr and ROUGE-L, without Java."""

import re
from collections.abc import Sequence
from functools import cache, lru_cache
from typing import Any

from omnihuman.metric.score import Score

ROUGE_VARIANTS = ("coco", "rouge_score", "rouge_score_stemmed")
DROPPED = frozenset(["''", "'", "``", "`", ".", "?", "!", ",", ":", "-", "--", "...", ";"])
"""Tokens that the COCO evaluation leaves out; it means the brackets too, but they are lower case by then and stay."""

ABBREVIATED = """
    mr mrs ms dr prof st jr sr rev gen sgt lt capt col gov sen rep pres hon messrs mt ft vs etc inc co corp ltd bros
    jan feb mar apr jun jul aug sep sept oct nov dec mon tue wed thu fri ave blvd rd dept univ esq est cf al viz
"""
"""Words whose full stop belongs to them."""

PLAIN = str.maketrans(
    {"’": "'", "‘": "'", "“": '"', "”": '"', "…": "...", "–": " -- ", "—": " -- ", "£": "#", "€": "$", "°": " ° "}
)
APART = (
    (r"\b([a-z]\.[a-z]|etc)\.{2,}(?!\w)", r"\1. ..."),  # dots behind an abbreviation
    (r"(?<!\w)('t)(?=is\b|was\b)", r"\1 "),
    (r"(?<=\w)('s)-(?=\w)", r"\1 "),  # crow's-feet
    (r"(?<=:\d\d)-(?=\d)", " -"),  # 0:05-0:10: the second is a negative number
)
NOTE = "pycocoevalcap, PTB tokens by NLTK"
_STOP = re.compile(r"""(?:(?<=[^\s.])\.|[!?]+)(?:["')\]}]*(?=\s|$)|["')\]}]+(?=[.,;:!?]))""")


def ptb_tokens(text: str) -> list[str]:
    """A text as lower-case Penn Treebank tokens without punctuation, as the COCO caption evaluation cuts it.

    Reference: ``PTBTokenizer`` of pycocoevalcap, which is Stanford's (Java).
    Differs from it: what ends in a full stop is an abbreviation only where a short list or its initials say so; ``!!``,
    ``<``, smileys and ``'n'`` are cut otherwise.

    >>> ptb_tokens("Mr. Lee can't smile... He (finally) says, “No.”")
    ['mr.', 'lee', 'ca', "n't", 'smile', 'he', '-lrb-', 'finally', '-rrb-', 'says', 'no']
    """
    plain = text.translate(PLAIN)
    for pattern, apart in APART:
        plain = re.sub(pattern, apart, plain, flags=re.IGNORECASE)
    cut = (token.lower() for each in sentences(plain) for token in _nltk().tokenize(each, convert_parentheses=True))
    return [token for token in cut if token not in DROPPED]


def sentences(text: str) -> list[str]:
    """A text cut behind its full stops, exclamation and question marks; by rule, without any data.

    >>> sentences("Dr. Lee frowns. Then she smiles.")
    ['Dr. Lee frowns.', 'Then she smiles.']
    """
    found, begin = [], 0
    for stop in _STOP.finditer(text):
        word = re.split(r"[\s\"'(\[{]", text[begin : stop.start()])[-1].lower()
        numbered = word == "no" and re.match(r"\.\s+\d", text[stop.start() :])
        initials = re.fullmatch(r"[a-hj-z]|([a-z]{1,2}\.)+[a-z]", word)
        if stop[0][0] == "." and (word in ABBREVIATED.split() or numbered or initials):
            continue
        found.append(text[begin : stop.end()])
        begin = stop.end()
    return [each.strip() for each in (*found, text[begin:]) if each.strip()]


def cider(ids: Sequence[str], references: Sequence[str | Sequence[str]], candidates: Sequence[str]) -> Score:
    """How much a caption says what its references say, each word group by how rare it is: CIDEr, as papers print it.

    How rare a word group is comes from the references given here: figures of a subset and of the whole set do not
    compare, and a single item scores 0. Resampling items keeps the weights of the whole.
    Reference: pycocoevalcap's ``Cider`` (which is CIDEr-D: sigma 6, times 10).

    Args:
        ids: of the questions.
        references: one caption for each, or several.
        candidates: one for each.

    Raises:
        ValueError: the lists differ in length, or there is nothing to score.

    >>> cider(["1", "2"], ["a man smiles", "a girl cries"], ["a man smiles", ""]).numerators[:, 0].round(2).tolist()
    [7.5, 0.0]
    """
    from pycocoevalcap.cider.cider import Cider

    truths, answers = _cut(ids, references, candidates)
    _, values = Cider().compute_score(truths, answers)
    return Score.mean("cider", ids, [float(value) for value in values], scale=1.0, note=NOTE)


def rouge_l(
    ids: Sequence[str],
    references: Sequence[str | Sequence[str]],
    candidates: Sequence[str],
    variant: str = "coco",
) -> Score:
    """The longest common subsequence of a caption and its references as an F value: ROUGE-L, from 0 to 1.

    Reference: ``coco``: pycocoevalcap's ``Rouge`` (recall counts 1.2 times, best precision and recall over the
    references); ``rouge_score``: the package of this name (F1, words and digits only), ``_stemmed`` with its stemmer.
    The papers say only "ROUGE-L"; the three differ by hundredths.

    Raises:
        ValueError: the lists differ in length, there is nothing to score, or the variant is unknown.

    >>> round(rouge_l(["1"], ["a man smiles"], ["the man smiles"]).value, 3)
    0.667
    """
    if variant == "coco":
        from pycocoevalcap.rouge.rouge import Rouge

        truths, answers = _cut(ids, references, candidates)
        values = [float(Rouge().calc_score(answers[key], truths[key])) for key in truths]
        return Score.mean("rouge_l", ids, values, scale=1.0, note=NOTE)
    if variant not in ROUGE_VARIANTS:
        raise ValueError(f"rouge_l: variant={variant!r}; choose from {', '.join(ROUGE_VARIANTS)}.")
    from rouge_score.rouge_scorer import RougeScorer

    scorer = RougeScorer(["rougeL"], use_stemmer=variant.endswith("stemmed"))
    rows = zip(ids, references, candidates, strict=True)
    values = [scorer.score_multi(_several(truth), answer)["rougeL"].fmeasure for _, truth, answer in rows]
    return Score.mean("rouge_l", ids, values, scale=1.0, note=f"{variant}: F1, tokens of rouge-score")


def _cut(
    ids: Sequence[str], references: Sequence[str | Sequence[str]], candidates: Sequence[str]
) -> tuple[dict[int, list[str]], dict[int, list[str]]]:
    """References and candidates as the scorers want them: tokens with a space between, by place."""
    rows = list(zip(ids, references, candidates, strict=True))
    if not rows:
        raise ValueError("there is no caption to score.")
    truths = {n: [_tokens(one) for one in _several(truth)] for n, (_, truth, _) in enumerate(rows)}
    return truths, {n: [_tokens(answer)] for n, (_, _, answer) in enumerate(rows)}


def _several(truth: str | Sequence[str]) -> list[str]:
    return [truth] if isinstance(truth, str) else list(truth)


@lru_cache(maxsize=1 << 14)  # CIDEr, ROUGE-L and every floor cut the same references
def _tokens(text: str) -> str:
    return " ".join(ptb_tokens(text))


@cache
def _nltk() -> Any:
    from nltk.tokenize import NLTKWordTokenizer

    return NLTKWordTokenizer()
