"""Fonts for texts in any script, among those that are installed."""

import unicodedata
from collections.abc import Iterable, Sequence
from functools import cache
from itertools import chain
from typing import Any, NamedTuple

REPLACEMENT = "□"
"""Stands for a character of which no installed font has a glyph."""

LAST_RESORT = "Last Resort"
"""Name of a font that has a box in the place of every glyph."""


class DrawableText(NamedTuple):
    """A text on one line, of which every character has a glyph in one of the font families.

    Attributes:
        text: with replacements.
        families: of the fonts.
        num_replaced: characters that were replaced.
    """

    text: str
    families: list[str]
    num_replaced: int


def make_drawable(text: str) -> DrawableText:
    r"""Return a text on one line with the font families that draw it; characters without a glyph are replaced.

    >>> make_drawable("two\nlines").text
    'two lines'
    """
    text = " ".join(text.split())
    families = list[str]()
    missing = set(text) - {" "}
    for family, path in _list_fonts():
        if not missing:
            break
        covered = {character for character in missing if ord(character) in _read_charmap(path)}
        if covered:
            families.append(family)
            missing -= covered
    num_replaced = 0
    for character in missing:
        num_replaced += text.count(character)
        text = text.replace(character, REPLACEMENT)
    return DrawableText(text, families or [_list_fonts()[0][0]], num_replaced)


def choose_fonts(texts: Iterable[str]) -> dict[str, Any]:
    """Return the settings of matplotlib that draw some texts; empty where its default font has all their glyphs.

    >>> choose_fonts(["loss", "Übung"])
    {}
    """
    families = list(dict.fromkeys(chain.from_iterable(make_drawable(text).families for text in texts)))
    default = make_drawable("").families
    return {} if set(families) <= set(default) else {"font.family": [*default, *families]}


def wrap_text(text: str, width: int) -> list[str]:
    """Return the lines of a text; ``textwrap`` does not break Chinese, and takes its characters for narrow ones.

    Args:
        text: on one line.
        width: columns of a line; a wide character takes two, and a line may end on either side of it.

    >>> wrap_text("a long question", 6), wrap_text("高兴高兴", 4)
    (['a long', 'questi', 'on'], ['高兴', '高兴'])
    """
    lines, line = list[str](), ""
    for character in text:
        if _count_columns(line + character) > width and character != " ":
            head, _, rest = line.rpartition(" ")
            is_wide = _count_columns(character) == 2 or _count_columns(line[-1:]) == 2
            if is_wide or not head:
                head, rest = line, ""
            lines.append(head.rstrip())
            line = rest
        line += character
    return [*lines, line]


def _count_columns(text: str) -> int:
    num_wide = sum(char == REPLACEMENT or unicodedata.east_asian_width(char) in "WF" for char in text)
    return len(text) + num_wide


@cache
def _list_fonts() -> Sequence[tuple[str, str]]:
    """Return family and file of every installed font, matplotlib's default first."""
    from matplotlib import rcParams
    from matplotlib.font_manager import FontProperties, findfont, fontManager

    fonts = dict[tuple[str, str], None]()
    for font in sorted(fontManager.ttflist, key=lambda font: font.fname):
        if not font.name.startswith(LAST_RESORT):
            fonts[font.name, font.fname] = None
    default = findfont(FontProperties(family=rcParams["font.family"]))
    return sorted(fonts, key=lambda font: font[1] != default)


@cache
def _read_charmap(path: str) -> frozenset[int]:
    """Return the code points of a font; none of a font of bitmaps, which matplotlib cannot scale."""
    from matplotlib.ft2font import FT2Font

    try:
        font = FT2Font(path)
    except (OSError, RuntimeError):  # a damaged file
        return frozenset()
    return frozenset(font.get_charmap()) if font.scalable else frozenset()
