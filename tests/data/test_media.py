"""Frames and audio equal those of a sequential decode; every bad file raises with its name and reason."""

import itertools
import multiprocessing as mp
import os
import time
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from PIL import Image

from omnihuman.data.decode import frames, packets
from omnihuman.data.decode.sampling import uniform_indices
from omnihuman.data.media import Header, merge_headers, probe, read, read_clip
from omnihuman.data.record import BadSample, Record

from .conftest import decode_audio, decode_frames, draw_frame, write_clip

CLIPS = {
    "h264 with B-frames": {},
    "open GOP": {"options": {"x264-params": "open-gop=1:keyint=8:bframes=3:b-pyramid=2"}, "num_frames": 60},
    "one key frame": {"options": {"g": "250"}, "num_frames": 60},
    "intra refresh": {"options": {"x264-params": "intra-refresh=1:keyint=12"}},
    "odd size": {"size": (62, 46), "num_frames": 20},
    "moov first": {"container": {"movflags": "+faststart"}, "num_frames": 30},
    "fragments": {"container": {"movflags": "frag_keyframe+empty_moov"}, "num_frames": 40},
    "variable frame rate": {"pts": lambda number: number * 2 + (number % 3 == 0), "num_frames": 40},
    "late audio": {"delay": 0.4},
    "six channels": {"layout": "5.1", "num_frames": 10},
}


