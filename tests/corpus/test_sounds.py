"""Sound events: each is loud enough and unlike the others."""

from itertools import combinations

import numpy as np

from omnihuman.corpus.sounds import synthesize_event
from omnihuman.corpus.world import SOUNDS


def test_sound_events_are_loud_and_distinct() -> None:
    spectra = {}
    for name in SOUNDS:
        samples = synthesize_event(name, 32000, np.random.default_rng(0))
        assert samples.shape == (32000,) and 0.4 < np.abs(samples).max() <= 0.6
        spectrum = np.abs(np.fft.rfft(samples))[: 16000 // 64 * 64].reshape(-1, 64).sum(1)
        spectra[name] = spectrum / np.linalg.norm(spectrum)
    for one, other in combinations(SOUNDS, 2):
        assert spectra[one] @ spectra[other] < 0.95, (one, other)
