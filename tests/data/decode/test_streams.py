"""Files with several tracks, or with one that cannot be decoded."""

from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from av.stream import Disposition

from omnihuman.data.media import merge_headers, probe, read, read_clip
from omnihuman.data.record import BadSample, Record
from tests.data.conftest import draw_frame, write_clip


def write_tracks(path: Path, levels: list[float], default: int, num_videos: int = 1, default_video: int = 0) -> Path:
    """Write a file with an audio track per level, of constant samples, and videos of 10, 20 ... frames."""
    with av.open(str(path), "w") as out:
        videos = []
        for number in range(num_videos):
            video = out.add_stream("mpeg4", rate=25)
            video.width, video.height, video.pix_fmt = 32, 24, "yuv420p"
            video.disposition = Disposition.default if number == default_video else 0
            videos.append(video)
        audios = []
        for number in range(len(levels)):
            audio = out.add_stream("flac", rate=16000, layout="mono")
            audio.disposition = Disposition.default if number == default else 0
            audios.append(audio)
        for number, video in enumerate(videos):
            for index in range(10 * (number + 1)):
                out.mux(video.encode(av.VideoFrame.from_ndarray(draw_frame(index, 32, 24), format="rgb24")))
            out.mux(video.encode(None))
        for level, audio in zip(levels, audios, strict=True):
            samples = np.full((1, 16000), round(level * 32767), np.int16)
            frame = av.AudioFrame.from_ndarray(samples, format="s16", layout="mono")
            frame.sample_rate, frame.pts = 16000, 0
            resampler = av.AudioResampler("s16", "mono", 16000, frame_size=audio.codec_context.frame_size or 4096)
            for block in [*resampler.resample(frame), *resampler.resample(None)]:
                out.mux(audio.encode(block))
            out.mux(audio.encode(None))
    return path


def build_record(file: Path, **fields: object) -> Record:
    messages = (("user", "<video>\n<audio>\nWho?"), ("assistant", ""))
    return replace(Record("1", file, "video", messages, ("video", "audio")), **fields)


def read_level(record: Record) -> float:
    header = merge_headers(record, {file: probe(file) for file in record.files})
    waveform = read_clip(record, header, 0, header.num_samples(*record.audio_span)).waveform
    assert waveform is not None
    return float(waveform.median())


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_the_default_track_is_read_and_a_record_may_choose(suffix: str, tmp_path: Path) -> None:
    path = write_tracks(tmp_path / f"a.{suffix}", [0.0, 0.25, 0.5], default=1)
    record = build_record(path)
    header = merge_headers(record, {path: probe(path)})
    assert len(header.audios) == 3 and header.audio_stream == 1
    [note] = header.notes
    assert path.name in note and "3 audio" in note and "audio_stream" in note
    assert read_level(record) == pytest.approx(0.25, abs=1e-3)
    assert torch.equal(read(path, num_samples=8000)[2], read(path, num_samples=8000, header=header)[2])
    chosen = replace(record, audio_stream=2)
    assert read_level(chosen) == pytest.approx(0.5, abs=1e-3)
    assert merge_headers(chosen, {path: probe(path)}).notes == ()


def test_a_record_may_choose_the_video(tmp_path: Path) -> None:
    path = write_tracks(tmp_path / "a.mkv", [0.5], default=0, num_videos=2, default_video=1)
    counts = {}
    for stream in (None, 0, 1):
        record = build_record(path, video_stream=stream)
        header = merge_headers(record, {path: probe(path)})
        counts[stream] = read_clip(record, header, 40, 0).times[-1]
    assert counts == pytest.approx({None: 0.76, 0: 0.36, 1: 0.76}, abs=0.03)


def test_the_track_of_an_audio_file_is_chosen(tmp_path: Path) -> None:
    silent = write_tracks(tmp_path / "silent.mkv", [0.0], default=0)
    tracks = write_tracks(tmp_path / "tracks.mka", [0.1, 0.4], default=0, num_videos=0)
    assert read_level(build_record(silent, audio_track=tracks, audio_stream=1)) == pytest.approx(0.4, abs=1e-3)


def test_a_track_that_the_file_lacks_raises(tmp_path: Path) -> None:
    path = write_tracks(tmp_path / "a.mkv", [0.1, 0.2], default=0)
    for key, count in (("audio_stream", 2), ("video_stream", 1)):
        with pytest.raises(BadSample, match=rf"a\.mkv: {key}=5.* {count} ") as caught:
            merge_headers(build_record(path, **{key: 5}), {path: probe(path)})
        assert caught.value.reason == "no_media"


def test_a_codec_without_a_decoder_is_named(media_root: Path, tmp_path: Path) -> None:
    content = (media_root / "talk.mp4").read_bytes()
    path = tmp_path / "odd.mp4"
    path.write_bytes(content.replace(b"avc1", b"xyz1"))
    header = probe(path)
    with pytest.raises(BadSample, match=r"odd\.mp4.*video") as caught:
        merge_headers(build_record(path), {path: header})
    assert caught.value.reason == "no_decoder"
    with pytest.raises(BadSample, match=r"odd\.mp4.*video") as caught:
        read(path, num_frames=2, header=header)
    assert caught.value.reason == "no_decoder"
    audio_only = replace(build_record(path), slots=("audio",))
    merged = merge_headers(audio_only, {path: header})
    expected = read(media_root / "talk.mp4", num_samples=16000)[2]
    assert torch.equal(read_clip(audio_only, merged, 0, 16000).waveform, expected)


def test_a_file_without_any_decoder_raises(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "odd.mp4", num_frames=5, seconds=0)
    path.write_bytes(path.read_bytes().replace(b"avc1", b"xyz1"))
    with pytest.raises(BadSample, match=r"odd\.mp4") as caught:
        probe(path)
    assert caught.value.reason == "no_decoder"


@pytest.mark.parametrize("title", ["Müller".encode("latin-1"), "标题".encode("gbk"), b"\xff\xfe\x00\xd8"])
@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.mp3"])
def test_titles_may_have_any_encoding(title: bytes, name: str, tmp_path: Path) -> None:
    with av.open(str(tmp_path / name), "w") as out:
        out.metadata["title"] = "T" * len(title)
        audio = out.add_stream("libmp3lame", rate=16000, layout="mono")
        noise = np.random.default_rng(0).uniform(-0.3, 0.3, (1, 16000)).astype(np.float32)
        frame = av.AudioFrame.from_ndarray(noise, format="fltp", layout="mono")
        frame.sample_rate, frame.pts = 16000, 0
        resampler = av.AudioResampler("fltp", "mono", 16000, frame_size=audio.codec_context.frame_size)
        for block in [*resampler.resample(frame), *resampler.resample(None)]:
            out.mux(audio.encode(block))
        out.mux(audio.encode(None))
    content = (tmp_path / name).read_bytes()
    assert b"T" * len(title) in content
    (tmp_path / name).write_bytes(content.replace(b"T" * len(title), title, 1))
    header = probe(tmp_path / name)
    assert read(tmp_path / name, num_samples=8000, header=header)[2] is not None
