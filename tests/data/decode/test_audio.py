"""Audio of files from a pipe, with gaps, or damaged."""

import random
import resource
import struct
import sys
import time
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import av
import numpy as np
import pytest
import torch
from torch import Tensor

from omnihuman.data.decode.audio import decode_audio
from omnihuman.data.media import Header, probe, read, read_file
from omnihuman.data.record import BadSample
from tests.data.conftest import write_clip

CONTAINERS = {
    "aac.mp4": {"num_frames": 100},
    "alone.m4a": {"num_frames": 0, "sample_rate": 44100},
    "opus.mp4": {"num_frames": 0, "audio_codec": "libopus"},
    "flac.mkv": {"num_frames": 100, "audio_codec": "flac"},
    "aac.ts": {"num_frames": 0},
    "opus.ogg": {"num_frames": 0, "audio_codec": "libopus"},
}
PIPED = {
    "wav": {"format": "wav", "codec": "pcm_s16le"},
    "rf64": {"format": "wav", "codec": "pcm_s16le", "options": {"rf64": "always"}},
    "caf": {"format": "caf", "codec": "pcm_s16be"},
    "flac": {"format": "flac", "codec": "flac"},
    "matroska": {"format": "matroska", "codec": "flac"},
}

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
"""Bytes that reading damaged files may add."""


class Pipe:
    """An output without a position, which a writer cannot go back on."""

    def __init__(self) -> None:
        self.content = bytearray()

    def write(self, data: bytes) -> int:
        self.content += data
        return len(data)


def write_tone(target: Any, codec: str, **options: Any) -> None:
    """Write four seconds of a tone at 16 kHz."""
    tone = (0.4 * np.sin(np.arange(64000) / 9)).astype(np.float32)
    with av.open(target, "w", **options) as out:
        stream = out.add_stream(codec, rate=16000, layout="mono")
        frame = av.AudioFrame.from_ndarray(tone[None], format="fltp", layout="mono")
        frame.sample_rate, frame.pts = 16000, 0
        resampler = av.AudioResampler(stream.codec_context.format, "mono", 16000, frame_size=1024)
        for block in [*resampler.resample(frame), *resampler.resample(None)]:
            out.mux(stream.encode(block))
        out.mux(stream.encode(None))


def leave_out(source: Path, target: Path, begin: float, end: float) -> Path:
    """Copy a file without the audio packets between two seconds."""
    with av.open(str(source)) as container, av.open(str(target), "w") as out:
        copies = {stream.index: out.add_stream_from_template(stream) for stream in container.streams}
        for packet in container.demux():
            if packet.dts is None:
                continue
            second = float(packet.pts * packet.time_base)
            if packet.stream.type == "video" or not begin <= second < end:
                packet.stream = copies[packet.stream_index]
                out.mux(packet)
    return target


def read_audio(path: Path, header: Header, start: float = 0.0, end: float | None = None) -> tuple[Tensor, list[float]]:
    count = header.num_samples(start, end)
    clip = read_file(path, 0, count, (start, end), header, timeout=60.0)
    assert clip.waveform is not None and len(clip.waveform) == count
    return clip.waveform, list(clip.gaps)


@pytest.mark.parametrize("name", PIPED)
def test_a_file_from_a_pipe_has_all_samples(name: str, tmp_path: Path) -> None:
    options = dict(PIPED[name])
    codec = str(options.pop("codec"))
    pipe, complete = Pipe(), tmp_path / f"complete.{options['format']}"
    write_tone(pipe, codec, **options)
    write_tone(str(complete), codec, **options)
    (tmp_path / "piped").write_bytes(pipe.content)
    header = probe(tmp_path / "piped")
    assert header.num_samples() == 64000
    assert torch.equal(read_audio(tmp_path / "piped", header)[0], read_audio(complete, probe(complete))[0])


@pytest.mark.parametrize("size", [0, 0x7FFFF000, 0x7FFFFFFF, 0xFFFFFFFF])
def test_placeholders_of_wav(size: int, media_root: Path, tmp_path: Path) -> None:
    content = bytearray((media_root / "tone.wav").read_bytes())
    position = content.index(b"data") + 4
    content[position : position + 4] = struct.pack("<I", size)
    (tmp_path / "piped.wav").write_bytes(content)
    header = probe(tmp_path / "piped.wav")
    expected, _ = read_audio(media_root / "tone.wav", probe(media_root / "tone.wav"))
    assert torch.equal(read_audio(tmp_path / "piped.wav", header)[0], expected)
    assert torch.equal(read_audio(tmp_path / "piped.wav", header, 1.2, 1.7)[0], expected[19200:27200])


