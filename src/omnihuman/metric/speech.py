"""Recognised speech against what was said: error rates over words, characters and both."""

import re
import unicodedata
from collections.abc import Callable, Sequence
from functools import cache

import numpy as np

from omnihuman.metric.score import Score

NORMALIZERS = ("whisper_english", "whisper_basic", "qwen2_audio", "none")
QUOTES = {'"': '"', "'": "'", "“": "”", "‘": "’", "「": "」", "『": "』", "«": "»"}
_SOURCE = r"(?:speech|speaker|audio|recording|voice|clip|spoken (?:text|content)|text|content)"
_SCRIPT = r"(?:transcription|transcript)"
_SAYS = r"(?:says|reads|is|goes|states|contains)"
_LEAD_IN = re.compile(
    rf"""\s*(?:(?:sure|ok|okay|certainly|of\ course)\s*[,.!]\s*)?
    (?:here(?:'s|\ is)\s+)?(?:the\s+|a\s+)?
    (?:{_SCRIPT}(?:\s+of\s+(?:the|this)\s+{_SOURCE})?(?:\s*:|\s+(?:is|reads)(?:\s+as\s+follows)?(?:\s*:|(?=\s)))
      |(?:original\s+)?content\s+of\s+(?:the|this)\s+{_SOURCE}\s+is\s*:
      |{_SOURCE}\s+{_SAYS}(?:\s+that)?\s*,?(?=\s*['‘])
      |{_SOURCE}(?:\s+{_SAYS})?(?:\s+that)?(?:\s*:|\s*,?(?=\s*["“]))
      |[^\s:：，。]{{0,10}}(?:语音|音频|录音|转写|识别)[^\s:：，。“"]{{0,10}}(?:[:：]|[是为](?=[“"])))\s*""",
    re.IGNORECASE | re.VERBOSE,
)


_HAN = "㐀-鿿"
_APART = re.compile(rf"(?<!\S)[{_HAN}]\s+[{_HAN}](?!\S)")
"""Two characters with a space between them: a text as FLEURS has it."""


def strip_lead_in(answer: str, quotes: bool = True) -> str:
    """What a model heard, without the words in which it says so.

    Taken off at the beginning only: ``The speech says:`` and its kind (with a colon, or a quotation right after it),
    ``The transcription is`` (with or without a colon), the same with ``Sure, here is`` before it, ``The original
    content of this audio is:``, and ``语音内容是：``.

    Args:
        answer: of the model.
        quotes: take off a pair of quotes around all that is left, too.

    >>> strip_lead_in('The speech says: "the end of the speech"')
    'the end of the speech'
    """
    left = answer[lead.end() :] if (lead := _LEAD_IN.match(answer)) else answer
    left = left.strip()
    closed = left.rstrip(".。") if left[:1] in QUOTES else left
    if quotes and len(closed) > 1 and QUOTES.get(closed[0]) == closed[-1] and '"' not in closed[1:-1]:
        return closed[1:-1].strip()
    return left


def wer(
    ids: Sequence[str],
    references: Sequence[str],
    answers: Sequence[str],
    normalizer: str = "whisper_english",
    speakers: Sequence[str] | None = None,
) -> Score:
    """Word error rate of a corpus in percent: all substitutions, deletions and insertions over all reference words.

    Reference: edits as jiwer counts them; normalisers of Whisper; ``qwen2_audio``: Whisper's English one and then its
    basic one, as that model's script does. ``none`` leaves case and punctuation.

    Args:
        ids: of the utterances.
        references: what was said; one without any word adds its insertions.
        answers: what was heard.
        normalizer: of both: ``whisper_english``, ``whisper_basic``, ``qwen2_audio`` or ``none``.
        speakers: of the utterances, for resampling.

    Raises:
        ValueError: the lists differ in length, or the normaliser is unknown.

    >>> wer(["1", "2"], ["a b c d", "e"], ["a b", "e"]).value
    40.0
    """
    plain = _normalizer(normalizer)
    return _rate(
        "wer", ids, references, answers, lambda text: plain(text).split(), speakers, f"normalizer {normalizer}"
    )


def cer(
    ids: Sequence[str],
    references: Sequence[str],
    answers: Sequence[str],
    numbers: bool = True,
    speakers: Sequence[str] | None = None,
) -> Score:
    """Character error rate of Mandarin in percent, over the corpus; punctuation and spaces are no characters.

    Reference: Qwen2-Audio's script for Chinese (numbers are spelled out, Latin letters count singly).
    Differs from it: traditional characters become simplified ones, capitals small; numbers by cn2an.

    Args:
        ids: of the utterances.
        references: what was said.
        answers: what was heard.
        numbers: spell them out: ``23`` and ``二十三`` are one.
        speakers: of the utterances, for resampling.

    Raises:
        ValueError: the lists differ in length.

    >>> cer(["1"], ["他有二十三个。"], ["他有23個"]).value
    0.0
    """
    note = "simplified characters" + (", numbers spelled out by cn2an" if numbers else "")
    return _rate(
        "cer", ids, references, answers, lambda text: re.findall(r"[^\W_]", mandarin(text, numbers)), speakers, note
    )


