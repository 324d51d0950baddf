"""Speech recognition: word, character and mixed error rates."""

import re
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache

import numpy as np

from omnihuman.metric.chinese import HAN
from omnihuman.metric.score import Score

NORMALIZERS = ("whisper_english", "whisper_basic", "qwen2_audio", "none")
QUOTES = {'"': '"', "'": "'", "“": "”", "‘": "’", "「": "」", "『": "』", "«": "»"}
_SOURCE = r"(?:speech|speaker|audio|recording|voice|clip|spoken (?:text|content)|text|content)"
_SCRIPT = r"(?:transcription|transcript)"
_VERB = r"(?:says|reads|is|goes|states|contains)"
_LEAD_IN = re.compile(
    rf"""\s*(?:(?:sure|ok|okay|certainly|of\ course)\s*[,.!]\s*)?
    (?:here(?:'s|\ is)\s+)?(?:the\s+|a\s+)?
    (?:{_SCRIPT}(?:\s+of\s+(?:the|this)\s+{_SOURCE})?(?:\s*:|\s+(?:is|reads)(?:\s+as\s+follows)?(?:\s*:|(?=\s)))
      |(?:original\s+)?content\s+of\s+(?:the|this)\s+{_SOURCE}\s+is\s*:
      |{_SOURCE}\s+{_VERB}(?:\s+that)?\s*,?(?=\s*['‘])
      |{_SOURCE}(?:\s+{_VERB})?(?:\s+that)?(?:\s*:|\s*,?(?=\s*["“]))
      |[^\s:：，。]{{0,10}}(?:语音|音频|录音|转写|识别)[^\s:：，。“"]{{0,10}}(?:[:：]|[是为](?=[“"])))\s*""",
    re.IGNORECASE | re.VERBOSE,
)

_SPEAKER_LEAD_IN = re.compile(
    r"""[^"“「『:：.。!?！？]{1,80}?
    (?:\b(?:said|says|saying|speaks)\b|说的?(?:是|内容是)?|说道|讲)\s*(?:[:：]|[,，]?\s*(?=["“「『]))\s*""",
    re.IGNORECASE | re.VERBOSE,
)
"""``The woman said "..."``, the form of HumanOmni's answers to a question about one speaker."""

_SPACED = re.compile(rf"(?<!\S)[{HAN}]\s+[{HAN}](?!\S)")
"""Two characters separated by a space, as in the transcripts of FLEURS."""


def strip_lead_in(answer: str, quotes: bool = True, speaker: bool = False) -> str:
    """Strip a lead-in from a transcript.

    Lead-ins are stripped at the start only: ``The speech says:`` and similar (with a colon, or a quotation right after
    it), ``The transcription is`` (with or without a colon), the same with ``Sure, here is`` before it, ``The original
    content of this audio is:``, and ``语音内容是：``.

    Args:
        answer: of the model.
        quotes: also strip a pair of quotes around the rest.
        speaker: also strip ``The woman in red said`` before a colon or a quotation.

    >>> strip_lead_in('The speech says: "the end of the speech"'), strip_lead_in('The man says "go"', speaker=True)
    ('the end of the speech', 'go')
    """
    lead_in = _LEAD_IN.match(answer) or (_SPEAKER_LEAD_IN.match(answer) if speaker else None)
    text = answer[lead_in.end() :] if lead_in else answer
    text = text.strip()
    if not quotes:
        return text
    quoted = text.rstrip(".。") if text[:1] in QUOTES else text
    if len(quoted) > 1 and QUOTES.get(quoted[0]) == quoted[-1] and '"' not in quoted[1:-1]:
        return quoted[1:-1].strip()
    return text


def wer(
    ids: Sequence[str],
    references: Sequence[str],
    answers: Sequence[str],
    normalizer: str = "whisper_english",
    speakers: Sequence[str] | None = None,
) -> Score:
    """Compute the word error rate of a corpus in percent: substitutions, deletions and insertions per reference word.

    Reference: edits as jiwer counts them; normalizers of Whisper; ``qwen2_audio``: Whisper's English one and then its
    basic one, as that model's script does. ``none`` keeps case and punctuation.

    Args:
        ids: of the utterances.
        references: reference transcripts; one without words adds its insertions.
        answers: predicted transcripts.
        normalizer: of both: ``whisper_english``, ``whisper_basic``, ``qwen2_audio`` or ``none``.
        speakers: of the utterances, for resampling.

    Raises:
        ValueError: the lists differ in length, or the normalizer is unknown.

    >>> wer(["1", "2"], ["a b c d", "e"], ["a b", "e"]).value
    40.0
    """
    normalize = _build_normalizer(normalizer)

    def tokenize(text: str) -> list[str]:
        return normalize(text).split()

    return _error_rate("wer", ids, references, answers, tokenize, speakers, f"normalizer {normalizer}")


