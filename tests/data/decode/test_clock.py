"""Seconds of frames and ends of files, in containers that do not store them for each frame and stream."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import pytest
import torch

from omnihuman.data.media import probe, read
from omnihuman.data.record import BadSample
from tests.data.conftest import write_clip

NUM_FRAMES = 100
SHARP = {"crf": "8", "bf": "3", "g": "12"}
OPEN_GROUPS = {"x264-params": "open-gop=1:keyint=8:bframes=3:b-pyramid=2"}
MPEG = {"video_codec": "mpeg2video", "options": {"b": "6000000", "bf": "2"}}
TIMELESS = {
    "h264.avi": {"options": SHARP},
    "open.avi": {"options": SHARP | OPEN_GROUPS},
    "no_b.avi": {"options": SHARP | {"bf": "0"}},
    "mpeg4.avi": {"video_codec": "mpeg4", "options": {"b": "6000000", "bf": "2"}},
    "mpeg2.vob": MPEG,
    "h264.vob": {"options": SHARP},
    "raw.h264": {"options": SHARP},
    "raw.m2v": MPEG,
    "raw.ivf": {"video_codec": "libvpx-vp9", "options": {"crf": "10", "cpu-used": "8", "deadline": "realtime"}},
}
SPANS = [(0.0, None), (1.0, 3.0), (2.5, None), (0.0, 0.12)]


def find_numbers(frames: torch.Tensor, reference: torch.Tensor) -> list[int]:
    """Return the number of the reference frame that each frame shows."""
    distances = [(reference.float() - frame.float()).abs().mean((1, 2, 3)) for frame in frames]
    return [int(distance.argmin()) for distance in distances]


def copy(source: Path, target: Path, change: Callable[[Any], None]) -> Path:
    """Copy the frames of a file without coding, with changed time stamps."""
    with av.open(str(source)) as container, av.open(str(target), "w") as out:
        stream = out.add_stream_from_template(container.streams.video[0])
        for packet in container.demux(video=0):
            if packet.size:
                change(packet)
                packet.stream = stream
                out.mux(packet)
    return target


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, torch.Tensor]:
    """Return an mp4 of 100 frames, and these."""
    path = write_clip(tmp_path_factory.mktemp("mp4") / "a.mp4", NUM_FRAMES, 0, options=SHARP)
    return path, read(path, num_frames=NUM_FRAMES)[0]


def check_against(path: Path, reference: tuple[Path, torch.Tensor]) -> None:
    """Check that the same frames are selected as of the mp4, at the same seconds."""
    for start, end in SPANS:
        expected, expected_times, _ = read(reference[0], num_frames=8, start=start, end=end)
        frames, times, _ = read(path, num_frames=8, start=start, end=end)
        numbers = find_numbers(frames, reference[1])
        assert numbers == find_numbers(expected, reference[1]), (path.name, start, end)
        assert times == pytest.approx(expected_times, abs=1e-3), (path.name, start, end)


@pytest.mark.parametrize("name", TIMELESS)
def test_frames_without_display_times_are_those_of_the_mp4(
    name: str, reference: tuple[Path, torch.Tensor], tmp_path: Path
) -> None:
    check_against(write_clip(tmp_path / name, NUM_FRAMES, 0, **TIMELESS[name]), reference)


def to_decoding_times(packet: Any) -> None:
    packet.dts += 2 * 512  # the first one is negative
    packet.pts = packet.dts


def double(packet: Any) -> None:
    packet.pts = packet.pts // 1024 * 1024
    packet.dts -= 4096


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
@pytest.mark.parametrize("change", [to_decoding_times, double])
def test_invalid_display_times_are_repaired(
    change: Callable[[Any], None], suffix: str, reference: tuple[Path, torch.Tensor], tmp_path: Path
) -> None:
    path = copy(reference[0], tmp_path / f"a.{suffix}", change)
    frames, times, _ = read(path, num_frames=8)
    assert find_numbers(frames, reference[1]) == [6, 19, 31, 43, 56, 68, 80, 93]
    assert times == sorted(set(times))


def test_frames_before_the_end_of_a_clip_in_matroska(tmp_path: Path) -> None:
    """The first packets have no decoding time, and the second one is shown after the frames that follow it."""
    path = write_clip(tmp_path / "a.mkv", 20, 0, options=SHARP)
    assert read(path, num_frames=3, end=0.1)[1] == pytest.approx([0.0, 0.04, 0.08])


CUT = {
    "a.mkv": {"audio_codec": "flac"},
    "a.webm": {"video_codec": "libvpx-vp9", "audio_codec": "libopus", "options": {"cpu-used": "8"}},
    "a.flv": {"sample_rate": 44100},
    "a.wmv": {"video_codec": "wmv2", "audio_codec": "libmp3lame", "sample_rate": 44100, "options": {}},
    "silent.mkv": {"seconds": 0},
    "sound.mka": {"num_frames": 0, "audio_codec": "flac"},
}


@pytest.mark.parametrize("name", CUT)
def test_a_cut_file_is_compared_with_the_length_in_its_header(name: str, tmp_path: Path) -> None:
    path = write_clip(tmp_path / name, **({"num_frames": 100, "seconds": 4.0} | CUT[name]))
    header = probe(path)
    amounts = {"num_frames": 4 * header.has_video, "num_samples": header.num_samples()}
    read(path, header=header, **amounts)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) * 6 // 10])
    header = probe(path)
    amounts = {"num_frames": 4 * header.has_video, "num_samples": header.num_samples()}
    with pytest.raises(BadSample, match=r"2\.\d\d s of [34]\.\d\d s") as caught:
        read(path, header=header, **amounts)
    assert caught.value.reason == "truncated"
    within = {"num_frames": amounts["num_frames"], "num_samples": header.num_samples(0.5, 1.5)}
    assert read(path, header=header, start=0.5, end=1.5, **within) != (None, [], None), "it lies before the cut"


@pytest.mark.parametrize("name", ["a.mkv", "a.wmv", "a.flv", "a.avi", "a.mp4"])
@pytest.mark.parametrize(("num_frames", "seconds"), [(25, 3.0), (75, 1.0)])
def test_a_shorter_stream_is_not_cut(name: str, num_frames: int, seconds: float, tmp_path: Path) -> None:
    codecs = {"video_codec": "wmv2", "audio_codec": "libmp3lame"} if name == "a.wmv" else {"audio_codec": "libmp3lame"}
    path = write_clip(tmp_path / name, num_frames, seconds, sample_rate=44100, options={}, **codecs)
    header = probe(path)
    assert header.audio[1] == pytest.approx(seconds, abs=0.15)
    read(path, header=header, num_frames=4, num_samples=header.num_samples())


@pytest.mark.parametrize("name", ["live.mkv", "live.webm", "a.ts", "raw.h264"])
@pytest.mark.parametrize("percent", [60, 100])
def test_a_file_without_a_length_is_read(name: str, percent: int, tmp_path: Path) -> None:
    options: dict[str, Any] = {"seconds": 4.0, "audio_codec": "mp2"}
    if name.startswith("live"):
        options |= {"container": {"live": "1"}, "audio_codec": "libopus"}
    if name == "live.webm":
        options |= {"video_codec": "libvpx-vp9", "options": {"cpu-used": "8"}}
    if name == "raw.h264":
        options["seconds"] = 0
    path = write_clip(tmp_path / name, NUM_FRAMES, **options)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) * percent // 100])
    header = probe(path)
    frames, times, _ = read(path, header=header, num_frames=8, num_samples=header.num_samples())
    assert frames is not None and times == sorted(set(times))


@pytest.mark.parametrize("name", ["a.vob", "a.ts", "a.h264"])
def test_a_clip_after_the_last_frame_raises(name: str, tmp_path: Path) -> None:
    path = write_clip(tmp_path / name, 50, 0)
    assert read(path, num_frames=1, start=1.8, end=1.9)[1][0] >= 1.8
    with pytest.raises(BadSample, match="starts at 5 s") as caught:
        read(path, num_frames=1, start=5.0)
    assert caught.value.reason == "empty_clip"
