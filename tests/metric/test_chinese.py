"""Chinese answers: no spaces between words, full-width punctuation and digits."""

import pytest

from omnihuman.metric.answer import fold, says
from omnihuman.metric.caption import cider, rouge_l
from omnihuman.metric.chinese import count_words, to_half_width
from omnihuman.metric.choice import ChoiceAccuracy, parse_choice
from omnihuman.metric.emotion import parse_label
from omnihuman.metric.open_vocabulary import parse_labels
from omnihuman.metric.speech import score_transcripts

LABELS = ("高兴", "难过", "愤怒", "中性")
OPTIONS = ("打开门", "拿起杯子", "坐下")


@pytest.mark.parametrize(
    ("answer", "label"),
    [
        ("高兴", "高兴"),
        ("　高兴。", "高兴"),
        ("她看起来非常高兴！", "高兴"),
        ("他不高兴，而是难过。", "难过"),
        ("他并没有表现出愤怒；情绪是中性的", "中性"),
        ("不太高兴", None),
        ("高兴或难过", None),
        ("<think>他难过吗？</think><answer>高兴。</answer>", "高兴"),
        ("她感到开心。", "高兴"),
    ],
)
def test_labels_are_found_without_spaces_around_them(answer: str, label: str | None) -> None:
    assert parse_label(answer, LABELS, {"高兴": ["开心"]})[0] == label


@pytest.mark.parametrize(
    ("answer", "index"),
    [
        ("Ａ", 0),
        ("B。", 1),
        ("（B）拿起杯子", 1),
        ("C．坐下", 2),
        ("C、坐下", 2),
        ("B：拿起杯子", 1),
        ("答案是B。", 1),
        ("正确答案：（Ｃ）", 2),
        ("选C", 2),
        ("他拿起杯子。", 1),
        ("他没有坐下，打开门了", 0),
        ("Ｄ", None),
        ("BB机", None),
    ],
)
def test_options_have_full_width_letters_and_brackets(answer: str, index: int | None) -> None:
    assert parse_choice(answer, OPTIONS)[0] == index


def test_width_does_not_count() -> None:
    assert fold("ＡＢＣ１２　三。") == "abc12 三" and to_half_width("“是的”，（１）、《a》") == '"是的",(1)、《a》'
    assert says("编号：１２", "12") and not says("编号：１２３", "12")
    metric = ChoiceAccuracy()
    metric.update(["坐下。", "１２"], ["坐下", "12"])
    assert metric.compute() == {"accuracy": 100.0}


def test_lists_of_labels_are_split() -> None:
    assert parse_labels("高兴、惊讶；难过") == ["高兴", "惊讶", "难过"]
    assert parse_labels("情绪：她流露出温和与惊讶，还有点紧张") == ["温和", "惊讶", "紧张"]
    assert parse_labels('["高兴", "平和"]') == ["高兴", "平和"]
    assert parse_labels("一位穿着红色上衣的女士站在门口") == []


def test_captions_are_compared_by_character() -> None:
    references = ["一位男子在微笑。", "女子坐下，看书"]
    answers = ["男子在微笑", "女子坐下、看书。"]
    values = rouge_l(["1", "2"], references, answers).numerators[:, 0].tolist()
    assert values[1] == 1.0 and values[0] == pytest.approx(2.44 * (5 / 7) / (5 / 7 + 1.44))
    scores = cider(["1", "2"], references, answers).numerators[:, 0].tolist()
    assert scores[1] == pytest.approx(10.0) and 0 < scores[0] < 10


def test_transcripts_have_a_character_error_rate() -> None:
    scores = score_transcripts(["1", "2"], ["今天的天气怎么样？", "他有２３个"], ["今天天气怎么样", "他有二十三个。"])
    assert scores[0].name == "cer" and scores[0].value == pytest.approx(100 / 14)
    mixed = score_transcripts(["1", "2"], ["hello there my friend", "你好"], ["hello there my friend", "你好"])
    assert [score.name for score in mixed] == ["wer", "cer"]


def test_words_are_counted() -> None:
    assert count_words("") == 0 and count_words("他说hello world") == 3 and count_words("他今天看起来非常高兴") == 5
