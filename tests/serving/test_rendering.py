"""Images, spectrograms and bars as self-contained HTML."""

import base64
import html
import io
import re

import pytest
import torch
from PIL import Image

from omnihuman.serving.rendering import (
    HEIGHT,
    MAX_COLUMNS,
    escape_html,
    render_bars,
    render_spectrogram,
    render_strip,
)


def decode_images(page: str) -> list[Image.Image]:
    urls = re.findall(r'src="data:image/\w+;base64,([^"]+)"', page)
    return [Image.open(io.BytesIO(base64.b64decode(url))) for url in urls]


def test_strip_has_an_image_and_a_time_per_time_step() -> None:
    frames = torch.zeros(3, 3, 60, 120, dtype=torch.uint8)
    frames[1, 0], frames[2, 2] = 255, 255
    strip = render_strip([frames[0], None, frames[2]], [0.25, 1.0, 1.75], "face")
    first, last = decode_images(strip)
    assert first.size == last.size == (2 * HEIGHT, HEIGHT)
    assert last.getpixel((5, 5))[2] > 240 > 20 > first.getpixel((5, 5))[2]  # type: ignore[index]
    assert re.findall(r"<small>([^<]*)", strip) == ["0.25 s", "1.00 s", "1.75 s"]
    assert 'aria-label="no face at 1.00 s"' in strip


def test_strip_has_up_to_16_columns() -> None:
    frame = torch.zeros(3, 60, 120, dtype=torch.uint8)
    assert "--across:3" in render_strip([frame] * 3, [0.0] * 3, "frame")
    assert "--across:16" in render_strip([None] * 32, [0.0] * 32, "frame")


def test_still_has_no_time() -> None:
    frame = torch.zeros(3, 60, 120, dtype=torch.uint8)
    assert "<small></small>" in render_strip([frame], [0.0], "frame")


def test_spectrogram_has_low_frequencies_at_the_bottom() -> None:
    mel = torch.zeros(40, 16)
    mel[10, 2] = 1.0
    image = decode_images(render_spectrogram(mel, 0.4))[0].convert("L")
    assert image.size == (40, 16) and image.getpixel((10, 13)) == image.getextrema()[1]


def test_long_spectrogram_is_scaled_down() -> None:
    page = render_spectrogram(torch.zeros(3000, 8), 30.0)
    assert decode_images(page)[0].width == MAX_COLUMNS and ">30.00 s<" in page


def test_bars_have_the_length_of_the_weights() -> None:
    page = render_bars({"gate": {"face": 0.75, "body": 0.25}, "raw": {"a": -2.0, "b": 1.0}})
    assert re.findall(r'data-stream="(\w+)" data-weight="([-\d.]+)"', page) == [
        ("face", "0.7500"),
        ("body", "0.2500"),
        ("a", "-2.0000"),
        ("b", "1.0000"),
    ]
    assert re.findall(r"width:([\d.]+)%", page) == ["75.0", "25.0", "100.0", "50.0"]
    assert render_bars({}) == ""


@pytest.mark.parametrize("text", ["<img src=x onerror=alert(1)>", "${document.cookie}", "{{value}}", "`x`", "a\"b'c&"])
def test_escaped_text_is_shown_and_not_executed(text: str) -> None:
    escaped = escape_html(text)
    assert html.unescape(escaped) == text and not set(escaped) & set("<>\"'${}`")
