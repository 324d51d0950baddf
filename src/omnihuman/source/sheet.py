"""A sheet of records: frames and question, spectrogram and answer."""

from collections.abc import Sequence
from pathlib import Path
from textwrap import fill
from typing import Any

import torch

from omnihuman.data import media
from omnihuman.data.record import BadSample, Record


def draw_records(records: Sequence[Record], num_frames: int, file: Path) -> None:
    """Write a PNG with one record in a line; in the place of a clip that cannot be decoded is the error."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 1.9 * len(records)), layout="constrained")
    axes = figure.subplots(len(records), 2, squeeze=False, width_ratios=(3, 1))
    for (left, right), record in zip(axes, records, strict=True):
        _draw_record(record, num_frames, left, right)
    figure.savefig(file, dpi=90)


def _draw_record(record: Record, num_frames: int, left: Any, right: Any) -> None:
    try:
        clip = _read_clip(record, num_frames)
    except BadSample as bad:
        clip = media.Clip()
        # no part of the layout, which would give a long line all the width
        left.text(0, 0.5, fill(f"{bad.reason}: {bad}", 130), fontsize=7, in_layout=False)
    if clip.frames is not None:
        left.imshow(torch.cat(list(clip.frames), dim=-1).permute(1, 2, 0).numpy())
    if clip.waveform is not None:
        right.specgram(clip.waveform.numpy() + 1e-6, NFFT=400, noverlap=240, Fs=media.SAMPLE_RATE)
    left.axis("off")
    right.axis("off")
    question, answer = [text.replace("\n", " ") for _, text in record.messages[:2]]
    name = record.id if record.task is None else f"{record.id} [{record.task}]"
    left.set_title(f"{name} {question}", fontsize=7, loc="left", parse_math=False)
    right.set_title(answer, fontsize=7, loc="left", parse_math=False)


def _read_clip(record: Record, num_frames: int) -> media.Clip:
    """Decode all that the files of a record hold."""
    header = media.merge_headers(record, {path: media.probe(path) for path in record.files})
    if not header.has_video:
        num_frames = 0
    return media.read_clip(record, header, num_frames, header.num_samples(*record.audio_span))
