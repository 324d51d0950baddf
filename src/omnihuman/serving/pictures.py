"""What a model saw, heard and weighed -> pieces of HTML that ask nobody for anything."""

import base64
import html
import io
from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor

HEIGHT = 108
"""Pixels of a thumbnail, twice what the page shows: sharp on fine screens."""

COLUMNS = 900
"""Most columns of a picture of sound."""


def words(text: str) -> str:
    """Text -> HTML that shows exactly it, also where a page fills in ``${...}`` and ``{{...}}``.

    >>> words("<b> ${x}")
    '&lt;b&gt; &#36;&#123;x&#125;'
    """
    return html.escape(text).translate({ord(sign): f"&#{ord(sign)};" for sign in "${}`"})


def address(picture: Image.Image, kind: str = "jpeg") -> str:
    """A picture -> its own data URL."""
    file = io.BytesIO()
    picture.save(file, kind, **({"quality": 82} if kind == "jpeg" else {"optimize": True}))
    return f"data:image/{kind};base64,{base64.b64encode(file.getvalue()).decode()}"


def film(pictures: Sequence[UInt8[Tensor, "3 _ _"] | None], times: Sequence[float], what: str) -> str:
    """Frames or crops of faces, side by side, each with its second; a moment that has none is an empty place.

    Args:
        pictures: one a moment.
        times: seconds of the clip; none of a still.
        what: ``frame`` or ``face``.
    """
    places = []
    for number, picture in enumerate(pictures):
        when = f"{times[number]:.2f} s" if number < len(times) and len(pictures) > 1 else ""
        label = f"{what} at {when}" if when else what
        shown = f'<span class="none" role="img" aria-label="no {label}">–</span>'
        if picture is not None:
            shown = f'<img src="{address(_thumbnail(picture))}" alt="{label}" title="{label}">'
        places.append(f"<li>{shown}<small>{when}</small></li>")
    across = min(len(places), 8 if len(places) <= 16 else 16)
    return f'<ol class="film {what}s" style="--across:{max(across, 1)}">{"".join(places)}</ol>'


def spectrogram(mel: Float[Tensor, "T M"], seconds: float) -> str:
    """A log-mel spectrogram as a picture, low tones below, with the seconds that it spans."""
    picture = painted(mel)
    if picture.width > COLUMNS:
        picture = picture.resize((COLUMNS, picture.height), Image.Resampling.NEAREST)
    label = f"log-mel spectrogram of {seconds:.2f} s, {mel.shape[1]} bins"
    ends = f"<small><span>0 s</span><span>{seconds:.2f} s</span></small>"
    return f'<div class="mel"><img src="{address(picture, "png")}" alt="{label}" title="{label}">{ends}</div>'


def painted(mel: Float[Tensor, "T M"]) -> Image.Image:
    """A log-mel spectrogram as a picture of T times M pixels, low tones below."""
    from matplotlib import colormaps

    mel = mel.float().cpu()
    levels = ((mel - mel.min()) / (mel.max() - mel.min()).clamp(min=1e-6) * 255).round().to(torch.uint8).T.flip(0)
    picture = Image.fromarray(levels.contiguous().numpy()).convert("P")
    picture.putpalette((colormaps["magma"](range(256))[:, :3] * 255).round().astype(int).flatten().tolist())
    return picture


def bars(weights: Mapping[str, Mapping[str, float]]) -> str:
    """Fusion -> stream -> weight, as bars; the largest weight of a fusion that sums to more than 1 is a full bar.

    >>> 'data-weight="0.7500"' in bars({"gate": {"face": 0.75, "body": 0.25}})
    True
    """
    groups = []
    for fusion, streams in weights.items():
        most = max(1.0, *map(abs, streams.values())) if streams else 1.0
        rows = "".join(
            f'<li data-stream="{words(stream)}" data-weight="{weight:.4f}"><span>{words(stream)}</span>'
            f'<i><b style="width:{100 * abs(weight) / most:.1f}%"></b></i><data>{weight:.2f}</data></li>'
            for stream, weight in streams.items()
        )
        groups.append(f'<section data-fusion="{words(fusion)}"><h4>{words(fusion)}</h4><ul>{rows}</ul></section>')
    return f'<div class="bars">{"".join(groups)}</div>' if groups else ""


def _thumbnail(picture: UInt8[Tensor, "3 H W"]) -> Image.Image:
    shown = Image.fromarray(picture.permute(1, 2, 0).contiguous().cpu().numpy())
    width = max(1, round(shown.width * HEIGHT / shown.height))
    return shown.resize((min(width, 4 * HEIGHT), HEIGHT), Image.Resampling.BILINEAR)
