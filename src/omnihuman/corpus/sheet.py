"""Charts of the built-in corpus for visual inspection: frames of every topic, and log-mel spectrograms of the audio."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Float32
from PIL import Image
from PIL.ImageDraw import Draw

from omnihuman.corpus.draw import render_frame
from omnihuman.corpus.voice import SAMPLE_RATE, synthesize_waveform
from omnihuman.corpus.world import ACTIONS, EMOTIONS, INTERACTIONS, SOUNDS, Scene, build_scenes

CELL, LINE = 128, 18  # pixels: side of a frame, height of the caption below it
COLUMNS = 9

KILOHERTZ = (0.5, 1.0, 2.0, 4.0, 8.0)
"""Labels of the mel scale."""


class _Cell(NamedTuple):
    """A cell of the contact sheet: a scene at a time in seconds, and its caption."""

    scene: Scene
    time: float
    caption: str


def draw_contact_sheet(path: Path | str, seed: int = 0) -> Path:
    """Write a PNG with frames of every emotion over time, every action and interaction, two people, and a still."""
    scenes = [scene for scene in build_scenes(seed) if scene.has_video]
    cells: list[_Cell] = []
    for emotion in EMOTIONS:
        faces = [scene for scene in scenes if scene.kind == "talk" and scene.face_emotion == scene.emotion == emotion]
        for scene in _select_people(faces, 3):
            cells += [_Cell(scene, t, f"{emotion} {t:.1f} s") for t in (0.0, 0.7, 1.3)]
    for scene in _select_topics(scenes):
        topic = scene.action or scene.interaction or scene.kind
        cells += [_Cell(scene, t, f"{topic} {t:.1f} s") for t in (0.3, 0.8, 1.3)]
    num_rows = -(-len(cells) // COLUMNS)
    sheet = Image.new("RGB", (COLUMNS * CELL, num_rows * (CELL + LINE)), (255, 255, 255))
    canvas = Draw(sheet)
    for index, cell in enumerate(cells):
        x, y = index % COLUMNS * CELL, index // COLUMNS * (CELL + LINE)
        frame = Image.fromarray(render_frame(cell.scene, cell.time))
        frame.thumbnail((CELL, CELL))
        sheet.paste(frame, (x, y))
        canvas.text((x + 4, y + CELL + 3), cell.caption, fill=(0, 0, 0))
    sheet.save(path)
    return Path(path)


def _select_topics(scenes: Sequence[Scene]) -> list[Scene]:
    """Select a scene of each action and interaction, of two people, of a person from behind, and a still."""
    moving = [scene for scene in scenes if not scene.is_still]
    selected: list[Scene] = []
    for topic in ACTIONS + INTERACTIONS:
        selected.append(next(scene for scene in moving if topic in (scene.action, scene.interaction)))
    selected.append(next(scene for scene in moving if scene.kind == "pair"))
    selected.append(next(scene for scene in moving if scene.from_behind))
    selected.append(next(scene for scene in scenes if scene.is_still))
    return selected


def _select_people(scenes: Sequence[Scene], count: int) -> list[Scene]:
    """Select the first scenes of ``count`` different people."""
    people: dict[int, Scene] = {}
    for scene in scenes:
        people.setdefault(scene.identity.index, scene)
    return list(people.values())[:count]


def compute_log_mel(samples: Float32[np.ndarray, " S"], bands: int = 64) -> Float[np.ndarray, "T M"]:
    """Return a log-mel spectrogram with a hop of 10 ms, `[samples]` at 16 kHz -> `[T M]`, for display only.

    >>> compute_log_mel(np.zeros(16000, np.float32)).shape
    (98, 64)
    """
    blocks = np.lib.stride_tricks.sliding_window_view(samples, 400)[::160] * np.hanning(400)
    power = np.abs(np.fft.rfft(blocks, 512)) ** 2
    top = _to_mel(SAMPLE_RATE / 2)
    edges = 700 * (10 ** (np.linspace(0, top, bands + 2) / 2595) - 1)
    frequency = np.fft.rfftfreq(512, 1 / SAMPLE_RATE)
    rise = (frequency - edges[:-2, None]) / np.diff(edges)[:-1, None]
    fall = (edges[2:, None] - frequency) / np.diff(edges)[1:, None]
    return np.asarray(np.log10(power @ np.clip(np.minimum(rise, fall), 0, None).T + 1e-6))


def _to_mel(frequency: float) -> float:
    """Return the mel scale's value of a frequency in Hz."""
    return float(2595 * np.log10(1 + frequency / 700))


def draw_mel_sheet(path: Path | str, seed: int = 0) -> Path:
    """Write a PNG with log-mel spectrograms of every emotional voice (man, woman) and of every sound event."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    panels = _select_voices(seed) + _select_sounds(seed)
    figure = Figure(figsize=(21, 10), layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.subplots(-(-len(panels) // 7), 7).ravel()
    for axes, (scene, title) in zip(grid, panels, strict=False):
        spectrogram = compute_log_mel(synthesize_waveform(scene)).T
        extent = (0, scene.duration, 0, _to_mel(SAMPLE_RATE / 2))
        axes.imshow(spectrogram, origin="lower", aspect="auto", extent=extent, vmin=-4, vmax=2)
        axes.set_title(title, fontsize=10)
        axes.set_yticks([_to_mel(1000 * number) for number in KILOHERTZ], [f"{number:g}" for number in KILOHERTZ])
        axes.set(xlabel="seconds", ylabel="kHz")
    for axes in grid[len(panels) :]:
        axes.set_axis_off()
    figure.savefig(path, dpi=70)
    return Path(path)


def _select_voices(seed: int) -> list[tuple[Scene, str]]:
    """Select a speech clip for every gender and emotion, with a title."""
    speech = [scene for scene in build_scenes(seed) if scene.kind in ("talk", "speech") and scene.transcript]
    panels: list[tuple[Scene, str]] = []
    for gender in ("man", "woman"):
        for emotion in EMOTIONS:
            for scene in speech:
                if scene.identity.gender == gender and scene.voice_emotion == emotion:
                    panels.append((scene, f"{gender}, {emotion}: {' '.join(scene.transcript)}"))
                    break
    return panels


def _select_sounds(seed: int) -> list[tuple[Scene, str]]:
    """Select a clip for every sound event, with a title."""
    clips: dict[str, Scene] = {}
    for scene in build_scenes(seed):
        if scene.kind == "sound" and scene.sound is not None:
            clips.setdefault(scene.sound, scene)
    return [(clips[name], name) for name in SOUNDS]
