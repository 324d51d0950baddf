"""Sheets for a person to look at: pictures of everything the corpus shows, and mel pictures of what it sounds like."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from jaxtyping import Float, Float32
from PIL import Image
from PIL.ImageDraw import Draw

from omnihuman.data.sample.draw import draw
from omnihuman.data.sample.voice import SAMPLE_RATE, waveform
from omnihuman.data.sample.world import ACTIONS, EMOTIONS, INTERACTIONS, SOUNDS, Scene, scenes

CELL, LINE = 128, 18  # pixels of a picture's side, and of the caption below it


def contact_sheet(path: Path | str, seed: int = 0) -> Path:
    """A path and a seed; writes a PNG of each emotion over time, each action, each interaction, two people, a still."""
    corpus = [scene for scene in scenes(seed) if scene.has_video]
    rows: list[list[tuple[Scene, float, str]]] = []
    for emotion in EMOTIONS:
        shown = _pick((s for s in corpus if s.kind == "talk" and s.face_emotion == s.emotion == emotion), 3)
        rows.append([(scene, t, f"{emotion} {t:.1f} s") for scene in shown for t in (0.0, 0.7, 1.3)])
    moving = [scene for scene in corpus if not scene.is_still]
    whole = [_pick((s for s in moving if topic in (s.action, s.interaction)), 1) for topic in ACTIONS + INTERACTIONS]
    whole += [_pick((s for s in moving if s.kind == "pair"), 1), _pick((s for s in moving if s.from_behind), 1)]
    whole.append(_pick((s for s in corpus if s.is_still), 1))
    cells = [(scene, t, f"{scene.action or scene.interaction or scene.kind} {t:.1f} s")
             for group in whole for scene in group for t in (0.3, 0.8, 1.3)]  # fmt: skip
    rows += [cells[start : start + 9] for start in range(0, len(cells), 9)]
    sheet = Image.new("RGB", (9 * CELL, len(rows) * (CELL + LINE)), (255, 255, 255))
    canvas = Draw(sheet)
    for y, row in enumerate(rows):
        for x, (scene, t, caption) in enumerate(row):
            picture = Image.fromarray(draw(scene, t))
            picture.thumbnail((CELL, CELL))
            sheet.paste(picture, (x * CELL, y * (CELL + LINE)))
            canvas.text((x * CELL + 4, y * (CELL + LINE) + CELL + 3), caption, fill=(0, 0, 0))
    sheet.save(path)
    return Path(path)


def _pick(fitting: Iterable[Scene], count: int) -> list[Scene]:
    """Scenes; the first ``count``, each of another person."""
    people: dict[int, Scene] = {}
    for scene in fitting:
        people.setdefault(scene.identity.index, scene)
        if len(people) == count:
            break
    return list(people.values())


def mel(samples: Float32[np.ndarray, " S"], bands: int = 64) -> Float[np.ndarray, "T M"]:
    """A waveform [samples] at 16 kHz; its log mel picture every 10 ms, [T M], for the eye only.

    >>> mel(np.zeros(16000, np.float32)).shape
    (98, 64)
    """
    blocks = np.lib.stride_tricks.sliding_window_view(samples, 400)[::160] * np.hanning(400)
    power = np.abs(np.fft.rfft(blocks, 512)) ** 2
    top = 2595 * np.log10(1 + SAMPLE_RATE / 2 / 700)
    edges = 700 * (10 ** (np.linspace(0, top, bands + 2) / 2595) - 1)
    frequency = np.fft.rfftfreq(512, 1 / SAMPLE_RATE)
    rise = (frequency - edges[:-2, None]) / np.diff(edges)[:-1, None]
    fall = (edges[2:, None] - frequency) / np.diff(edges)[1:, None]
    return np.asarray(np.log10(power @ np.clip(np.minimum(rise, fall), 0, None).T + 1e-6))


def listening_sheet(path: Path | str, seed: int = 0) -> Path:
    """A path and a seed; writes a PNG of the mel pictures of each emotion's voice (man, woman) and of each sound."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    corpus = [scene for scene in scenes(seed) if scene.has_audio]
    shown: list[tuple[Scene, str]] = []
    for gender in ("man", "woman"):
        for emotion in EMOTIONS:
            spoken = (s for s in corpus if s.kind in ("talk", "speech") and s.words and s.voice_emotion == emotion)
            for scene in _pick((s for s in spoken if s.identity.gender == gender), 1):
                shown.append((scene, f"{gender}, {emotion}: {' '.join(scene.words)}"))
    for name in SOUNDS:
        shown += [(scene, name) for scene in _pick((s for s in corpus if s.kind == "sound" and s.sound == name), 1)]
    figure = Figure(figsize=(21, 10), layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.subplots(-(-len(shown) // 7), 7).ravel()
    for axes, (scene, title) in zip(grid, shown, strict=False):
        axes.imshow(
            mel(waveform(scene)).T, origin="lower", aspect="auto", extent=(0, scene.duration, 0, 64), vmin=-4, vmax=2
        )
        axes.set_title(title, fontsize=9)
    for axes in grid[len(shown) :]:
        axes.set_axis_off()
    figure.savefig(path, dpi=70)
    return Path(path)
