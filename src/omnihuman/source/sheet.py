"""A sheet of records: frames and question, spectrogram and answer."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from textwrap import fill
from typing import Any

import torch

from omnihuman.data import media
from omnihuman.data.record import BadSample, Record
from omnihuman.source.glyphs import make_drawable


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


def draw_records(records: Sequence[Record], num_frames: int, file: Path) -> Sheet:
    """Write a PNG with one record in a line; in the place of a clip that cannot be decoded is the error."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 1.9 * len(records)), layout="constrained")
    axes = figure.subplots(len(records), 2, squeeze=False, width_ratios=(3, 1))
    errors, num_replaced = list[BadSample](), 0
    for (left, right), record in zip(axes, records, strict=True):
        try:
            clip = read_sheet_clip(record, num_frames)
        except BadSample as bad:
            clip = media.Clip()
            errors.append(BadSample(bad.reason, f"{record.location} ({record.id}): {bad}"))
            # no part of the layout, which would give a long line all the width
            num_replaced += _write(left.text, f"{bad.reason}: {bad}", 0.0, 0.5, width=130, in_layout=False)
        num_replaced += _draw_record(record, clip, left, right)
    figure.savefig(file, dpi=90)
    return Sheet([file], errors, num_replaced)


def _draw_record(record: Record, clip: media.Clip, left: Any, right: Any) -> int:
    """Draw one line of the sheet, and return the number of replaced characters."""
    if clip.frames is not None:
        left.imshow(torch.cat(list(clip.frames), dim=-1).permute(1, 2, 0).numpy())
    if clip.waveform is not None:
        right.specgram(clip.waveform.numpy() + 1e-6, NFFT=400, noverlap=240, Fs=media.SAMPLE_RATE)
    left.axis("off")
    right.axis("off")
    question, answer = [text for _, text in record.messages[:2]]
    name = record.id if record.task is None else f"{record.id} [{record.task}]"
    num_replaced = _write(left.set_title, f"{name} {question}", loc="left")
    return num_replaced + _write(right.set_title, answer, loc="left")


def _write(method: Any, text: str, *place: float, width: int | None = None, **options: Any) -> int:
    """Call a method of the axes that writes a text, with fonts that have its glyphs; return the replaced characters."""
    drawable = make_drawable(text)
    line = drawable.text if width is None else fill(drawable.text, width)
    method(*place, line, fontsize=7, fontfamily=drawable.families, parse_math=False, **options)
    return drawable.num_replaced


def read_sheet_clip(record: Record, num_frames: int) -> media.Clip:
    """Decode all that the files of a record hold.

    Raises:
        BadSample: a file cannot be decoded, for whatever reason.
    """
    try:
        header = media.merge_headers(record, {path: media.probe(path) for path in record.files})
        if not header.has_video:
            num_frames = 0
        return media.read_clip(record, header, num_frames, header.num_samples(*record.audio_span))
    except BadSample:
        raise
    except Exception as error:
        raise BadSample("unreadable", f"{record.file}: {type(error).__name__}: {error}") from error
