import numpy as np
import pytest

from omnihuman.metric.speech import cer, mer, normalize_mandarin, score_speakers, strip_lead_in, tokenize_mixed, wer


def test_wer_is_pooled_over_the_corpus() -> None:
    import jiwer

    references = ["mister quilter is the apostle", "yes", "he said no"]
    answers = ["mister quilter the apostles", "yes yes", "he said no"]
    score = wer(["1", "2", "3"], references, answers, "none", speakers=["a", "a", "b"])
    assert score.numerators[:, 0].tolist() == [2, 1, 0] and score.denominators[:, 0].tolist() == [5, 1, 3]
    assert score.value == pytest.approx(100 * 3 / 9) == pytest.approx(100 * jiwer.wer(references, answers))
    assert not score.higher_is_better and score.clusters == ("a", "a", "b")


def test_an_empty_reference_adds_its_insertions() -> None:
    score = wer(["1", "2"], ["", "a b"], ["um so yes", "a b"], "none")
    assert score.numerators[:, 0].tolist() == [3, 0] and score.value == 150
    assert wer(["1"], ["a b"], [""], "none").value == 100
    assert np.isnan(wer([], [], []).value)


def test_normalizers_differ() -> None:
    def rates(reference: str, answer: str) -> list[float]:
        names = ("whisper_english", "whisper_basic", "qwen2_audio", "none")
        return [round(wer(["1"], [reference], [answer], name).value) for name in names]

    assert rates("Mr. Brown's colour", "mister browns color") == [50, 100, 50, 100]
    assert rates("TWENTY THREE", "23") == [0, 100, 0, 100]
    assert rates("hello world", "Hello, world!") == [0, 0, 0, 100]
    assert rates("five dollars", "$5") == [0, 100, 0, 100]
    with pytest.raises(ValueError, match=r"normalizer=.*\bwhisper_english\b"):
        wer(["1"], ["a"], ["a"], "english")
    with pytest.raises(ValueError, match="zip"):
        wer(["1"], ["a"], [])


def test_cer_spells_numbers_out() -> None:
    assert cer(["1"], ["他今年二十三岁"], ["他今年23岁。"]).value == 0
    assert cer(["1"], ["他今年二十三岁"], ["他今年23岁。"], numbers=False).value == pytest.approx(100 * 3 / 7)
    assert cer(["1"], ["這個 後面"], ["这个，后面！"]).value == 0
    latin = cer(["1"], ["打开WIFI"], ["打开wife"])
    assert latin.numerators.tolist() == [[1]] and latin.denominators.tolist() == [[6]]


@pytest.mark.parametrize(
    ("written", "spoken"),
    [
        ("2023年10月2日", "二零二三年十月二日"),
        ("2,000人和1.5億", "二千人和一点五亿"),
        ("50%", "百分之五十"),
        ("12:30到8:05和9:00", "十二点三十分到八点零五分和九点"),
        ("13800138000", "一三八零零一三八零零零"),
        ("2000-2010", "二千 二千零一十"),
        ("9" * 20, "九" * 20),
        ("100,000,000", "一亿"),
        ("ＷＩＦＩ", "wifi"),
        ("COVID-19在0755-12", "covid 十九在零七五五 十二"),
        ("-5℃", "负五摄氏度"),
    ],
)
def test_numbers_are_spelled_out(written: str, spoken: str) -> None:
    assert normalize_mandarin(written) == spoken


@pytest.mark.parametrize("spaced", ["在 1 9 7 6 年 有 2 3 人 和 5 0 %", "在 1976 年 有 23 人 和 50 %"])
def test_spaces_inside_numbers_are_removed(spaced: str) -> None:
    for other in ("在1976年有23人和50%", "在一九七六年有二十三人和百分之五十"):
        assert cer(["1"], [spaced], [other]).value == 0 == mer(["1"], [spaced], [other]).value
    assert cer(["1"], ["一二三"], ["1 2 3"]).value == 0  # three numbers, not one


def test_mer_splits_latin_words_unless_glued() -> None:
    assert tokenize_mixed("WIFI再 见 5G") == ["wifi", "再", "见", "五", "g"]
    assert tokenize_mixed("WIFI再 见 5G", official_glue=True) == ["WIFI再", "见", "五", "G"]
    glued = mer(["1"], ["打开WIFI再说"], ["打开 WIFI 再说"], official_glue=True)
    assert glued.numerators.tolist() == [[2]] and glued.denominators.tolist() == [[4]]
    assert mer(["1"], ["打开WIFI再说"], ["打开 WIFI 再说"]).value == 0
    assert mer(["1"], ["hello 世界"], ["hallo 世"]).value == pytest.approx(100 * 2 / 3)


@pytest.mark.parametrize(
    ("answer", "transcript"),
    [
        ('The speech says: "hi there."', "hi there."),
        ("The transcription is hello world", "hello world"),
        ("Sure, here is the transcription of the audio:\n“Hi”", "Hi"),
        ('The audio says "yes".', "yes"),
        ("这段语音的内容是：“你好”。", "你好"),
        ("这段语音的内容是“你好”", "你好"),
        ("The original content of this audio is: 'hello there'", "hello there"),
        ("The speaker says, 'hello'.", "hello"),
        ("他用录音机说“你好”就走了", "他用录音机说“你好”就走了"),
        ("he said the speech says: no", "he said the speech says: no"),
        ("The speech says a lot", "The speech says a lot"),
        ("the text is good", "the text is good"),
        ('"Yes" and "no"', '"Yes" and "no"'),
        ("'tis so", "'tis so"),
        ("", ""),
    ],
)
def test_lead_ins_are_stripped_at_the_start_only(answer: str, transcript: str) -> None:
    assert strip_lead_in(answer) == transcript


@pytest.mark.parametrize(
    ("answer", "transcript"),
    [
        ('The woman said "Of course we object! I object, Steve!"', "Of course we object! I object, Steve!"),
        ("The man in the red shirt says: go home", "go home"),
        ("戴眼镜的男子说：“今天的天气怎么样。”", "今天的天气怎么样。"),
        ("男子说他穿什么颜色的衣服", "男子说他穿什么颜色的衣服"),
        ("She said no", "She said no"),
    ],
)
def test_lead_ins_that_name_a_speaker(answer: str, transcript: str) -> None:
    assert strip_lead_in(answer, speaker=True) == transcript
    assert strip_lead_in('The man said "no" and left', speaker=False) == 'The man said "no" and left'


def test_wrong_speakers_are_counted() -> None:
    references, rivals = ["he reads a book", "she sings", "他有书"], ["they run", "it rains now", "我走了"]
    answers = ["he reads a book", "it rains", ""]
    scores = {score.name: score for score in score_speakers(["1", "2", "3"], references, rivals, answers)}
    assert list(scores) == ["wer", "cer", "wer_other", "wrong_speaker"]
    assert scores["wrong_speaker"].value == pytest.approx(100 / 3) and not scores["wrong_speaker"].higher_is_better
    assert scores["wer_other"].numerators[:, 0].tolist() == [4, 1, 1] and scores["wer_other"].higher_is_better
    chinese = score_speakers(["1"], ["他有书"], ["我走了"], ["我走了"])
    assert {score.name: score.value for score in chinese}["cer_other"] == 0


def test_quotes_are_optional() -> None:
    assert strip_lead_in('The speech says: "hi"', quotes=False) == '"hi"'
