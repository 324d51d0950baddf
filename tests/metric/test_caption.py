import json
import random
from pathlib import Path

import pytest

from omnihuman.metric.caption import cider, rouge_l, split_sentences, tokenize_ptb

VALUES = json.loads(Path(__file__).with_name("caption_values.json").read_text())
"""Scores of ``draw_captions(0)``, ``(1)`` ...: by pycocoevalcap 1.2 (cider, coco), the others by rouge-score 0.1.2."""

WORDS = (
    "a the man woman smiles smiling smiled frowns quickly and then looks at camera he she is sad red 3 don't o'clock"
)
PTB = {
    'And/or he is 1/2 way; 3.5 and 1,000 at 10:30 a.m. Then "well-known" - yes - he’s “quoted” ‘single’ ok.': (
        "and/or he is 1/2 way 3.5 and 1,000 at 10:30 a.m. then well-known yes he 's quoted single ok"
    ),
    "Mr. Smith vs. Dr. Jones, etc. He is in the U.S. (e.g. a lot) [x].": (
        "mr. smith vs. dr. jones etc. he is in the u.s. -lrb- e.g. a lot -rrb- -lsb- x -rsb-"
    ),
    "It costs $5.50, £5 and €7, 20% more; he waits... then… goes — away--again.": (
        "it costs $ 5.50 # 5 and $ 7 20 % more he waits then goes away again"
    ),
    "She can't, isn't, cannot, gonna; they're I'd 'tis the boys' hats, James's crow's-feet.": (
        "she ca n't is n't can not gon na they 're i 'd 't is the boys hats james 's crow 's feet"
    ),
    "J. Smith said no. I. He is No. 1. St. Peter. At 45° from 0:05-0:10 etc... He says, \"see.\"; then 'ok'.": (
        "j. smith said no i he is no. 1 st. peter at 45 ° from 0:05 -0:10 etc. he says see then ok"
    ),
    "Write to A.b-c@mail.example.com now. Mr. X@y.de (me@x.org) <foo@bar.com> waves @ her; 5@3, a@b": (
        "write to a.b-c@mail.example.com now mr. x@y.de -lrb- me@x.org -rrb- <foo@bar.com> waves @ her 5@3, a@b"
    ),
    "See http://www.example.com/a/b?c=1&d=2 and https://example.org. Or www.example.com, youtube.com/watch?v=abc.": (
        "see http://www.example.com/a/b?c=1&d=2 and https://example.org or www.example.com youtube.com/watch?v=abc"
    ),
    "@user said #fun things; mailto:me@x.org": "@user said #fun things mailto:me@x.org",
}
"""Text -> tokens of Stanford's tokenizer as pycocoevalcap calls it."""


@pytest.mark.parametrize("text", PTB)
def test_tokens_equal_the_coco_evaluation(text: str) -> None:
    assert " ".join(tokenize_ptb(text)) == PTB[text]


def test_sentences_end_at_full_stops_except_in_abbreviations() -> None:
    assert split_sentences("Dr. Lee nods. Then, at 5 p.m. she stops. No. 3 won") == [
        "Dr. Lee nods.",
        "Then, at 5 p.m. she stops.",
        "No. 3 won",
    ]
    assert split_sentences(' He says "no." Yes! "Why?" ok...') == ['He says "no."', "Yes!", '"Why?"', "ok..."]
    assert split_sentences("") == []


def test_the_names_of_hidden_addresses_do_not_leak() -> None:
    assert not any("hidden" in token for token in tokenize_ptb("ftp://x.org/file.txt, see//a@b -me@x.org- 'a@b'"))


def draw_captions(seed: int) -> tuple[list[list[str]], list[str]]:
    """Return one to three references of each question, and its candidate; a few of them are empty."""
    rng = random.Random(seed)

    def draw(least: int, most: int) -> str:
        return " ".join(rng.choice(WORDS.split()) for _ in range(rng.randint(least, most)))

    references, candidates = [], []
    for _ in range(rng.randint(1, 12)):
        captions = [draw(0 if rng.random() < 0.05 else 1, 14) for _ in range(rng.randint(1, 3))]
        words = [word for word in rng.choice(captions).split() if rng.random() < 0.7]
        candidate = f"{' '.join(words)} {draw(0, 5)}"
        references.append(captions)
        candidates.append("" if rng.random() < 0.08 else candidate)
    return references, candidates


@pytest.mark.parametrize("name", VALUES)
def test_values_equal_those_of_the_libraries(name: str) -> None:
    for seed, expected in enumerate(VALUES[name]):
        references, candidates = draw_captions(seed)
        ids = [str(number) for number in range(len(candidates))]
        score = cider(ids, references, candidates) if name == "cider" else rouge_l(ids, references, candidates, name)
        assert score.numerators[:, 0] == pytest.approx(expected, abs=1e-8), seed


def test_cider_of_equal_captions_is_ten() -> None:
    score = cider(["1", "2"], ["a b c d", "e f g h"], ["A b c d.", "e f g h"])
    assert score.value == pytest.approx(10) and score.scale == 1 and "PTB" in score.note


def test_captions_without_tokens() -> None:
    assert cider(["1", "2"], ["...", "!"], ["", "a man"]).value == 0
    # COCO's ROUGE-L splits an empty text into one empty token
    assert rouge_l(["1", "2"], ["...", "!"], ["", "a man"]).numerators[:, 0].tolist() == [1, 0]
    assert rouge_l(["1"], ["..."], [""], "rouge_score").value == 0


def test_cider_of_one_item_is_zero() -> None:
    assert cider(["1"], ["a man smiles"], ["a man smiles"]).value == 0
    with pytest.raises(ValueError, match="no caption"):
        cider([], [], [])
    with pytest.raises(ValueError, match="zip"):
        cider(["1"], ["a"], [])


def test_rouge_variants_differ() -> None:
    # the longest common subsequence of "the man smiles" and "a man smiles broadly" has two tokens
    precision, recall, beta = 2 / 3, 2 / 4, 1.2
    coco = (1 + beta**2) * precision * recall / (recall + beta**2 * precision)
    assert rouge_l(["1"], ["A man smiles broadly."], ["The man smiles"]).value == pytest.approx(coco)
    plain = rouge_l(["1"], ["A man smiles broadly."], ["The man smiles"], "rouge_score")
    assert plain.value == pytest.approx(2 * precision * recall / (precision + recall)) and "rouge_score" in plain.note
    assert rouge_l(["1"], ["he smiled"], ["he smiles"], "rouge_score").value == pytest.approx(0.5)
    assert rouge_l(["1"], ["he smiled"], ["he smiles"], "rouge_score_stemmed").value == pytest.approx(1)
    assert rouge_l(["1"], ["it isn't"], ["is n't it"]).value != rouge_l(["1"], ["it isn't"], ["is n't"]).value


def test_rouge_uses_the_best_of_several_references() -> None:
    assert rouge_l(["1"], [["no", "he nods"]], ["He nods."]).value == 1
    assert rouge_l(["1"], [["no", "he nods"]], ["He nods."], "rouge_score").value == 1
    assert rouge_l(["1", "2"], ["he nods", "he nods"], ["he nods", ""]).value == 0.5
    with pytest.raises(ValueError, match=r"variant=.*\bcoco\b"):
        rouge_l(["1"], ["a"], ["a"], "bleu")
