"""Mixtures of the speech of two people, as LibriMix makes them."""

import random
from collections.abc import Callable, Hashable, Sequence
from typing import TypeVar

import numpy as np
from jaxtyping import Float32

PEAK = 0.9
"""Largest sample of a mixture."""

T = TypeVar("T")


def mix_speech(
    first: Float32[np.ndarray, " F"], second: Float32[np.ndarray, " S"], delay: int, level: float
) -> Float32[np.ndarray, " M"]:
    """Return the mixture of two waveforms ``[F]`` and ``[S]``, from the first sample of one to the last of the other.

    Reference: LibriMix (Cosentino et al. 2020), mode ``max``.
    Differs from it: the loudness is the RMS of the utterance, not that of ITU-R BS.1770.

    Args:
        first: begins at once.
        second: begins after the delay.
        delay: in samples.
        level: of the first above the second, in dB.

    >>> mixture = mix_speech(np.ones(2, np.float32), np.ones(2, np.float32), 3, 20.0)
    >>> [round(value, 2) for value in mixture.tolist()]
    [0.9, 0.9, 0.0, 0.09, 0.09]
    """
    gain = _measure_rms(first) / _measure_rms(second) * 10 ** (-level / 20)
    mixture = np.zeros(max(len(first), delay + len(second)), np.float32)
    mixture[: len(first)] += first
    mixture[delay : delay + len(second)] += np.float32(gain) * second
    peak = float(np.abs(mixture).max(initial=0.0))
    return mixture * np.float32(PEAK / peak) if peak > 0 else mixture


def _measure_rms(waveform: Float32[np.ndarray, " S"]) -> float:
    return max(float(np.sqrt(np.mean(np.square(waveform, dtype=np.float64)))), 1e-5)


def draw_pairs(items: Sequence[T], find_speaker: Callable[[T], Hashable], rng: random.Random) -> list[tuple[T, T]]:
    """Return pairs of items of different speakers; each item is in one pair at most.

    Items are left over where more than half of them are of one speaker.

    Args:
        items: utterances.
        find_speaker: item -> its speaker.
        rng: decides the pairs.

    >>> draw_pairs(["a1", "a2", "b1"], lambda name: name[0], random.Random(0))
    [('a2', 'b1')]
    """
    pairs: list[tuple[T, T]] = []
    waiting: list[T] = []  # all of one speaker
    for item in rng.sample(items, len(items)):
        if waiting and find_speaker(waiting[-1]) != find_speaker(item):
            pairs.append((waiting.pop(), item))
        else:
            waiting.append(item)
    for index, (first, second) in enumerate(list(pairs)):
        if len(waiting) < 2:
            break
        if find_speaker(waiting[-1]) not in (find_speaker(first), find_speaker(second)):
            pairs[index] = (first, waiting.pop())
            pairs.append((waiting.pop(), second))
    return pairs
