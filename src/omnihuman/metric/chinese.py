"""Chinese text: no spaces between its words, and full-width punctuation."""

import re

HAN = "㐀-鿿"
"""Range of the characters, for a class of a regular expression."""

HALF_WIDTH = {code: code - 0xFEE0 for code in range(0xFF01, 0xFF5F)} | dict(
    zip(map(ord, "　。“”‘’「」『』【】〔〕"), ' .""\'\'""""()()', strict=True)
)
"""Code of a full-width character -> its ASCII form."""

_CHARACTER = re.compile(f"[{HAN}]")


def to_half_width(text: str) -> str:
    """Return a text with ASCII punctuation, letters and digits in place of the full-width ones; ``、`` stays.

    >>> to_half_width("（Ａ）高兴，是的。")
    '(A)高兴,是的.'
    """
    return text.translate(HALF_WIDTH)


def separate_characters(text: str) -> str:
    """Return a text in which every Chinese character is a word.

    >>> separate_characters("她says你好").split()
    ['她', 'says', '你', '好']
    """
    return _CHARACTER.sub(r" \g<0> ", text)


def count_words(text: str) -> int:
    """Return the number of words; a Chinese one has about two characters.

    >>> count_words("She is very happy."), count_words("她非常高兴"), count_words("高兴")
    (4, 3, 1)
    """
    num_characters = len(_CHARACTER.findall(text))
    return len(_CHARACTER.sub(" ", text).split()) + (num_characters + 1) // 2
