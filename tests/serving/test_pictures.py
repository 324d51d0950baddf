"""Pictures that stand in the page itself."""

import base64
import io
import re

import pytest
import torch
from PIL import Image

from omnihuman.serving.pictures import COLUMNS, HEIGHT, bars, film, spectrogram, words


def pictures_of(html: str) -> list[Image.Image]:
    found = re.findall(r'src="data:image/\w+;base64,([^"]+)"', html)
    return [Image.open(io.BytesIO(base64.b64decode(one))) for one in found]


def test_every_moment_has_its_picture_and_its_second_in_order() -> None:
    frames = torch.zeros(3, 3, 60, 120, dtype=torch.uint8)
    frames[1, 0], frames[2, 2] = 255, 255
    html = film([frames[0], None, frames[2]], [0.25, 1.0, 1.75], "face")
    shown = pictures_of(html)
    assert [one.size for one in shown] == [(2 * HEIGHT, HEIGHT)] * 2
    assert shown[1].getpixel((5, 5))[2] > 240 > 20 > shown[0].getpixel((5, 5))[2]  # type: ignore[index]
    assert (
        re.findall(r"<small>([^<]*)", html) == ["0.25 s", "1.00 s", "1.75 s"]
        and 'aria-label="no face at 1.00 s"' in html
    )
    assert "--across:3" in html and "--across:16" in film([None] * 32, [0.0] * 32, "frame")
    assert "<small></small>" in film([frames[0]], [0.0], "frame")  # a still has no second


def test_a_spectrogram_shows_low_tones_below_and_is_no_wider_than_needed() -> None:
    mel = torch.zeros(40, 16)
    mel[10, 2] = 1.0
    picture = pictures_of(spectrogram(mel, 0.4))[0].convert("L")
    assert picture.size == (40, 16) and picture.getpixel((10, 13)) == picture.getextrema()[1]
    assert pictures_of(spectrogram(torch.zeros(3000, 8), 30.0))[0].width == COLUMNS
    assert ">30.00 s<" in spectrogram(torch.zeros(3000, 8), 30.0)


def test_bars_are_as_long_as_the_weights_say() -> None:
    html = bars({"gate": {"face": 0.75, "body": 0.25}, "raw": {"a": -2.0, "b": 1.0}})
    assert re.findall(r'data-stream="(\w+)" data-weight="([-\d.]+)"', html) == [
        ("face", "0.7500"), ("body", "0.2500"), ("a", "-2.0000"), ("b", "1.0000"),
    ]  # fmt: skip
    assert re.findall(r"width:([\d.]+)%", html) == ["75.0", "25.0", "100.0", "50.0"] and not bars({})


@pytest.mark.parametrize("text", ["<img src=x onerror=alert(1)>", "${document.cookie}", "{{value}}", "`x`", "a\"b'c&"])
def test_words_are_shown_and_never_run(text: str) -> None:
    import html

    assert html.unescape(words(text)) == text and not set(words(text)) & set("<>\"'${}`")