@pytest.mark.parametrize("name", CONTAINERS)
def test_a_gap_is_silent_and_what_follows_is_in_time(name: str, tmp_path: Path) -> None:
    source = write_clip(tmp_path / f"whole_{name}", **({"seconds": 4.0, "layout": "mono"} | CONTAINERS[name]))
    path = leave_out(source, tmp_path / name, 1.0, 2.0)
    expected, no_gaps = read_audio(source, probe(source))
    header = probe(path)
    waveform, gaps = read_audio(path, header)
    assert no_gaps == [] and gaps == [pytest.approx(1.0, abs=0.1)]
    assert torch.allclose(waveform[3200:14400], expected[3200:14400], atol=1e-4)
    assert waveform[17600:30400].abs().max() < 1e-3
    assert torch.allclose(waveform[35200:57600], expected[35200:57600], atol=5e-3)
    for start, end in [(0.3, 1.5), (1.2, 1.8), (1.5, 2.5), (1.5, None), (2.6, 3.4)]:
        clip, clip_gaps = read_audio(path, header, start, end)
        part = waveform[round(start * 16000) :][: len(clip)]
        assert torch.allclose(clip, part, atol=1e-2), (start, end)
        covered = max(0.0, min(end or 4.0, 2.0) - max(start, 1.0))
        assert sum(clip_gaps) == pytest.approx(covered, abs=0.1), (start, end)


@pytest.mark.parametrize("name", ["late.ogg", "late.mka", "late.m4a", "late.ts"])
def test_audio_may_begin_late(name: str, tmp_path: Path) -> None:
    codec = {"ogg": "libopus", "mka": "flac"}.get(name[-3:], "aac")
    path = write_clip(tmp_path / name, num_frames=0, audio_codec=codec, layout="mono", delay=0.7)
    waveform, gaps = read_audio(path, probe(path))
    assert len(waveform) == pytest.approx(32000, abs=900) and gaps == []
    assert waveform[:1600].abs().max() > 0.1


def test_time_stamps_that_contradict_each_other_raise() -> None:
    blocks = []
    for position in (0, 1600, 17600, 4800):  # one block is stamped a second too late
        block = av.AudioFrame.from_ndarray(np.ones((1, 1600), np.float32), format="fltp", layout="mono")
        block.sample_rate, block.pts, block.time_base = 16000, position, Fraction(1, 16000)
        blocks.append([block])
    context = SimpleNamespace(decode=lambda packet: [] if packet is None else packet)
    stream = SimpleNamespace(codec_context=context, container=SimpleNamespace(start_time=0))
    with pytest.raises(BadSample, match=r"jump\.mkv.*go back by 0\.90 s") as caught:
        decode_audio(Path("jump.mkv"), stream, blocks, (0.0, 2.0), 32000, lambda: None)
    assert caught.value.reason == "corrupt"


def test_a_matroska_file_that_is_cut_is_truncated(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "a.mka", num_frames=0, audio_codec="flac", seconds=4.0)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) * 6 // 10])
    with pytest.raises(BadSample, match=r"2\.4\d s.* 4\.00 s") as caught:
        read_audio(path, probe(path))
    assert caught.value.reason == "truncated"


def test_the_sample_rate_may_change_midway(tmp_path: Path) -> None:
    parts = []
    for rate, layout in ((44100, "stereo"), (22050, "mono")):
        part = write_clip(tmp_path / f"{rate}.aac", num_frames=0, seconds=1.0, sample_rate=rate, layout=layout)
        parts.append(part.read_bytes())
    path = tmp_path / "both.aac"
    path.write_bytes(b"".join(parts))
    header = Header(False, (0.0, 1.9))
    waveform, _ = read_audio(path, header)
    assert waveform[20000:].abs().max() > 0.1


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
        header = probe(file, timeout=10.0)
        count = header.num_samples(start, end)
        if count:
            waveform = read(file, num_samples=count, start=start, end=end, header=header, timeout=10.0)[2]
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