def cer(
    ids: Sequence[str],
    references: Sequence[str],
    answers: Sequence[str],
    numbers: bool = True,
    speakers: Sequence[str] | None = None,
) -> Score:
    """Compute the character error rate of a Mandarin corpus in percent, without punctuation and spaces.

    Reference: Qwen2-Audio's script for Chinese (numbers are spelled out, each Latin letter is a character).
    Differs from it: traditional characters become simplified ones, capitals lower case; numbers by cn2an.

    Args:
        ids: of the utterances.
        references: reference transcripts.
        answers: predicted transcripts.
        numbers: spell them out, so that ``23`` and ``二十三`` are equal.
        speakers: of the utterances, for resampling.

    Raises:
        ValueError: the lists differ in length.

    >>> cer(["1"], ["他有二十三个。"], ["他有23個"]).value
    0.0
    """

    def tokenize(text: str) -> list[str]:
        return re.findall(r"[^\W_]", normalize_mandarin(text, numbers))

    note = "simplified characters"
    if numbers:
        note += ", numbers spelled out by cn2an"
    return _error_rate("cer", ids, references, answers, tokenize, speakers, note)


def mer(
    ids: Sequence[str],
    references: Sequence[str],
    answers: Sequence[str],
    numbers: bool = True,
    official_glue: bool = False,
    speakers: Sequence[str] | None = None,
) -> Score:
    """Compute the mixed error rate of a corpus in percent: tokens are Chinese characters and Latin words.

    Reference: WenetSpeech's metric. Differs from its ``character_tokenizer.py``: a Latin word is a token of its own
    even if no space follows it; ``official_glue`` joins it with the next character, as that script does.

    Args:
        ids: of the utterances.
        references: reference transcripts.
        answers: predicted transcripts.
        numbers: spell them out.
        official_glue: join a Latin word with the character after it.
        speakers: of the utterances, for resampling.

    Raises:
        ValueError: the lists differ in length.

    >>> mer(["1"], ["WIFI再见"], ["wifi 再见"]).value, round(mer(["1"], ["WIFI再见"], ["wifi 再见"], True, True).value)
    (0.0, 100)
    """

    def tokenize(text: str) -> list[str]:
        return tokenize_mixed(text, numbers, official_glue)

    note = "words glued as by WenetSpeech's script" if official_glue else "words apart from characters"
    if numbers:
        note = f"numbers spelled out by cn2an, {note}"
    return _error_rate("mer", ids, references, answers, tokenize, speakers, note)


def score_transcripts(ids: Sequence[str], references: Sequence[str], answers: Sequence[str]) -> list[Score]:
    """Compute WER and CER, the CER first where most letters of the references are Chinese.

    >>> [score.name for score in score_transcripts(["1"], ["他有书。"], ["他有书"])]
    ['cer', 'wer']
    """
    letters = re.findall(r"[^\W\d_]", "".join(references))
    num_chinese = sum(bool(re.match(f"[{HAN}]", letter)) for letter in letters)
    is_chinese = 2 * num_chinese > len(letters)
    scores = [wer(ids, references, answers), cer(ids, references, answers, numbers=is_chinese)]
    return scores[::-1] if is_chinese else scores


def score_speakers(
    ids: Sequence[str], references: Sequence[str], rivals: Sequence[str], answers: Sequence[str]
) -> list[Score]:
    """Compute the error rates of transcripts of one of two speakers, and what shows that the other one was transcribed.

    The scores of ``score_transcripts`` come first; ``wer_other`` (or ``cer_other``) is the first of them against the
    words of the other speaker, ``wrong_speaker`` the percentage of answers whose error rate is lower there.

    Args:
        ids: of the questions.
        references: transcripts of the speakers that are asked for.
        rivals: transcripts of the other speakers.
        answers: predicted transcripts.

    >>> scores = score_speakers(["1", "2"], ["a b", "c d"], ["e f", "g h"], ["a b", "g h"])
    >>> {score.name: score.value for score in scores}
    {'wer': 50.0, 'cer': 50.0, 'wer_other': 50.0, 'wrong_speaker': 50.0}
    """
    scores = score_transcripts(ids, references, answers)
    other = wer(ids, rivals, answers) if scores[0].name == "wer" else cer(ids, rivals, answers)
    rates = [score.numerators[:, 0] / np.maximum(score.denominators[:, 0], 1) for score in (scores[0], other)]
    is_wrong = (rates[1] < rates[0]).astype(float).tolist()
    return [
        *scores,
        replace(other, name=f"{other.name}_other", higher_is_better=True),
        Score.mean("wrong_speaker", ids, is_wrong, higher_is_better=False),
    ]