@pytest.fixture(scope="module", params=CLIPS)
def clip(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_clip(tmp_path_factory.mktemp("clip") / "clip.mp4", **CLIPS[request.param])


SPANS = ((0.0, None), (0.0, 0.9), (0.31, None), (0.31, 0.77))
SELECTIONS = [*((span, 8) for span in SPANS), (SPANS[3], 1), (SPANS[0], 32)]
for selection in itertools.product(SPANS, (1, 32)):
    if selection not in SELECTIONS:
        SELECTIONS.append(pytest.param(*selection, marks=pytest.mark.slow))


@pytest.mark.parametrize(("span", "count"), SELECTIONS)
def test_frames_equal_those_of_a_sequential_decode(clip: Path, count: int, span: tuple[float, float | None]) -> None:
    start, end = span
    inside = [(t, frame) for t, frame in decode_frames(clip) if start - 1e-6 <= t < (end or 1e9)]
    expected = [inside[index] for index in uniform_indices(len(inside), count)]
    frames, times, _ = read(clip, num_frames=count, start=start, end=end)
    assert torch.equal(frames, torch.stack([frame for _, frame in expected]))
    assert times == pytest.approx([t for t, _ in expected])


@pytest.mark.parametrize("span", [(0.0, None), (0.0, 0.9), (0.5, None), (0.61, 1.23)])
def test_audio_is_a_slice_of_a_sequential_decode(clip: Path, span: tuple[float, float | None]) -> None:
    header, track = probe(clip), decode_audio(clip)
    count = header.num_samples(*span)
    begin = round((max(span[0], header.audio[0]) - header.audio[0]) * 16000)
    _, _, waveform = read(clip, num_samples=count, start=span[0], end=span[1])
    assert waveform.shape == (count,)
    assert torch.allclose(waveform, track[begin : begin + count], atol=2e-3)
    shifted = track[begin + 1 : begin + 1 + count]
    is_shifted = torch.allclose(waveform[: len(shifted)], shifted, atol=2e-3)
    assert not is_shifted, "the comparison must detect a shift of one sample"


def test_indices_equal_the_official_ones() -> None:
    assert uniform_indices(100, 8) == [6, 19, 31, 43, 56, 68, 80, 93]
    assert uniform_indices(1, 3) == [0, 0, 0]


BAD_FILES = {
    "cut_front.mp4": "truncated",
    "cut_back.mp4": "unreadable",
    "empty.mp4": "unreadable",
    "text.mp4": "unreadable",
    "missing.mp4": "missing_file",
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_a_bad_file_raises_with_its_name(name: str, media_root: Path) -> None:
    with pytest.raises(BadSample, match=name) as caught:
        header = probe(media_root / name)
        read(media_root / name, header=header, num_frames=8, num_samples=header.num_samples())
    assert caught.value.reason == BAD_FILES[name]


@pytest.mark.parametrize("percent", [10, 50, 90, 99])
@pytest.mark.parametrize("source", ["talk.mp4", "late.mp4", "tone.wav", "tone.m4a", "image.png", "image.jpg"])
def test_a_truncated_file_raises(source: str, percent: int, media_root: Path, tmp_path: Path) -> None:
    data = (media_root / source).read_bytes()
    path = tmp_path / source
    path.write_bytes(data[: len(data) * percent // 100])
    if source == "tone.wav" and percent >= 99:
        return  # one block of a codec (20 ms) may be missing
    with pytest.raises(BadSample):
        header = probe(path)
        read(path, header=header, num_frames=8 * header.has_video, num_samples=header.num_samples())


@pytest.mark.parametrize("name", ["image.png", "image.jpg"])
def test_an_image_is_one_frame(name: str, media_root: Path) -> None:
    assert probe(media_root / name) == Header(has_video=True, is_still=True, num_frames=1, size=(30, 40))
    frames, times, waveform = read(media_root / name, num_frames=8)
    assert frames.shape == (1, 3, 30, 40) and times == [0.0] and waveform is None


def test_the_exif_orientation_of_an_image_is_applied(media_root: Path, tmp_path: Path) -> None:
    image = Image.open(media_root / "image.png")
    exif = image.getexif()
    exif[0x0112] = 6
    image.save(tmp_path / "rotated.jpg", exif=exif)
    assert read(tmp_path / "rotated.jpg", num_frames=1)[0].shape == (1, 3, 40, 30)


def test_a_single_frame_repeats(media_root: Path) -> None:
    frames, _, _ = read(media_root / "one_frame.mp4", num_frames=4)
    assert torch.equal(frames, decode_frames(media_root / "one_frame.mp4")[0][1].expand(4, -1, -1, -1))


def test_missing_streams_are_reported(media_root: Path) -> None:
    assert not probe(media_root / "silent.mp4").has_audio
    assert not probe(media_root / "tone.wav").has_video
    header = probe(media_root / "no_samples.wav")
    assert (header.has_audio, header.num_samples()) == (False, 0)


def test_a_clip_after_the_end_of_its_file_raises(media_root: Path) -> None:
    with pytest.raises(BadSample, match=r"starts at 5 s.*ends at 2 s"):
        read(media_root / "talk.mp4", num_frames=2, start=5.0, end=6.0)
    assert probe(media_root / "talk.mp4").num_samples(5.0, 6.0) == 0


def test_a_clip_between_two_frames_has_the_earlier_one(media_root: Path) -> None:
    _, times, _ = read(media_root / "talk.mp4", num_frames=2, start=0.41, end=0.43)
    assert times == [0.4, 0.4]


def test_long_audio_is_read_as_a_whole(tmp_path: Path) -> None:
    options = {"audio_codec": "pcm_s16le", "sample_rate": 16000, "layout": "mono"}
    path = write_clip(tmp_path / "long.wav", num_frames=0, seconds=31, **options)
    header = probe(path)
    assert header.num_samples() == 31 * 16000
    assert header.num_samples(10.0) == 21 * 16000
    assert read(path, num_samples=header.num_samples(0.5), start=0.5)[2].shape == (30.5 * 16000,)


@pytest.mark.parametrize(
    ("sample_rate", "layout"), [(48000, "stereo"), (44100, "mono"), (8000, "mono"), (48000, "5.1")]
)
def test_audio_is_resampled_to_16_khz_mono(sample_rate: int, layout: str, tmp_path: Path) -> None:
    options = {"audio_codec": "pcm_s16le", "sample_rate": sample_rate, "layout": layout}
    path = write_clip(tmp_path / "a.wav", num_frames=0, seconds=1.5, **options)
    assert probe(path).num_samples() == 24000
    waveform = read(path, num_samples=24000)[2]
    t = np.arange(24000) / 16000
    expected = torch.from_numpy(0.4 * np.sin(2 * np.pi * (200 + 150 * t) * t)).float()
    expected *= waveform.std() / expected.std()
    assert (waveform[200:-200] - expected[200:-200]).abs().max() < 0.02
    clip = read(path, num_samples=8000, start=0.5, end=1.0)[2]
    assert torch.allclose(clip, waveform[8000:16000], atol=1e-4)


def test_cover_art_is_not_a_video(tmp_path: Path) -> None:
    with av.open(str(tmp_path / "song.mp3"), "w") as out:
        audio = out.add_stream("libmp3lame", rate=16000, layout="mono")
        cover = out.add_stream("mjpeg", rate=1)
        cover.width, cover.height, cover.pix_fmt = 64, 48, "yuvj420p"
        cover.disposition = av.stream.Disposition.attached_pic
        frame = av.VideoFrame.from_ndarray(draw_frame(0, 64, 48), format="rgb24")
        out.mux(cover.encode(frame.reformat(format="yuvj420p")))
        out.mux(cover.encode(None))
        noise = np.random.default_rng(0).uniform(-0.3, 0.3, (1, 1152)).astype(np.float32)
        for number in range(28):
            block = av.AudioFrame.from_ndarray(noise, format="fltp", layout="mono")
            block.sample_rate, block.pts = 16000, 1152 * number
            out.mux(audio.encode(block))
        out.mux(audio.encode(None))
    with av.open(str(tmp_path / "song.mp3")) as container:
        assert len(container.streams.video) == 1
    header = probe(tmp_path / "song.mp3")
    assert not header.has_video and abs(header.num_samples() - 28 * 1152) < 2400
    with pytest.raises(BadSample, match="no video"):
        read(tmp_path / "song.mp3", num_frames=1)


def test_the_rotation_of_a_video_is_applied(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "phone.mp4", num_frames=4, seconds=0)
    data = bytearray(path.read_bytes())
    # In the track header, the matrix follows version, times, ids, duration, layer and volume.
    offset = data.index(b"tkhd") + 4 + 40
    one = 1 << 16
    matrix = [0, one, 0, -one, 0, 0, 0, 0, 1 << 30]  # a quarter turn to the right, as phones write it
    data[offset : offset + 36] = b"".join(value.to_bytes(4, "big", signed=True) for value in matrix)
    (tmp_path / "rotated.mp4").write_bytes(data)
    original = read(path, num_frames=1)[0]
    rotated = read(tmp_path / "rotated.mp4", num_frames=1)[0]
    assert torch.equal(rotated, torch.rot90(original, -1, (2, 3)))


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("a.gif", {"video_codec": "gif", "pix_fmt": "rgb8", "seconds": 0, "options": {}}),
        ("a.avi", {"video_codec": "mpeg4", "audio_codec": "pcm_s16le"}),
        ("a.mkv", {"audio_codec": "flac"}),
        ("a.mov", {"video_codec": "mjpeg", "pix_fmt": "yuvj420p", "audio_codec": "pcm_s16le"}),
        ("a.ts", {"audio_codec": "mp2"}),
    ],
)
def test_other_containers(name: str, options: dict, tmp_path: Path) -> None:
    path = write_clip(tmp_path / name, num_frames=30, **({"seconds": 1.2} | options))
    expected = [frame for _, frame in decode_frames(path)]
    header = probe(path)
    frames, _, waveform = read(path, num_frames=8, num_samples=header.num_samples())
    assert torch.equal(frames, torch.stack([expected[index] for index in uniform_indices(len(expected), 8)]))
    assert header.has_video
    if name == "a.gif":
        assert waveform is None
    else:
        assert abs(len(waveform) - 19200) < 1600


def test_a_gif_with_a_single_image_is_a_video_of_one_frame(tmp_path: Path) -> None:
    Image.new("P", (16, 8)).save(tmp_path / "a.gif")  # its header has a duration of 0
    frames, _, _ = read(tmp_path / "a.gif", num_frames=2)
    assert frames is not None and frames.shape == (2, 3, 8, 16)


def test_a_playlist_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "list.mp4").write_text("#EXTM3U\n#EXTINF:2,\n/etc/passwd\n#EXT-X-ENDLIST\n")
    with pytest.raises(BadSample) as caught:
        probe(tmp_path / "list.mp4")
    assert caught.value.reason == "unreadable"


def test_a_slow_file_raises_at_the_timeout(media_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    to_tensor = frames._to_tensor

    def convert_slowly(*args: object) -> object:
        time.sleep(0.5)
        return to_tensor(*args)

    monkeypatch.setattr(frames, "_to_tensor", convert_slowly)
    begin = time.monotonic()
    with pytest.raises(BadSample, match=r"talk\.mp4: not read within 0\.3 s \(data\.timeout\)") as caught:
        read(media_root / "talk.mp4", num_frames=32, timeout=0.3)
    assert caught.value.reason == "timeout"
    assert time.monotonic() - begin < 5


@pytest.mark.skipif("fork" not in mp.get_all_start_methods(), reason="no fork on this system")
def test_a_forked_worker_can_read_after_its_parent(media_root: Path) -> None:
    """A scaler with threads would wait forever in the worker, as threads are not forked."""
    context = mp.get_context("fork")
    sums = context.Queue()

    def sum_pixels() -> int:
        frames, _, _ = read(media_root / "talk.mp4", num_frames=4)
        assert frames is not None
        return int(frames.numpy().sum())

    expected = sum_pixels()
    worker = context.Process(target=lambda: sums.put(sum_pixels()))
    worker.start()
    try:
        assert sums.get(timeout=60) == expected
    finally:
        worker.kill()
        worker.join()


def test_a_named_pipe_does_not_block(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.mp4")
    with pytest.raises(BadSample, match="no such file"):
        probe(tmp_path / "pipe.mp4")


def test_only_the_packets_of_the_span_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_clip(tmp_path / "long.mp4", num_frames=240, seconds=0)
    num_packets: list[int] = []
    demux = packets.demux

    def count_packets(*args: object, **options: object) -> dict:
        packets_of = demux(*args, **options)
        num_packets.append(sum(map(len, packets_of.values())))
        return packets_of

    monkeypatch.setattr("omnihuman.data.media.demux", count_packets)
    read(path, num_frames=2, start=8.0, end=8.4)
    assert num_packets[0] < 40


@pytest.fixture
def frames_folder(tmp_path: Path) -> Path:
    """Return a folder of 12 frames and a text file. Sorted as text, 0.10.png would be before 0.8.png."""
    folder = tmp_path / "clip"
    folder.mkdir()
    for number in range(12):
        Image.fromarray(draw_frame(number, 32, 24)).save(folder / f"0.{number + 8}.png")
    (folder / "notes.txt").write_text("not an image")
    return folder


def test_a_folder_of_numbered_images_is_a_video(frames_folder: Path) -> None:
    header = probe(frames_folder)
    assert (header.has_video, header.has_audio, header.is_still, header.num_frames) == (True, False, False, 12)
    frames, times, waveform = read(frames_folder, num_frames=4)
    indices = uniform_indices(12, 4)
    expected = [torch.from_numpy(draw_frame(index, 32, 24)).permute(2, 0, 1) for index in indices]
    assert torch.equal(frames, torch.stack(expected))
    assert times == pytest.approx([index / 25 for index in indices]) and waveform is None
    header = Header(True, num_frames=12, fps=10.0)
    _, times, _ = read(frames_folder, num_frames=3, start=0.5, end=1.0, header=header)
    assert times == pytest.approx([0.6, 0.7, 0.8])
    assert read(frames_folder, num_frames=20)[0].shape[0] == 20, "frames of a short folder repeat"


def test_an_invalid_folder_raises(frames_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(BadSample, match=r"empty: .*no image") as caught:
        probe(tmp_path / "empty")
    assert caught.value.reason == "no_frames"
    (frames_folder / "0.13.png").write_bytes(b"\x89PNG, and no more")
    with pytest.raises(BadSample, match=r"0\.13\.png: .*as an image") as caught:
        read(frames_folder, num_frames=12)
    assert caught.value.reason == "unreadable"
    with pytest.raises(BadSample, match=r"starts at 3 s.*12 images.*0\.48 s") as caught:
        read(frames_folder, num_frames=2, start=3.0)
    assert caught.value.reason == "empty_clip"


def test_images_are_resized_to_the_first(frames_folder: Path) -> None:
    Image.fromarray(draw_frame(11, 64, 48)).save(frames_folder / "0.19.png")
    assert read(frames_folder, num_frames=12)[0].shape == (12, 3, 24, 32)


def build_record(file: Path, **fields: object) -> Record:
    messages = (("user", "<video>\n<audio>\nWho?"), ("assistant", ""))
    return Record("1", file, "video", messages, ("video", "audio"), **fields)


def probe_record(record: Record) -> Header:
    return merge_headers(record, {file: probe(file) for file in record.files})


def test_an_audio_track_is_read_from_its_file(frames_folder: Path, media_root: Path) -> None:
    record = build_record(frames_folder, audio_track=media_root / "tone.wav", fps=10.0, start=0.3, end=0.9)
    header = probe_record(record)
    assert header.has_video and header.has_audio and header.fps == 10.0
    count = header.num_samples(0.3, 0.9)
    clip = read_clip(record, header, 3, count)
    assert (len(clip.frames), clip.num_first, clip.times[0]) == (3, 3, pytest.approx(0.4))
    expected = read(media_root / "tone.wav", num_samples=count, start=0.3, end=0.9)[2]
    assert torch.allclose(clip.waveform, expected)


def test_an_audio_track_replaces_that_of_the_video(media_root: Path) -> None:
    record = build_record(media_root / "talk.mp4", audio_track=media_root / "tone.m4a")
    header = probe_record(record)
    waveform = read_clip(record, header, 0, header.num_samples()).waveform
    assert torch.equal(waveform, read(media_root / "tone.m4a", num_samples=len(waveform))[2])


def test_the_frames_of_a_second_clip_follow(frames_folder: Path, media_root: Path) -> None:
    talk = media_root / "talk.mp4"
    record = build_record(talk, second_clip=frames_folder, second_clip_span=(0.2, None), fps=10.0)
    clip = read_clip(record, probe_record(record), 5, 0)
    assert (len(clip.frames), clip.num_first) == (5, 3)
    assert torch.equal(clip.frames[:3], read(talk, num_frames=3)[0])
    assert clip.frames.shape[-2:] == (48, 64), "frames have the size of the first clip"
    assert min(clip.times[3:]) >= 0.2, "times are those in the second file"


def test_an_image_as_second_clip_raises(media_root: Path) -> None:
    record = build_record(media_root / "talk.mp4", second_clip=media_root / "image.png")
    with pytest.raises(BadSample, match=r"talk\.mp4 and .*image\.png: .*videos"):
        probe_record(record)


def test_a_header_is_read_once_until_the_file_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, opened = write_clip(tmp_path / "a.mp4", num_frames=5, seconds=0), []
    open_file = av.open
    monkeypatch.setattr(av, "open", lambda *args, **options: opened.append(args[0]) or open_file(*args, **options))
    assert probe(path) == probe(path) and probe(path).num_frames == 5
    assert opened == [str(path)]
    write_clip(path, num_frames=7, seconds=0)
    opened.clear()
    assert probe(path).num_frames == 7 and opened == [str(path)]
    path.unlink()
    with pytest.raises(BadSample, match=r"a\.mp4: "):
        probe(path)
