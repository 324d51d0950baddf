import itertools
import random

import numpy as np
import pytest

from omnihuman.source.mixing import PEAK, draw_pairs, mix_speech


@pytest.mark.parametrize("level", [-4.0, 0.0, 6.0])
def test_mixtures_have_the_level_and_the_delay(level: float) -> None:
    rng = np.random.default_rng(0)
    first, second = (rng.standard_normal(size).astype(np.float32) * scale for size, scale in ((400, 0.3), (300, 0.001)))
    mixture = mix_speech(first, second, 500, level)
    assert mixture.shape == (800,) and mixture.dtype == np.float32
    assert np.abs(mixture).max() == pytest.approx(PEAK) and not mixture[400:500].any()
    ratio = np.sqrt(np.mean(mixture[:400] ** 2) / np.mean(mixture[500:] ** 2))
    assert 20 * np.log10(ratio) == pytest.approx(level, abs=1e-3)
    overlapping = mix_speech(first, second, 100, level)
    assert overlapping.shape == (400,)
    assert not mix_speech(np.zeros(3, np.float32), np.zeros(3, np.float32), 0, level).any()


def test_pairs_are_of_different_speakers_and_use_each_item_once() -> None:
    items = list("aaaabbbbcccc")
    pairs = draw_pairs(list(range(12)), items.__getitem__, random.Random(1))
    assert sorted(itertools.chain(*pairs)) == list(range(12))
    assert all(items[first] != items[second] for first, second in pairs)
    assert pairs != draw_pairs(list(range(12)), items.__getitem__, random.Random(2))
    assert len(draw_pairs(list(range(5)), items.__getitem__, random.Random(1))) == 1