def tokenize_mixed(text: str, numbers: bool = True, official_glue: bool = False) -> list[str]:
    """Split a text into the tokens of ``mer``.

    >>> tokenize_mixed("打开WIFI再说，don't"), tokenize_mixed("打开WIFI再说", official_glue=True)
    (['打', '开', 'wifi', '再', '说', "don't"], ['打', '开', 'WIFI再', '说'])
    """
    plain = normalize_mandarin(text, numbers)
    if official_glue:
        return re.findall(r"[A-Z]*[^\WA-Z_]|[A-Z]+", re.sub(r"[^\w\s]|_", " ", plain.replace("'", "")).upper())
    return re.findall(r"[a-zß-ɏ]+(?:'[a-z]+)*|[^\W_]", plain)


def normalize_mandarin(text: str, numbers: bool = True) -> str:
    """Normalize a text to simplified characters, half-width letters, lower case and (if set) spelled-out numbers.

    >>> normalize_mandarin("２０２３年，臺灣有1,500人")
    '二零二三年,台湾有一千五百人'
    """
    import cn2an
    import zhconv

    plain = str(zhconv.convert(unicodedata.normalize("NFKC", text), "zh-hans")).lower().replace("’", "'")
    if not numbers:
        return plain
    plain = _join_digits(plain).replace("°c", "摄氏度")
    plain = re.sub(r"(?<=[a-z\d])-(?=\d)", " ", plain)  # a range or a name, not a minus sign
    plain = re.sub(r"(?<!\d)([01]?\d|2[0-4]):([0-5]\d)(?![\d:])", _spell_clock_time, plain)
    plain = re.sub(r"(?<![\d.,])(?:0\d+|1[3-9]\d{9})(?![\d.,]*\d)", _spell_digits, plain)  # telephone numbers
    plain = re.sub(r"(?<=\d),(?=\d{3}(?!\d))", "", plain)
    plain = re.sub(r"\d{17,}", _spell_digits, plain)  # beyond the range of cn2an
    return str(cn2an.transform(plain, "an2cn"))


def _join_digits(text: str) -> str:
    """Remove the spaces inside a number and between a number and a Chinese character.

    >>> _join_digits("在 1 9 7 6 年 的 1 2 月"), _join_digits("1976 年"), _join_digits("1 2 3")
    ('在1976年 的12月', '1976年', '1 2 3')
    """
    if _SPACED.search(text):
        text = re.sub(r"(?<!\S)(\d)\s+(?=\d(?!\S))", r"\1", text)
    return re.sub(rf"(?<=\d)\s+(?=[{HAN}%])|(?<=[{HAN}])\s+(?=\d)", "", text)


def _spell_clock_time(match: re.Match[str]) -> str:
    hour, minute = int(match[1]), match[2]
    if minute == "00":
        return f"{hour}点"
    if minute[0] == "0":
        return f"{hour}点零{int(minute)}分"
    return f"{hour}点{minute}分"


def _spell_digits(match: re.Match[str]) -> str:
    return match[0].translate(str.maketrans("0123456789", "零一二三四五六七八九"))


def _error_rate(
    name: str,
    ids: Sequence[str],
    references: Sequence[str],
    answers: Sequence[str],
    tokenize: Callable[[str], list[str]],
    speakers: Sequence[str] | None,
    note: str,
) -> Score:
    """Return the edits per reference token."""
    import jiwer

    rows = []
    for _, reference, answer, _ in zip(ids, references, answers, speakers or ids, strict=True):
        tokens = tokenize(reference)
        counts = jiwer.process_words(" ".join(tokens), " ".join(tokenize(answer)))
        rows.append((counts.substitutions + counts.deletions + counts.insertions, len(tokens)))
    table = np.asarray(rows, dtype=np.float64).reshape(len(rows), 2)
    clusters = None if speakers is None else tuple(speakers)
    return Score(name, tuple(ids), table[:, :1], table[:, 1:], higher_is_better=False, clusters=clusters, note=note)


@cache
def _build_normalizer(name: str) -> Callable[[str], str]:
    if name not in NORMALIZERS:
        raise ValueError(f"wer: normalizer={name!r}; choose from {', '.join(NORMALIZERS)}.")
    if name == "none":
        return str
    from whisper_normalizer.basic import BasicTextNormalizer
    from whisper_normalizer.english import EnglishTextNormalizer

    english, basic = EnglishTextNormalizer(), BasicTextNormalizer()
    if name == "whisper_english":
        return lambda text: str(english(text))
    if name == "whisper_basic":
        return lambda text: str(basic(text))
    return lambda text: str(basic(english(text)))
