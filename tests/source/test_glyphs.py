"""Fonts for texts in any script."""

import pytest

from omnihuman.source import glyphs
from omnihuman.source.glyphs import REPLACEMENT, make_drawable, wrap_text

CHARMAPS = {"a.ttf": frozenset(map(ord, "abcé ")), "b.ttf": frozenset(map(ord, "高兴"))}


@pytest.fixture(autouse=True)
def _fonts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Install two fonts."""
    monkeypatch.setattr(glyphs, "_list_fonts", lambda: [("Latin", "a.ttf"), ("Chinese", "b.ttf")])
    monkeypatch.setattr(glyphs, "_read_charmap", CHARMAPS.__getitem__)


@pytest.mark.parametrize(
    ("text", "expected", "families", "num_replaced"),
    [
        ("abc", "abc", ["Latin"], 0),
        ("高兴", "高兴", ["Chinese"], 0),
        ("a 高", "a 高", ["Latin", "Chinese"], 0),
        ("aßbß", f"a{REPLACEMENT}b{REPLACEMENT}", ["Latin"], 2),
        ("ß", REPLACEMENT, ["Latin"], 1),
        ("a\n\tb", "a b", ["Latin"], 0),
        ("", "", ["Latin"], 0),
    ],
)
def test_a_text_has_the_fonts_of_its_characters(
    text: str, expected: str, families: list[str], num_replaced: int
) -> None:
    assert make_drawable(text) == (expected, families, num_replaced)


@pytest.mark.parametrize(
    ("text", "width", "lines"),
    [
        ("one two three", 7, ["one two", "three"]),
        ("one two three", 20, ["one two three"]),
        ("abcdefgh", 3, ["abc", "def", "gh"]),
        ("ab cdefgh", 3, ["ab", "cde", "fgh"]),
        ("高兴高兴高兴", 5, ["高兴", "高兴", "高兴"]),
        ("on 高兴", 5, ["on 高", "兴"]),
        ("", 5, [""]),
    ],
)
def test_lines_are_no_wider_than_asked(text: str, width: int, lines: list[str]) -> None:
    assert wrap_text(text, width) == lines
