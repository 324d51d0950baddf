"""Frames and sound are exactly those of a plain full decode; bad files are told apart and named."""

import multiprocessing as mp
import time
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from PIL import Image

from omnihuman.data import decode
from omnihuman.data.decode import uniform_indices
from omnihuman.data.media import Header, header_of, probe, read, read_record
from omnihuman.data.record import BadSample, Record

from .conftest import picture, plain_frames, plain_sound, write_clip

SHAPES = {
    "h264 with B-frames": {},
    "open GOP": {"options": {"x264-params": "open-gop=1:keyint=8:bframes=3:b-pyramid=2"}, "frames": 60},
    "one key frame": {"options": {"g": "250"}, "frames": 60},
    "intra refresh": {"options": {"x264-params": "intra-refresh=1:keyint=12"}},
    "odd size": {"size": (62, 46), "frames": 20},
    "moov first": {"container": {"movflags": "+faststart"}, "frames": 30},
    "fragments": {"container": {"movflags": "frag_keyframe+empty_moov"}, "frames": 40},
    "variable rate": {"pts": lambda number: number * 2 + (number % 3 == 0), "frames": 40},
    "late sound": {"delay": 0.4},
    "six channels": {"layout": "5.1", "frames": 10},
}


@pytest.fixture(scope="module", params=SHAPES)
def clip(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_clip(tmp_path_factory.mktemp("clip") / "clip.mp4", **SHAPES[request.param])


@pytest.mark.parametrize("count", [1, 8, 32])
@pytest.mark.parametrize("span", [(0.0, None), (0.0, 0.9), (0.31, None), (0.31, 0.77)])
def test_frames_are_those_of_a_plain_decode(clip: Path, count: int, span: tuple[float, float | None]) -> None:
    start, end = span
    inside = [(t, frame) for t, frame in plain_frames(clip) if start - 1e-6 <= t < (end or 1e9)]
    wanted = [inside[index] for index in uniform_indices(len(inside), count)]
    frames, times, _ = read(clip, num_frames=count, start=start, end=end)
    assert torch.equal(frames, torch.stack([frame for _, frame in wanted]))
    assert times == pytest.approx([t for t, _ in wanted])


@pytest.mark.parametrize("span", [(0.0, None), (0.0, 0.9), (0.5, None), (0.61, 1.23)])
def test_sound_is_a_slice_of_all_sound(clip: Path, span: tuple[float, float | None]) -> None:
    header, whole = probe(clip), plain_sound(clip)
    count = header.num_samples(*span)
    begin = round((max(span[0], header.audio[0]) - header.audio[0]) * 16000)
    _, _, heard = read(clip, num_samples=count, start=span[0], end=span[1])
    assert heard.shape == (count,)
    assert torch.allclose(heard, whole[begin : begin + count], atol=2e-3)
    shifted = whole[begin + 1 : begin + 1 + count]
    assert not torch.allclose(heard[: len(shifted)], shifted, atol=2e-3), "a slice off by one sample must be told apart"


def test_indices_are_the_official_ones() -> None:
    assert uniform_indices(100, 8) == [6, 19, 31, 43, 56, 68, 80, 93]
    assert uniform_indices(1, 3) == [0, 0, 0]


BAD = {
    "cut_front.mp4": {"truncated"},
    "cut_back.mp4": {"unreadable"},
    "empty.mp4": {"unreadable"},
    "text.mp4": {"unreadable"},
    "gone.mp4": {"missing_file"},
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_file_is_named_and_never_replaced(name: str, media_root: Path) -> None:
    with pytest.raises(BadSample, match=name) as caught:
        header = probe(media_root / name)
        read(media_root / name, header=header, num_frames=8, num_samples=header.num_samples())
    assert caught.value.reason in BAD[name]


@pytest.mark.parametrize("percent", [10, 50, 90, 99])
@pytest.mark.parametrize("source", ["talk.mp4", "late.mp4", "sound.wav", "sound.m4a", "still.png", "still.jpg"])
def test_a_file_cut_anywhere_is_bad(source: str, percent: int, media_root: Path, tmp_path: Path) -> None:
    data = (media_root / source).read_bytes()
    path = tmp_path / source
    path.write_bytes(data[: len(data) * percent // 100])
    if source == "sound.wav" and percent >= 99:
        return  # 20 ms less than promised: a codec's block
    with pytest.raises(BadSample):
        header = probe(path)
        read(path, header=header, num_frames=8 * header.has_video, num_samples=header.num_samples())


@pytest.mark.parametrize("name", ["still.png", "still.jpg"])
def test_a_still_is_one_frame_upright(name: str, media_root: Path, tmp_path: Path) -> None:
    assert probe(media_root / name) == Header(has_video=True, is_still=True, frames=1)
    frames, times, sound = read(media_root / name, num_frames=8)
    assert frames.shape == (1, 3, 30, 40) and times == [0.0] and sound is None
    turned = Image.open(media_root / "still.png")
    exif = turned.getexif()
    exif[0x0112] = 6
    turned.save(tmp_path / "turned.jpg", exif=exif)
    assert read(tmp_path / "turned.jpg", num_frames=1)[0].shape == (1, 3, 40, 30)


def test_one_frame_repeats(media_root: Path) -> None:
    frames, _, _ = read(media_root / "one.mp4", num_frames=4)
    assert torch.equal(frames, plain_frames(media_root / "one.mp4")[0][1].expand(4, -1, -1, -1))


def test_nothing_is_heard_where_nothing_sounds(media_root: Path) -> None:
    assert not probe(media_root / "silent.mp4").has_audio
    assert not probe(media_root / "sound.wav").has_video
    header = probe(media_root / "nothing.wav")
    assert (header.has_audio, header.num_samples()) == (False, 0)


def test_a_clip_behind_the_end_is_bad(media_root: Path) -> None:
    with pytest.raises(BadSample, match=r"starts at 5 s, the file ends at 2 s"):
        read(media_root / "talk.mp4", num_frames=2, start=5.0, end=6.0)
    assert probe(media_root / "talk.mp4").num_samples(5.0, 6.0) == 0


def test_a_clip_between_two_frames_shows_the_one_before(media_root: Path) -> None:
    _, times, _ = read(media_root / "talk.mp4", num_frames=2, start=0.41, end=0.43)
    assert times == [0.4, 0.4]


def test_sound_is_at_most_30_s(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "long.wav", frames=0, seconds=31, audio="pcm_s16le", rate=16000, layout="mono")
    header = probe(path)
    assert header.num_samples() == 480_000
    assert header.num_samples(10.0) == 21 * 16000
    assert read(path, num_samples=header.num_samples(0.5), start=0.5)[2].shape == (480_000,)


@pytest.mark.parametrize(("rate", "layout"), [(48000, "stereo"), (44100, "mono"), (8000, "mono"), (48000, "5.1")])
def test_every_sound_becomes_16_khz_mono_of_its_length(rate: int, layout: str, tmp_path: Path) -> None:
    path = write_clip(tmp_path / "a.wav", frames=0, seconds=1.5, audio="pcm_s16le", rate=rate, layout=layout)
    assert probe(path).num_samples() == 24000
    heard = read(path, num_samples=24000)[2]
    t = np.arange(24000) / 16000
    expected = torch.from_numpy(0.4 * np.sin(2 * np.pi * (200 + 150 * t) * t)).float()
    assert (heard[200:-200] - expected[200:-200] * (heard.std() / expected.std())).abs().max() < 0.02
    clip = read(path, num_samples=8000, start=0.5, end=1.0)[2]
    assert torch.allclose(clip, heard[8000:16000], atol=1e-4)


def test_a_cover_picture_is_no_video(tmp_path: Path) -> None:
    with av.open(str(tmp_path / "song.mp3"), "w") as out:
        sound, cover = out.add_stream("libmp3lame", rate=16000, layout="mono"), out.add_stream("mjpeg", rate=1)
        cover.width, cover.height, cover.pix_fmt = 64, 48, "yuvj420p"
        cover.disposition = av.stream.Disposition.attached_pic
        frame = av.VideoFrame.from_ndarray(picture(0, 64, 48), format="rgb24")
        out.mux(cover.encode(frame.reformat(format="yuvj420p")))
        out.mux(cover.encode(None))
        noise = np.random.default_rng(0).uniform(-0.3, 0.3, (1, 1152)).astype(np.float32)
        for number in range(28):
            piece = av.AudioFrame.from_ndarray(noise, format="fltp", layout="mono")
            piece.sample_rate, piece.pts = 16000, 1152 * number
            out.mux(sound.encode(piece))
        out.mux(sound.encode(None))
    with av.open(str(tmp_path / "song.mp3")) as container:
        assert len(container.streams.video) == 1
    header = probe(tmp_path / "song.mp3")
    assert not header.has_video and abs(header.num_samples() - 28 * 1152) < 2400
    with pytest.raises(BadSample, match="no pictures"):
        read(tmp_path / "song.mp3", num_frames=1)


def test_a_turned_video_is_upright(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "phone.mp4", frames=4, seconds=0)
    data = bytearray(path.read_bytes())
    at = data.index(b"tkhd") + 4 + 40  # version, times, ids, duration, layer, volume: then the matrix
    one = 1 << 16
    matrix = [0, one, 0, -one, 0, 0, 0, 0, 1 << 30]  # a quarter to the right, as phones write it
    data[at : at + 36] = b"".join(value.to_bytes(4, "big", signed=True) for value in matrix)
    (tmp_path / "turned.mp4").write_bytes(data)
    flat, turned = read(path, num_frames=1)[0], read(tmp_path / "turned.mp4", num_frames=1)[0]
    assert torch.equal(turned, torch.rot90(flat, -1, (2, 3)))


@pytest.mark.parametrize(("name", "options"), [
    ("a.gif", {"codec": "gif", "pix_fmt": "rgb8", "seconds": 0, "options": {}}),
    ("a.avi", {"codec": "mpeg4", "audio": "pcm_s16le"}),
    ("a.mkv", {"audio": "flac"}),
    ("a.mov", {"codec": "mjpeg", "pix_fmt": "yuvj420p", "audio": "pcm_s16le"}),
    ("a.ts", {"audio": "mp2"}),
])  # fmt: skip
def test_other_containers(name: str, options: dict, tmp_path: Path) -> None:
    path = write_clip(tmp_path / name, frames=30, **({"seconds": 1.2} | options))
    frames = [frame for _, frame in plain_frames(path)]
    header = probe(path)
    got, _, sound = read(path, num_frames=8, num_samples=header.num_samples())
    assert torch.equal(got, torch.stack([frames[i] for i in uniform_indices(len(frames), 8)]))
    assert header.has_video and (sound is None) == (name == "a.gif")
    assert sound is None or abs(len(sound) - 19200) < 1600


def test_a_playlist_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "list.mp4").write_text("#EXTM3U\n#EXTINF:2,\n/etc/passwd\n#EXT-X-ENDLIST\n")
    with pytest.raises(BadSample) as caught:
        probe(tmp_path / "list.mp4")
    assert caught.value.reason == "unreadable"


def test_a_slow_file_ends_by_timeout(media_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    slow = decode._picture

    def picture_in_half_a_second(*given: object) -> object:
        time.sleep(0.5)
        return slow(*given)

    monkeypatch.setattr(decode, "_picture", picture_in_half_a_second)
    began = time.monotonic()
    with pytest.raises(BadSample, match=r"talk\.mp4: not read within 0\.3 s \(data\.timeout\)") as caught:
        read(media_root / "talk.mp4", num_frames=32, timeout=0.3)
    assert caught.value.reason == "timeout"
    assert time.monotonic() - began < 5


@pytest.mark.skipif("fork" not in mp.get_all_start_methods(), reason="no fork on this system")
def test_a_forked_worker_reads_after_its_parent_has_read(media_root: Path) -> None:
    """A scaler with threads of its own would wait in the worker for threads that stayed in the parent."""
    context = mp.get_context("fork")
    sums = context.Queue()

    def seen() -> int:
        frames, _, _ = read(media_root / "talk.mp4", num_frames=4)
        assert frames is not None
        return int(frames.numpy().sum())

    here, worker = seen(), context.Process(target=lambda: sums.put(seen()))
    worker.start()
    try:
        assert sums.get(timeout=60) == here
    finally:
        worker.kill()
        worker.join()


def test_a_pipe_does_not_block(tmp_path: Path) -> None:
    import os

    os.mkfifo(tmp_path / "pipe.mp4")
    with pytest.raises(BadSample, match="no such file"):
        probe(tmp_path / "pipe.mp4")


def test_only_what_is_needed_is_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_clip(tmp_path / "long.mp4", frames=240, seconds=0)
    sizes: list[int] = []
    original = decode.demux

    def counting(*given: object) -> dict:
        packets = original(*given)
        sizes.append(sum(map(len, packets.values())))
        return packets

    monkeypatch.setattr("omnihuman.data.media.demux", counting)
    read(path, num_frames=2, start=8.0, end=8.4)
    assert sizes[0] < 40


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """A folder of 12 pictures whose names sort otherwise as text: 0.8.jpg ... 0.19.jpg, and a file that is none."""
    folder = tmp_path / "clip"
    folder.mkdir()
    for number in range(12):
        Image.fromarray(picture(number, 32, 24)).save(folder / f"0.{number + 8}.png")
    (folder / "notes.txt").write_text("no picture")
    return folder


def test_a_folder_of_numbered_pictures_is_a_video(pictures: Path) -> None:
    header = probe(pictures)
    assert (header.has_video, header.has_audio, header.is_still, header.frames) == (True, False, False, 12)
    frames, times, waveform = read(pictures, num_frames=4)
    wanted = uniform_indices(12, 4)
    assert torch.equal(frames, torch.stack([torch.from_numpy(picture(n, 32, 24)).permute(2, 0, 1) for n in wanted]))
    assert times == pytest.approx([n / 25 for n in wanted]) and waveform is None
    frames, times, _ = read(pictures, num_frames=3, start=0.5, end=1.0, header=Header(True, frames=12, rate=10.0))
    assert times == pytest.approx([0.6, 0.7, 0.8])
    assert read(pictures, num_frames=20)[0].shape[0] == 20, "a short one repeats pictures"


def test_what_is_wrong_with_a_folder_is_named(pictures: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(BadSample, match=r"empty: the folder holds no picture") as caught:
        probe(tmp_path / "empty")
    assert caught.value.reason == "no_frames"
    (pictures / "0.13.png").write_bytes(b"\x89PNG, and no more")
    with pytest.raises(BadSample, match=r"0\.13\.png: cannot be read as a picture") as caught:
        read(pictures, num_frames=12)
    assert caught.value.reason == "unreadable"
    with pytest.raises(BadSample, match=r"starts at 3 s, the 12 pictures end at 0\.48 s") as caught:
        read(pictures, num_frames=2, start=3.0)
    assert caught.value.reason == "empty_clip"


def test_pictures_of_other_sizes_take_that_of_the_first(pictures: Path) -> None:
    Image.fromarray(picture(11, 64, 48)).save(pictures / "0.19.png")
    assert read(pictures, num_frames=12)[0].shape == (12, 3, 24, 32)


def record_of(file: Path, **other: object) -> Record:
    messages = (("user", "<video>\n<audio>\nWho?"), ("assistant", ""))
    return Record("1", file, "video", messages, ("video", "audio"), **other)


def told(record: Record) -> Header:
    return header_of(record, {file: probe(file) for file in record.files})


def test_sound_from_another_file(pictures: Path, media_root: Path) -> None:
    record = record_of(pictures, sound=media_root / "sound.wav", rate=10.0, start=0.3, end=0.9)
    header = told(record)
    assert header.has_video and header.has_audio and header.rate == 10.0
    count = header.num_samples(0.3, 0.9)
    frames, times, waveform, first = read_record(record, header, 3, count)
    assert (len(frames), first, times[0]) == (3, 3, pytest.approx(0.4))
    assert torch.allclose(waveform, read(media_root / "sound.wav", num_samples=count, start=0.3, end=0.9)[2])
    own = record_of(media_root / "talk.mp4", sound=media_root / "sound.m4a")
    heard = read_record(own, told(own), 0, told(own).num_samples())[2]
    assert torch.equal(heard, read(media_root / "sound.m4a", num_samples=len(heard))[2]), "its own sound is not heard"


def test_a_second_clip_follows(pictures: Path, media_root: Path) -> None:
    talk = media_root / "talk.mp4"
    record = record_of(talk, then=pictures, then_clip=(0.2, None), rate=10.0)
    frames, times, _, first = read_record(record, told(record), 5, 0)
    assert (len(frames), first) == (5, 3)
    assert torch.equal(frames[:3], read(talk, num_frames=3)[0])
    assert frames.shape[-2:] == (48, 64) and min(times[3:]) >= 0.2, "at the size of the first, in seconds of its own"
    still = record_of(talk, then=media_root / "still.png")
    with pytest.raises(BadSample, match=r"talk\.mp4 and .*still\.png: only videos can follow each other"):
        told(still)


def test_a_gif_of_one_picture_is_a_film_of_one(tmp_path: Path) -> None:
    Image.new("P", (16, 8)).save(tmp_path / "a.gif")  # its header says that it takes no time
    frames, _, _ = read(tmp_path / "a.gif", num_frames=2)
    assert frames is not None and frames.shape == (2, 3, 8, 16)
