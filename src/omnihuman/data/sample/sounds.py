"""Everyday sounds of the built-in corpus, made from noise and tones."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from jaxtyping import Float

RATE = 16000
Wave = Float[np.ndarray, " S"]


def event(name: str, samples: int, rng: np.random.Generator) -> Wave:
    """A sound's name, a length and a random generator; that sound, [samples] within -0.6 and 0.6.

    >>> event("bell", 16000, np.random.default_rng(0)).shape
    (16000,)
    """
    wave = _MAKERS[name](np.arange(samples) / RATE, rng)
    return np.asarray(0.6 * float(rng.uniform(0.7, 1.0)) * wave / max(float(np.abs(wave).max()), 1e-6))


def _noise(time: Wave, rng: np.random.Generator, low: float, high: float) -> Wave:
    """Noise between two frequencies."""
    spectrum = np.fft.rfft(rng.standard_normal(len(time)))
    frequency = np.fft.rfftfreq(len(time), 1 / RATE)
    wave = np.fft.irfft(spectrum * ((frequency > low) & (frequency < high)), n=len(time))
    return np.asarray(wave / wave.std())


def _beats(time: Wave, rng: np.random.Generator, period: float, decay: float) -> tuple[Wave, Wave]:
    """Seconds since the last of evenly repeated strokes, and their fading loudness."""
    since = (time - float(rng.uniform(0, period / 2))) % period
    return since, np.exp(-since / decay)


def _dog(time: Wave, rng: np.random.Generator) -> Wave:
    since, _ = _beats(time, rng, float(rng.uniform(0.45, 0.6)), 1.0)
    loud = np.clip(since / 0.02, 0, 1) * np.clip((0.2 - since) / 0.08, 0, 1)
    pitch = float(rng.uniform(330, 480)) * (1 + 0.5 * np.sin(np.pi * np.clip(since / 0.2, 0, 1)))
    phase = np.cumsum(pitch) / RATE
    buzz = sum(np.sin(2 * np.pi * k * phase) / k**0.5 for k in range(1, 6))
    return np.asarray(loud * (buzz + 0.8 * _noise(time, rng, 500.0, 2500.0)))


def _bell(time: Wave, rng: np.random.Generator) -> Wave:
    since, loud = _beats(time, rng, float(rng.uniform(0.9, 1.3)), 0.5)
    base = float(rng.uniform(600, 900))
    parts = [np.sin(2 * np.pi * base * k * since) / (i + 1) for i, k in enumerate((1.0, 2.0, 2.76, 5.4))]
    return np.asarray(loud * np.sum(parts, axis=0))


def _rain(time: Wave, rng: np.random.Generator) -> Wave:
    drops = np.zeros(len(time))
    drops[rng.integers(0, len(time), len(time) // 200)] = rng.uniform(2, 9, len(time) // 200)
    return 0.5 * _noise(time, rng, 1500.0, 7800.0) + np.convolve(drops, np.exp(-np.arange(40) / 8), "same")


def _engine(time: Wave, rng: np.random.Generator) -> Wave:
    speed = float(rng.uniform(32, 50)) * (1 + 0.25 * np.sin(2 * np.pi * 0.4 * time))
    phase = np.cumsum(speed) / RATE
    return np.asarray(
        sum(np.sin(2 * np.pi * k * phase) / k**0.4 for k in range(1, 12)) + 0.4 * _noise(time, rng, 20.0, 300.0)
    )


def _siren(time: Wave, rng: np.random.Generator) -> Wave:
    pitch = 900 + 400 * np.sin(2 * np.pi * float(rng.uniform(0.6, 0.9)) * time)
    phase = np.cumsum(pitch) / RATE
    return np.asarray(np.sin(2 * np.pi * phase) + 0.4 * np.sin(6 * np.pi * phase))


def _knocking(time: Wave, rng: np.random.Generator) -> Wave:
    since, loud = _beats(time, rng, float(rng.uniform(0.3, 0.4)), 0.025)
    paused = (time % 1.6) < 1.1
    return np.asarray(paused * loud * (np.sin(2 * np.pi * 190 * since) + 0.5 * _noise(time, rng, 100.0, 900.0)))


def _whistle(time: Wave, rng: np.random.Generator) -> Wave:
    steps = rng.integers(0, 5, 40)
    note = steps[(time / 0.3).astype(int) % 40]
    phase = np.cumsum(1600 * 2 ** (note / 6) * (1 + 0.01 * np.sin(2 * np.pi * 6 * time))) / RATE
    return np.asarray(
        np.sin(2 * np.pi * phase) * np.clip((time % 0.3) / 0.03, 0, 1) + 0.03 * _noise(time, rng, 1000.0, 4000.0)
    )


def _clapping(time: Wave, rng: np.random.Generator) -> Wave:
    wave = np.zeros(len(time))
    for _ in range(3):
        _, loud = _beats(time, rng, float(rng.uniform(0.22, 0.28)), 0.012)
        wave += loud * _noise(time, rng, 900.0, 4500.0)
    return wave


def _music(time: Wave, rng: np.random.Generator) -> Wave:
    scale = 220 * 2 ** (np.array([0, 4, 7, 12, 7, 4, 9, 5]) / 12)
    since = time % 0.25
    base = scale[((time / 0.25).astype(int) + int(rng.integers(8))) % 8]
    tones = sum(np.sin(2 * np.pi * k * base * since) / k for k in range(1, 6))
    return np.asarray(tones * np.exp(-since / 0.2) + 0.5 * np.sin(2 * np.pi * 110 * time))


_MAKERS: dict[str, Callable[[Wave, np.random.Generator], Wave]] = {
    "dog": _dog, "bell": _bell, "rain": _rain, "engine": _engine, "siren": _siren, "knocking": _knocking,
    "whistle": _whistle, "clapping": _clapping, "music": _music,
}  # fmt: skip
