"""Damaged media of every container: a result or a ``BadSample``, in bounded time and memory."""

import random
import resource
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from PIL import Image

from omnihuman.data.media import probe, read
from omnihuman.data.record import BadSample
from tests.data.conftest import draw_frame, write_clip
from tests.data.decode.heif import write_heif

VPX = {"video_codec": "libvpx-vp9", "options": {"cpu-used": "8", "deadline": "realtime"}, "audio_codec": "libopus"}
CLIPS = {
    "a.mp4": {},
    "start.mp4": {"container": {"movflags": "+faststart"}},
    "parts.mp4": {"container": {"movflags": "frag_keyframe+empty_moov"}},
    "hevc.mp4": {"video_codec": "libx265", "options": {"x265-params": "log-level=none:keyint=8:bframes=2"}},
    "b.mkv": {"audio_codec": "flac"},
    "c.webm": VPX,
    "d.avi": {"audio_codec": "pcm_s16le"},
    "mpeg4.avi": {"video_codec": "mpeg4", "audio_codec": "libmp3lame"},
    "e.ts": {"audio_codec": "mp2"},
    "f.vob": {"video_codec": "mpeg2video", "audio_codec": "mp2"},
    "g.flv": {"sample_rate": 44100},
    "h.wmv": {"video_codec": "wmv2", "audio_codec": "libmp3lame", "sample_rate": 44100},
    "i.mov": {"video_codec": "mjpeg", "pix_fmt": "yuvj420p", "audio_codec": "pcm_s16le"},
    "j.h264": {"seconds": 0},
    "k.gif": {"video_codec": "gif", "pix_fmt": "rgb8", "seconds": 0, "options": {}},
    "l.mxf": {"video_codec": "mpeg2video", "seconds": 0},
}
IMAGES = ("m.png", "n.jpg", "o.webp", "p.bmp", "q.tiff")
MAX_SECONDS, MAX_GROWTH = 30, 600 << 10
"""Largest duration of a file, and largest growth of the process in KiB."""


def flip(data: bytearray, other: bytes, rng: random.Random) -> bytes:
    for _ in range(rng.choice((1, 3, 20, 100))):
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    return bytes(data)


def flip_header(data: bytearray, other: bytes, rng: random.Random) -> bytes:
    for _ in range(rng.choice((1, 2, 8))):
        data[rng.randrange(min(len(data), 1000))] = rng.randrange(256)
    return bytes(data)


def cut(data: bytearray, other: bytes, rng: random.Random) -> bytes:
    return bytes(data[: rng.randrange(len(data))])


def remove(data: bytearray, other: bytes, rng: random.Random) -> bytes:
    start = rng.randrange(len(data))
    del data[start : start + rng.choice((1, 7, 500))]
    return bytes(data)


def splice(data: bytearray, other: bytes, rng: random.Random) -> bytes:
    return bytes(data[: rng.randrange(len(data))]) + other[rng.randrange(len(other)) :]


def blank(data: bytearray, other: bytes, rng: random.Random) -> bytes:
    start, length = rng.randrange(len(data)), rng.choice((4, 64, 2000))
    data[start : start + length] = bytes([rng.choice((0, 255))]) * length
    return bytes(data)


MUTATIONS: tuple[Callable[[bytearray, bytes, random.Random], bytes], ...] = (
    flip,
    flip_header,
    cut,
    remove,
    splice,
    blank,
)


@pytest.fixture(scope="module")
def originals(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("originals")
    paths = [write_clip(folder / name, **({"num_frames": 20, "seconds": 0.8} | CLIPS[name])) for name in CLIPS]
    frames = [Image.fromarray(draw_frame(number, 40, 30)) for number in range(3)]
    for name in IMAGES:
        frames[0].save(folder / name)
        paths.append(folder / name)
    frames[0].save(folder / "apng.png", save_all=True, append_images=frames[1:], duration=40)
    paths += [folder / "apng.png", write_heif(folder / "r.heic", [[60]]), write_heif(folder / "s.avif", [[60, 180]])]
    return paths


def mutate(originals: list[Path], count: int, folder: Path) -> Iterator[Path]:
    """Yield mutants, each a file with the suffix of its original."""
    rng = random.Random(0)
    for number in range(count):
        path = originals[number % len(originals)]
        other = rng.choice(originals).read_bytes()
        mutant = folder / f"{number}{path.suffix}"
        mutant.write_bytes(rng.choice(MUTATIONS)(bytearray(path.read_bytes()), other, rng))
        yield mutant
        mutant.unlink()


def read_all(path: Path, span: tuple[float, float | None]) -> str:
    """Read frames and audio of a file; return the reason if that fails."""
    try:
        header = probe(path, timeout=20.0)
        num_samples = header.num_samples(*span)
        start, end = span
        read(path, num_frames=4 * header.has_video, num_samples=num_samples, start=start, end=end, timeout=20.0)
    except BadSample as bad:
        assert path.name in str(bad), bad
        return bad.reason
    return "read"


def check(originals: list[Path], count: int, folder: Path) -> None:
    reasons: dict[str, int] = {}
    for number, path in enumerate(mutate(originals, count, folder)):
        before, begin = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.monotonic()
        reason = read_all(path, (0.0, None) if number % 3 else (0.3, 0.6))
        reasons[reason] = reasons.get(reason, 0) + 1
        assert time.monotonic() - begin < MAX_SECONDS, path
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < MAX_GROWTH, path
    assert reasons["read"] > count // 20, reasons
    assert "timeout" not in reasons, reasons


def test_originals_are_read(originals: list[Path]) -> None:
    assert [read_all(path, (0.0, None)) for path in originals] == ["read"] * len(originals)


def test_mutants_are_read_or_refused(originals: list[Path], tmp_path: Path) -> None:
    check(originals, 96, tmp_path)


@pytest.mark.slow
def test_many_mutants_are_read_or_refused(originals: list[Path], tmp_path: Path) -> None:
    check(originals, 1500, tmp_path)
