import shutil
from itertools import product

import pytest

from omnihuman.metric.caption import cider, rouge_l, split_sentences, tokenize_ptb

REFERENCE = (
    "This video shows a middle-aged man. At the beginning, he (slowly) opens his mouth... Then Dr. Lee, i.e. his "
    'colleague, says "I can\'t stay." and smiles.'
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


@pytest.mark.skipif(shutil.which("java") is None, reason="the reference tokenizer needs Java")
def test_tokens_equal_the_java_tokenizer(monkeypatch: pytest.MonkeyPatch) -> None:
    from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer

    monkeypatch.setenv("LC_ALL", "C.UTF-8")
    subjects = ["Mrs. O'Neil", "the 8-year-old", "J. Smith", "the girls' teacher", "the man in the U.S. flag T-shirt"]
    verbs = ["can't help smiling", 'says "no way"', "mutters “I don’t know…”", "pays $5.50 (or £20)", "smiles at 50%"]
    ends = [".", "!", "...", "?", ".\n", ";", " -"]
    texts = []
    for subject, first, second, end in product(subjects, verbs, verbs, ends):
        texts.append(f"At 5 p.m. {subject} {first}, and {second}{end}")
    step = len(texts) // 5
    captions = [REFERENCE, *PTB, *(" ".join(texts[start::step]) for start in range(step))]
    expected = PTBTokenizer().tokenize({n: [{"caption": text}] for n, text in enumerate(captions)})
    for n, caption in enumerate(captions):
        assert " ".join(tokenize_ptb(caption)) == expected[n][0]


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


def test_cider_equals_pycocoevalcap() -> None:
    from pycocoevalcap.cider.cider import Cider

    references = ["a man smiles at the camera", "a woman frowns and cries", "the boy looks down slowly"]
    answers = ["a man smiles", "the woman cries", ""]
    expected, per_item = Cider().compute_score(
        {n: [text] for n, text in enumerate(references)}, {n: [text] for n, text in enumerate(answers)}
    )
    score = cider(["1", "2", "3"], [f"{t.capitalize()}." for t in references], answers)
    assert score.value == pytest.approx(expected) and score.scale == 1
    assert score.numerators[:, 0] == pytest.approx(per_item)
    assert "PTB" in score.note
    same = cider(["1", "2"], ["a b c d", "e f g h"], ["a b c d", "e f g h"])
    assert same.value == pytest.approx(10)


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
