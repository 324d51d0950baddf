"""Damaged audio files: read, or refused as a ``BadSample``; no other error, no hang, and little memory."""

import random
import resource
import sys
import time
from pathlib import Path

import pytest

from omnihuman.data.media import probe, read
from omnihuman.data.record import BadSample

from .conftest import write_clip

CODECS = {
    "a.wav": "pcm_s16le",
    "a.flac": "flac",
    "a.mp3": "libmp3lame",
    "a.m4a": "aac",
    "a.aac": "aac",
    "a.opus": "libopus",
    "a.ogg": "flac",
    "a.mka": "flac",
}
MAX_MEMORY = 600 << 20


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """Return the content of a file of each kind."""
    folder = tmp_path_factory.mktemp("sources")
    contents = {}
    for name, codec in CODECS.items():
        clip = write_clip(folder / name, num_frames=0, audio_codec=codec, sample_rate=48000, layout="mono")
        contents[name] = clip.read_bytes()
    return contents


def mutate(content: bytes, other: bytes, rng: random.Random) -> bytes:
    """Return content with flipped bits, overwritten headers, parts left out or cut, or of two files."""
    data = bytearray(content)
    kind = rng.choice(["bits", "header", "cut", "hole", "splice", "repeat"])
    first, last = sorted(rng.randrange(len(data)) for _ in range(2))
    if kind == "bits":
        for _ in range(rng.choice([1, 10, 200])):
            data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    elif kind == "header":
        for _ in range(rng.choice([1, 4, 16])):
            data[rng.randrange(min(len(data), 300))] = rng.choice([0, 255, rng.randrange(256)])
    elif kind == "cut":
        del data[last:]
    elif kind == "hole":
        del data[first:last]
    elif kind == "splice":
        data[first:] = other[rng.randrange(len(other)) :]
    else:
        data[first:first] = data[first:last]
    return bytes(data)


def read_mutated(file: Path, rng: random.Random) -> bool:
    """Read a file as a clip of a random span; return whether it can be used."""
    start, end = rng.choice([(0.0, None), (0.5, None), (0.4, 1.1)])
    try:
        header = probe(file, timeout=10)
        count = header.num_samples(start, end)
        if count:
            waveform = read(file, num_samples=count, start=start, end=end, header=header, timeout=10)[2]
            assert waveform is not None and len(waveform) == count and waveform.isfinite().all()
        return True
    except BadSample as bad:
        assert file.name in str(bad)
        return False


def fuzz(sources: dict[str, bytes], folder: Path, count: int, seed: int) -> tuple[int, float]:
    """Read mutated files; return the number of those that could be used, and the longest seconds of one."""
    rng = random.Random(seed)
    num_usable, longest = 0, 0.0
    for number in range(count):
        name = list(sources)[number % len(sources)]
        file = folder / f"{number}_{name}"
        file.write_bytes(mutate(sources[name], rng.choice(list(sources.values())), rng))
        begin = time.monotonic()
        num_usable += read_mutated(file, rng)
        longest = max(longest, time.monotonic() - begin)
        file.unlink()
    return num_usable, longest


def test_damaged_files_are_read_or_refused(sources: dict[str, bytes], tmp_path: Path) -> None:
    num_usable, longest = fuzz(sources, tmp_path, 96, seed=0)
    assert 10 < num_usable < 90 and longest < 20


@pytest.mark.slow
def test_many_damaged_files_are_read_or_refused(sources: dict[str, bytes], tmp_path: Path) -> None:
    unit = 1 if sys.platform == "darwin" else 1024
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    num_usable, longest = fuzz(sources, tmp_path, 1500, seed=1)
    assert 150 < num_usable < 1400 and longest < 20
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit - before < MAX_MEMORY
