"""Frames, spectrograms and weights -> self-contained HTML, which loads nothing from elsewhere."""

import base64
import html
import io
from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor

HEIGHT = 108
"""Height of a thumbnail in pixels: twice the height on the page, sharp on fine screens."""

MAX_COLUMNS = 900
"""Largest width of a spectrogram in pixels."""


def escape_html(text: str) -> str:
    """Escape text for HTML and for pages that fill in ``${...}`` or ``{{...}}``.

    >>> escape_html("<b> ${x}")
    '&lt;b&gt; &#36;&#123;x&#125;'
    """
    return html.escape(text).translate({ord(sign): f"&#{ord(sign)};" for sign in "${}`"})


def encode_image(image: Image.Image, format: str = "jpeg") -> str:
    """Return an image as a data URL."""
    file = io.BytesIO()
    if format == "jpeg":
        image.save(file, format, quality=82)
    else:
        image.save(file, format, optimize=True)
    return f"data:image/{format};base64,{base64.b64encode(file.getvalue()).decode()}"


def render_strip(images: Sequence[UInt8[Tensor, "3 _ _"] | None], times: Sequence[float], name: str) -> str:
    """Render frames or face crops side by side, with their times; a missing crop leaves an empty place.

    Args:
        images: one per time step.
        times: in seconds; empty for a still.
        name: ``frame`` or ``face``.
    """
    items: list[str] = []
    for number, image in enumerate(images):
        time, label = "", name
        if number < len(times) and len(images) > 1:
            time = f"{times[number]:.2f} s"
            label = f"{name} at {time}"
        items.append(f"<li>{_render_image(image, label)}<small>{time}</small></li>")
    max_columns = 8 if len(items) <= 16 else 16
    columns = min(max(len(items), 1), max_columns)
    return f'<ol class="film {name}s" style="--across:{columns}">{"".join(items)}</ol>'


def _render_image(image: UInt8[Tensor, "3 _ _"] | None, label: str) -> str:
    if image is None:
        return f'<span class="none" role="img" aria-label="no {label}">–</span>'
    return f'<img src="{encode_image(_scale_thumbnail(image))}" alt="{label}" title="{label}">'


def render_spectrogram(mel: Float[Tensor, "T M"], seconds: float) -> str:
    """Render a log-mel spectrogram with its duration, low frequencies at the bottom."""
    image = draw_spectrogram(mel)
    if image.width > MAX_COLUMNS:
        image = image.resize((MAX_COLUMNS, image.height), Image.Resampling.NEAREST)
    label = f"log-mel spectrogram of {seconds:.2f} s, {mel.shape[1]} bins"
    ends = f"<small><span>0 s</span><span>{seconds:.2f} s</span></small>"
    return f'<div class="mel"><img src="{encode_image(image, "png")}" alt="{label}" title="{label}">{ends}</div>'


def draw_spectrogram(mel: Float[Tensor, "T M"]) -> Image.Image:
    """Draw a log-mel spectrogram as an image of T times M pixels, low frequencies at the bottom."""
    from matplotlib import colormaps

    mel = mel.float().cpu()
    scaled = (mel - mel.min()) / (mel.max() - mel.min()).clamp(min=1e-6) * 255
    pixels = scaled.round().to(torch.uint8).T.flip(0)
    image = Image.fromarray(pixels.contiguous().numpy()).convert("P")
    image.putpalette((colormaps["magma"](range(256))[:, :3] * 255).round().astype(int).flatten().tolist())
    return image


def render_bars(weights: Mapping[str, Mapping[str, float]]) -> str:
    """Render fusion -> stream -> weight as bars.

    A weight of 1 is a full bar; if a fusion has larger weights, the largest one is.

    >>> 'data-weight="0.7500"' in render_bars({"gate": {"face": 0.75, "body": 0.25}})
    True
    """
    groups: list[str] = []
    for fusion, streams in weights.items():
        full = max([1.0, *map(abs, streams.values())])
        bars = "".join(_render_bar(stream, weight, full) for stream, weight in streams.items())
        name = escape_html(fusion)
        groups.append(f'<section data-fusion="{name}"><h4>{name}</h4><ul>{bars}</ul></section>')
    return f'<div class="bars">{"".join(groups)}</div>' if groups else ""


def _render_bar(stream: str, weight: float, full: float) -> str:
    name = escape_html(stream)
    return (
        f'<li data-stream="{name}" data-weight="{weight:.4f}"><span>{name}</span>'
        f'<i><b style="width:{100 * abs(weight) / full:.1f}%"></b></i><data>{weight:.2f}</data></li>'
    )


def _scale_thumbnail(image: UInt8[Tensor, "3 H W"]) -> Image.Image:
    picture = Image.fromarray(image.permute(1, 2, 0).contiguous().cpu().numpy())
    width = max(1, round(picture.width * HEIGHT / picture.height))
    return picture.resize((min(width, 4 * HEIGHT), HEIGHT), Image.Resampling.BILINEAR)
