"""Sound events of the built-in corpus, synthesized from noise and tones."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from jaxtyping import Float

SAMPLE_RATE = 16000
Wave = Float[np.ndarray, " S"]


def synthesize_event(name: str, num_samples: int, rng: np.random.Generator) -> Wave:
    """Synthesize a sound event by name, `[samples]` within -0.6 and 0.6.

    >>> synthesize_event("bell", 16000, np.random.default_rng(0)).shape
    (16000,)
    """
    wave = _SYNTHESIZERS[name](np.arange(num_samples) / SAMPLE_RATE, rng)
    peak = max(float(np.abs(wave).max()), 1e-6)
    return np.asarray(0.6 * float(rng.uniform(0.7, 1.0)) * wave / peak)


def _band_noise(time: Wave, rng: np.random.Generator, low: float, high: float) -> Wave:
    """Return noise between two frequencies in Hz, with a standard deviation of 1."""
    spectrum = np.fft.rfft(rng.standard_normal(len(time)))
    frequency = np.fft.rfftfreq(len(time), 1 / SAMPLE_RATE)
    wave = np.fft.irfft(spectrum * ((frequency > low) & (frequency < high)), n=len(time))
    return np.asarray(wave / wave.std())


def _repeat_strokes(time: Wave, rng: np.random.Generator, period: float, decay: float) -> tuple[Wave, Wave]:
    """Return the seconds since the last of evenly spaced strokes, and the decaying level of the strokes."""
    elapsed = (time - float(rng.uniform(0, period / 2))) % period
    return elapsed, np.exp(-elapsed / decay)


def _synthesize_dog(time: Wave, rng: np.random.Generator) -> Wave:
    elapsed, _ = _repeat_strokes(time, rng, float(rng.uniform(0.45, 0.6)), 1.0)
    level = np.clip(elapsed / 0.02, 0, 1) * np.clip((0.2 - elapsed) / 0.08, 0, 1)
    pitch = float(rng.uniform(330, 480)) * (1 + 0.5 * np.sin(np.pi * np.clip(elapsed / 0.2, 0, 1)))
    phase = np.cumsum(pitch) / SAMPLE_RATE
    buzz = sum(np.sin(2 * np.pi * k * phase) / k**0.5 for k in range(1, 6))
    return np.asarray(level * (buzz + 0.8 * _band_noise(time, rng, 500.0, 2500.0)))


def _synthesize_bell(time: Wave, rng: np.random.Generator) -> Wave:
    elapsed, level = _repeat_strokes(time, rng, float(rng.uniform(0.9, 1.3)), 0.5)
    base = float(rng.uniform(600, 900))
    parts = [np.sin(2 * np.pi * base * k * elapsed) / (i + 1) for i, k in enumerate((1.0, 2.0, 2.76, 5.4))]
    return np.asarray(level * np.sum(parts, axis=0))


def _synthesize_rain(time: Wave, rng: np.random.Generator) -> Wave:
    drops = np.zeros(len(time))
    drops[rng.integers(0, len(time), len(time) // 200)] = rng.uniform(2, 9, len(time) // 200)
    return 0.5 * _band_noise(time, rng, 1500.0, 7800.0) + np.convolve(drops, np.exp(-np.arange(40) / 8), "same")


def _synthesize_engine(time: Wave, rng: np.random.Generator) -> Wave:
    speed = float(rng.uniform(32, 50)) * (1 + 0.25 * np.sin(2 * np.pi * 0.4 * time))
    phase = np.cumsum(speed) / SAMPLE_RATE
    buzz = sum(np.sin(2 * np.pi * k * phase) / k**0.4 for k in range(1, 12))
    return np.asarray(buzz + 0.4 * _band_noise(time, rng, 20.0, 300.0))


def _synthesize_siren(time: Wave, rng: np.random.Generator) -> Wave:
    pitch = 900 + 400 * np.sin(2 * np.pi * float(rng.uniform(0.6, 0.9)) * time)
    phase = np.cumsum(pitch) / SAMPLE_RATE
    return np.asarray(np.sin(2 * np.pi * phase) + 0.4 * np.sin(6 * np.pi * phase))


def _synthesize_knocking(time: Wave, rng: np.random.Generator) -> Wave:
    elapsed, level = _repeat_strokes(time, rng, float(rng.uniform(0.3, 0.4)), 0.025)
    active = (time % 1.6) < 1.1
    knock = np.sin(2 * np.pi * 190 * elapsed) + 0.5 * _band_noise(time, rng, 100.0, 900.0)
    return np.asarray(active * level * knock)


def _synthesize_whistle(time: Wave, rng: np.random.Generator) -> Wave:
    steps = rng.integers(0, 5, 40)
    note = steps[(time / 0.3).astype(int) % 40]
    phase = np.cumsum(1600 * 2 ** (note / 6) * (1 + 0.01 * np.sin(2 * np.pi * 6 * time))) / SAMPLE_RATE
    tone = np.sin(2 * np.pi * phase) * np.clip((time % 0.3) / 0.03, 0, 1)
    return np.asarray(tone + 0.03 * _band_noise(time, rng, 1000.0, 4000.0))


def _synthesize_clapping(time: Wave, rng: np.random.Generator) -> Wave:
    wave = np.zeros(len(time))
    for _ in range(3):
        _, level = _repeat_strokes(time, rng, float(rng.uniform(0.22, 0.28)), 0.012)
        wave += level * _band_noise(time, rng, 900.0, 4500.0)
    return wave


def _synthesize_music(time: Wave, rng: np.random.Generator) -> Wave:
    scale = 220 * 2 ** (np.array([0, 4, 7, 12, 7, 4, 9, 5]) / 12)
    elapsed = time % 0.25
    base = scale[((time / 0.25).astype(int) + int(rng.integers(8))) % 8]
    tones = sum(np.sin(2 * np.pi * k * base * elapsed) / k for k in range(1, 6))
    return np.asarray(tones * np.exp(-elapsed / 0.2) + 0.5 * np.sin(2 * np.pi * 110 * time))


_SYNTHESIZERS: dict[str, Callable[[Wave, np.random.Generator], Wave]] = {
    "dog": _synthesize_dog,
    "bell": _synthesize_bell,
    "rain": _synthesize_rain,
    "engine": _synthesize_engine,
    "siren": _synthesize_siren,
    "knocking": _synthesize_knocking,
    "whistle": _synthesize_whistle,
    "clapping": _synthesize_clapping,
    "music": _synthesize_music,
}