def mer(
    ids: Sequence[str],
    references: Sequence[str],
    answers: Sequence[str],
    numbers: bool = True,
    official_glue: bool = False,
    speakers: Sequence[str] | None = None,
) -> Score:
    """Mixed error rate in percent, over the corpus: a Chinese character is a token, and so is a word in Latin letters.

    Reference: WenetSpeech's metric. Differs from its ``character_tokenizer.py``: a word is a token of its own where no
    space follows it; ``official_glue`` keeps it in one with the next character, as that script does.

    Args:
        ids: of the utterances.
        references: what was said.
        answers: what was heard.
        numbers: spell them out.
        official_glue: of a Latin word to what follows it.
        speakers: of the utterances, for resampling.

    Raises:
        ValueError: the lists differ in length.

    >>> mer(["1"], ["WIFI再见"], ["wifi 再见"]).value, round(mer(["1"], ["WIFI再见"], ["wifi 再见"], True, True).value)
    (0.0, 100)
    """
    note = ("numbers spelled out by cn2an, " if numbers else "") + (
        "words glued as by WenetSpeech's script" if official_glue else "words apart from characters"
    )
    return _rate(
        "mer", ids, references, answers, lambda text: mixed_tokens(text, numbers, official_glue), speakers, note
    )


def mixed_tokens(text: str, numbers: bool = True, official_glue: bool = False) -> list[str]:
    """The tokens of ``mer``.

    >>> mixed_tokens("打开WIFI再说，don't"), mixed_tokens("打开WIFI再说", official_glue=True)
    (['打', '开', 'wifi', '再', '说', "don't"], ['打', '开', 'WIFI再', '说'])
    """
    plain = mandarin(text, numbers)
    if official_glue:
        return re.findall(r"[A-Z]*[^\WA-Z_]|[A-Z]+", re.sub(r"[^\w\s]|_", " ", plain.replace("'", "")).upper())
    return re.findall(r"[a-zß-ɏ]+(?:'[a-z]+)*|[^\W_]", plain)


def mandarin(text: str, numbers: bool = True) -> str:
    """A text in simplified characters, narrow letters and lower case; numbers as they are read.

    >>> mandarin("２０２３年，臺灣有1,500人")
    '二零二三年,台湾有一千五百人'
    """
    import cn2an
    import zhconv

    plain = str(zhconv.convert(unicodedata.normalize("NFKC", text), "zh-hans")).lower().replace("’", "'")
    if not numbers:
        return plain
    plain = _together(plain).replace("°c", "摄氏度")
    plain = re.sub(r"(?<=[a-z\d])-(?=\d)", " ", plain)  # from one to another, or a name: no minus sign
    plain = re.sub(r"(?<!\d)([01]?\d|2[0-4]):([0-5]\d)(?![\d:])", _clock, plain)
    plain = re.sub(r"(?<![\d.,])(?:0\d+|1[3-9]\d{9})(?![\d.,]*\d)", _digits, plain)  # telephones, no amounts
    plain = re.sub(r"(?<=\d),(?=\d{3}(?!\d))", "", plain)
    plain = re.sub(r"\d{17,}", _digits, plain)  # more than cn2an can read
    return str(cn2an.transform(plain, "an2cn"))


def _together(text: str) -> str:
    """A text whose numbers stand as they are usually written: no space in them, nor beside a character.

    >>> _together("在 1 9 7 6 年 的 1 2 月"), _together("1976 年"), _together("1 2 3")
    ('在1976年 的12月', '1976年', '1 2 3')
    """
    if _APART.search(text):
        text = re.sub(r"(?<!\S)(\d)\s+(?=\d(?!\S))", r"\1", text)
    return re.sub(rf"(?<=\d)\s+(?=[{_HAN}%])|(?<=[{_HAN}])\s+(?=\d)", "", text)


def _clock(found: re.Match[str]) -> str:
    hour, minute = int(found[1]), found[2]
    return f"{hour}点" + ("" if minute == "00" else f"零{int(minute)}分" if minute[0] == "0" else f"{minute}分")


def _digits(found: re.Match[str]) -> str:
    return found[0].translate(str.maketrans("0123456789", "零一二三四五六七八九"))


def _rate(
    name: str,
    ids: Sequence[str],
    references: Sequence[str],
    answers: Sequence[str],
    tokens: Callable[[str], list[str]],
    speakers: Sequence[str] | None,
    note: str,
) -> Score:
    """Edits over reference tokens."""
    import jiwer

    rows = []
    for _, reference, answer, _ in zip(ids, references, answers, speakers or ids, strict=True):
        said, heard = tokens(reference), tokens(answer)
        counts = jiwer.process_words(" ".join(said), " ".join(heard))
        rows.append((counts.substitutions + counts.deletions + counts.insertions, len(said)))
    table = np.asarray(rows, dtype=np.float64).reshape(len(rows), 2)
    return Score(
        name,
        tuple(ids),
        table[:, :1],
        table[:, 1:],
        higher_is_better=False,
        clusters=None if speakers is None else tuple(speakers),
        note=note,
    )


@cache
def _normalizer(name: str) -> Callable[[str], str]:
    if name not in NORMALIZERS:
        raise ValueError(f"wer: normalizer={name!r}; choose from {', '.join(NORMALIZERS)}.")
    if name == "none":
        return str
    from whisper_normalizer.basic import BasicTextNormalizer
    from whisper_normalizer.english import EnglishTextNormalizer

    english, basic = EnglishTextNormalizer(), BasicTextNormalizer()
    if name == "qwen2_audio":
        return lambda text: str(basic(english(text)))
    return lambda text: str((english if name == "whisper_english" else basic)(text))
