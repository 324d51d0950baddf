"""A sheet of records: their messages, frames and spectrograms."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from omnihuman.data import media
from omnihuman.data.record import BadSample, Record
from omnihuman.data.strip import draw_strip
from omnihuman.source.glyphs import make_drawable, wrap_text

DPI, FONT_SIZE = 100, 9
WIDTH, MARGIN, GAP = 12.0, 0.12, 0.28
"""Inches: of the sheet, at its sides, and between two records."""

LINE_HEIGHT, COLUMNS_PER_INCH = 0.175, 13.0
"""Of a line of text, in inches; columns of text, of which a Chinese character takes two."""

MAX_FRAMES_HEIGHT, AUDIO_HEIGHT, AUDIO_WIDTH = 1.8, 1.25, 3.3
"""Inches. Audio without frames is drawn at half the width of the sheet."""

LABEL_WIDTH, LABEL_HEIGHT = 0.5, 0.36
"""Inches beside and below a spectrogram, for its axes."""

MAX_LINES = 12
"""Of one text."""

MAX_DRAWN_SECONDS = 30
"""Of audio."""

BLACK, ANSWER_COLOR, ERROR_COLOR = "#222222", "#215a9e", "#a32020"


@dataclass(frozen=True, slots=True)
class Sheet:
    """The images that were drawn.

    Attributes:
        files: the images.
        errors: of records whose clip cannot be decoded; the sheet shows the message in place of the clip.
        num_replaced: characters without a glyph in any installed font, which are drawn as boxes.
    """

    files: list[Path]
    errors: list[BadSample]
    num_replaced: int


@dataclass
class _Block:
    """A record on the sheet; sizes are inches.

    Attributes:
        texts: with their colors, one below the other.
        frames: an image, as large as it is drawn.
        waveform: of the audio ``[S]``.
    """

    texts: list[tuple[str, str]]
    frames: Image.Image | None = None
    waveform: Tensor | None = None
    lines: list[tuple[str, str, list[str]]] = field(default_factory=list)
    num_replaced: int = 0

    def __post_init__(self) -> None:
        for text, color in self.texts:
            drawable = make_drawable(text)
            self.num_replaced += drawable.num_replaced
            lines = wrap_text(drawable.text, round(COLUMNS_PER_INCH * self.text_width))
            if len(lines) > MAX_LINES:
                lines = [*lines[: MAX_LINES - 1], f"... ({len(lines) - MAX_LINES + 1} further lines)"]
            self.lines += [(line, color, drawable.families) for line in lines]

    @property
    def media_size(self) -> tuple[float, float]:
        """Width and height of frames and spectrogram."""
        width = height = 0.0
        if self.frames is not None:
            width, height = self.frames.width / DPI, self.frames.height / DPI
        if self.waveform is not None:
            width += AUDIO_WIDTH if width else WIDTH / 2 - MARGIN
            height = max(height, AUDIO_HEIGHT)
            if width > WIDTH / 2:  # no text fits beside it, so the spectrogram is as wide as possible
                width = WIDTH - 2 * MARGIN
        return width, height

    @property
    def is_beside(self) -> bool:
        """The text is beside the clip, which leaves half of the sheet empty."""
        return 0 < self.media_size[0] <= WIDTH / 2

    @property
    def text_width(self) -> float:
        return WIDTH - 2 * MARGIN - self.is_beside * (self.media_size[0] + MARGIN)

    @property
    def text_height(self) -> float:
        return LINE_HEIGHT * len(self.lines)

    @property
    def height(self) -> float:
        if self.is_beside:
            return max(self.media_size[1], self.text_height) + GAP
        return self.media_size[1] + self.text_height + GAP


def draw_records(records: Sequence[Record], num_frames: int, file: Path) -> Sheet:
    """Write a PNG with one record below the other; in the place of a clip that cannot be decoded is the error."""
    from matplotlib.figure import Figure

    blocks, errors = list[_Block](), list[BadSample]()
    for record in records:
        try:
            blocks.append(_build_block(record, read_sheet_clip(record, num_frames)))
        except BadSample as bad:
            errors.append(BadSample(bad.reason, f"{record.location} ({record.id}): {bad}"))
            blocks.append(_Block([*_list_texts(record), (f"{bad.reason}: {bad}", ERROR_COLOR)]))
    figure = Figure(figsize=(WIDTH, sum(block.height for block in blocks)), dpi=DPI)
    top = figure.get_figheight()
    for block in blocks:
        _draw_block(figure, block, top - GAP / 2)
        top -= block.height
    figure.savefig(file)
    return Sheet([file], errors, sum(block.num_replaced for block in blocks))


def _build_block(record: Record, clip: media.Clip) -> _Block:
    frames = None
    if clip.frames is not None and len(clip.frames):
        width = WIDTH - 2 * MARGIN - AUDIO_WIDTH * (clip.waveform is not None)
        frames = _arrange_frames(clip.frames, width)
    return _Block(_list_texts(record), frames, clip.waveform)


def _list_texts(record: Record) -> list[tuple[str, str]]:
    """Return what is written of a record, with colors."""
    title = record.id if record.task is None else f"{record.id} [{record.task}]"
    if len(record.messages) > 2:
        title += f", the first 2 of {len(record.messages)} messages"
    (_, question), (_, answer) = record.messages[:2]
    return [(title, "#777777"), (question, BLACK), (answer, ANSWER_COLOR)]


def _arrange_frames(frames: Tensor, width: float) -> Image.Image:
    """Return frames ``[T 3 H W]`` in rows, as large as they fit into a width of so many inches."""
    num_frames, aspect = len(frames), frames.shape[3] / frames.shape[2]

    def compute_height(num_columns: int) -> float:
        num_rows = -(-num_frames // num_columns)
        return min(width / num_columns / aspect, MAX_FRAMES_HEIGHT / num_rows)

    num_columns = max(range(1, num_frames + 1), key=compute_height)
    height = max(1, int(DPI * compute_height(num_columns)))
    rows = [draw_strip(list(row), height) for row in torch.split(frames, num_columns)]
    image = Image.new("RGB", (rows[0].width, height * len(rows)), "white")
    for number, row in enumerate(rows):
        image.paste(row, (0, number * height))
    return image


def _draw_block(figure: Any, block: _Block, top: float) -> None:
    """Draw a record, from ``top`` inches above the bottom of the sheet downwards."""
    width, height = block.media_size
    x, y = MARGIN, top
    if block.is_beside:
        x += width + MARGIN
    for line, color, families in block.lines:
        _write(figure, line, x, y, color=color, fontfamily=families)
        y -= LINE_HEIGHT
    bottom = (top if block.is_beside else y) - height
    if block.frames is not None:
        size = (block.frames.width / DPI, block.frames.height / DPI)
        axes = _add_axes(figure, MARGIN, bottom + height - size[1], *size)
        axes.imshow(np.asarray(block.frames), aspect="auto")
        axes.axis("off")
    if block.waveform is not None:
        left = MARGIN + LABEL_WIDTH + (0.0 if block.frames is None else block.frames.width / DPI)
        inner = width - left  # the last number below it is as wide as the margin
        _draw_spectrogram(_add_axes(figure, left, bottom + LABEL_HEIGHT, inner, height - LABEL_HEIGHT), block.waveform)


def _add_axes(figure: Any, left: float, bottom: float, width: float, height: float) -> Any:
    total = figure.get_figheight()
    return figure.add_axes((left / WIDTH, bottom / total, width / WIDTH, height / total))


def _write(figure: Any, text: str, x: float, y: float, **options: Any) -> None:
    """Write one line, with fonts that have its glyphs."""
    place = (x / WIDTH, y / figure.get_figheight())
    figure.text(*place, text, fontsize=FONT_SIZE, va="top", parse_math=False, **options)


def _draw_spectrogram(axes: Any, waveform: Tensor) -> None:
    """Draw the 80 dB below the loudest value, over seconds and kHz."""
    seconds, rate = len(waveform) / media.SAMPLE_RATE, media.SAMPLE_RATE / 1000
    power = axes.specgram(waveform.numpy() + 1e-6, NFFT=400, noverlap=240, Fs=rate, xextent=(0, seconds))[0]
    peak = 10 * np.log10(power.max())
    axes.images[0].set_clim(peak - 80, peak)
    axes.set_xlabel("seconds", fontsize=8, labelpad=1)
    axes.set_ylabel("kHz", fontsize=8, labelpad=1)
    axes.tick_params(labelsize=8, length=2, pad=2)


def read_sheet_clip(record: Record, num_frames: int) -> media.Clip:
    """Decode what the files of a record hold, of audio the first 30 s.

    Raises:
        BadSample: a file cannot be decoded, for whatever reason.
    """
    try:
        header = media.merge_headers(record, {path: media.probe(path) for path in record.files})
        if not header.has_video:
            num_frames = 0
        num_samples = min(header.num_samples(*record.audio_span), MAX_DRAWN_SECONDS * media.SAMPLE_RATE)
        return media.read_clip(record, header, num_frames, num_samples)
    except BadSample:
        raise
    except Exception as error:
        raise BadSample("unreadable", f"{record.file}: {type(error).__name__}: {error}") from error
