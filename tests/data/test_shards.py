"""Members of shards: read by one ranged request, checked, cached within a bound; a bad server costs one sample."""

import os
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import fsspec
import pytest
import torch

from omnihuman.data import machine, media, shards
from omnihuman.data.bad_sample import BadSample
from omnihuman.data.module import OmniData
from omnihuman.data.plan.pack_shards import ShardWriter
from omnihuman.data.record import Record
from omnihuman.data.shards import ClipCache, open_local, parse_member, read_member


def pack(media_root: Path, target: str, log: Path, names: tuple[str, ...] = ("talk.mp4",), url: str = "") -> list[Path]:
    """Return the members of packed files."""
    writer = ShardWriter(target, url or target, log)
    members = []
    for name in names:
        record = Record("1", media_root / name, "video", (), ())
        members.append(writer.pack(record).file)
    writer.finish()
    return members


@pytest.fixture(autouse=True)
def without_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "PAUSES", (0.0, 0.0))
    monkeypatch.setattr(machine, "_vain", machine.deque(maxlen=machine.MAX_VAIN))


def test_a_member_decodes_as_its_file(media_root: Path, tmp_path: Path) -> None:
    talk, image = pack(media_root, "memory://clips", tmp_path / "log", ("talk.mp4", "image.png"))
    header = media.probe(talk)
    assert header == media.probe(media_root / "talk.mp4")
    frames, times, waveform = media.read(talk, num_frames=3, num_samples=8000, header=header)
    expected = media.read(media_root / "talk.mp4", num_frames=3, num_samples=8000)
    assert frames is not None and waveform is not None
    assert torch.equal(frames, expected[0]) and times == expected[1] and torch.equal(waveform, expected[2])
    still, *_ = media.read(image, num_frames=1)
    assert still is not None and torch.equal(still, media.read(media_root / "image.png", num_frames=1)[0])
    assert not list(Path("/proc/self/fd").glob("*clip*"))


def test_only_its_bytes_are_read(media_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (member, *_) = pack(media_root, "memory://ranges", tmp_path / "log", ("talk.mp4", "late.mp4"))
    filesystem, ranges = fsspec.filesystem("memory"), list[tuple[int, int]]()
    cat_file = filesystem.cat_file

    def note(path: str, start: int, end: int) -> bytes:
        ranges.append((start, end))
        return bytes(cat_file(path, start=start, end=end))

    monkeypatch.setattr(type(filesystem), "cat_file", lambda self, path, start, end: note(path, start, end))
    with open_local(member, 5.0) as local:
        assert local.read_bytes() == (media_root / "talk.mp4").read_bytes()
    size = (media_root / "talk.mp4").stat().st_size
    assert ranges == [(512, 512 + size)]


def test_other_bytes_and_a_missing_shard_are_bad_samples(media_root: Path, tmp_path: Path) -> None:
    (member,) = pack(media_root, str(tmp_path / "shards"), tmp_path / "log")
    shard = tmp_path / "shards" / "00000.tar"
    content = bytearray(shard.read_bytes())
    content[600] ^= 1
    shard.write_bytes(content)
    with pytest.raises(BadSample, match=r"000000000.*other bytes") as caught:
        media.read(member, num_frames=1, header=media.probe(media_root / "talk.mp4"))
    assert caught.value.reason == "unavailable"
    shard.unlink()
    with pytest.raises(BadSample, match=r"FileNotFoundError"):
        media.probe(member)


class Handler(BaseHTTPRequestHandler):
    """Serves one file, after a time, from a range or not."""

    content = b""
    delay = 0.0
    status = 206

    def do_GET(self) -> None:
        time.sleep(self.delay)
        first, last = self.headers["Range"].removeprefix("bytes=").split("-")
        part = self.content[int(first) : int(last) + 1] if self.status == 206 else b"busy"
        self.send_response(self.status)
        self.send_header("Content-Length", str(len(part)))
        self.end_headers()
        self.wfile.write(part)

    def log_message(self, *args: Any) -> None:
        pass


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[..., str]]:
    """Return a function that serves the shard in ``shards``, and returns the URL of its folder."""
    pytest.importorskip("aiohttp")
    servers = list[ThreadingHTTPServer]()

    def start(**options: Any) -> str:
        content = (tmp_path / "shards" / "00000.tar").read_bytes()
        handler = type("ThisHandler", (Handler,), {"content": content, **options})
        server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        server.daemon_threads = True
        servers.append(server)
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        return f"http://127.0.0.1:{server.server_port}"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def move(member: Path, folder: Path, url: str) -> Path:
    return Path(str(member).replace(str(folder), url))


def test_a_server_that_stalls_or_fails_costs_one_sample(
    media_root: Path, tmp_path: Path, serve: Callable[..., str]
) -> None:
    (member,) = pack(media_root, str(tmp_path / "shards"), tmp_path / "log")
    good, slow, busy = (move(member, tmp_path / "shards", serve(**options)) for options in OPTIONS)
    assert media.probe(good) == media.probe(media_root / "talk.mp4")
    start = time.monotonic()
    with pytest.raises(BadSample, match=r"not read within 0\.2 s") as caught:
        media.probe(slow, 0.2)
    assert caught.value.reason == "timeout" and time.monotonic() - start < 2
    with pytest.raises(BadSample, match=r"503") as caught:
        media.probe(busy)
    assert caught.value.reason == "unavailable"


OPTIONS: tuple[dict[str, Any], ...] = ({}, {"delay": 3.0}, {"status": 503})


def test_a_bad_shard_is_a_counted_sample_of_a_step(
    build_data: Callable[..., OmniData], media_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    members = pack(media_root, str(tmp_path / "shards"), tmp_path / "log", ("talk.mp4", "late.mp4"))
    text = (("user", "<video>\nWho?"), ("assistant", "A man."))
    records = [Record(str(number), file, "video", text, ("video",)) for number, file in enumerate(members)]

    class Packed:
        location = "packed"

        def records(self) -> Iterator[Record]:
            yield from records

    data = build_data(Packed(), on_bad_sample="skip", max_skipped=0.9)
    assert len(data.train_samples) == 2
    content = bytearray((tmp_path / "shards" / "00000.tar").read_bytes())
    content[600] ^= 1
    (tmp_path / "shards" / "00000.tar").write_bytes(content)
    (step,) = data.train_dataloader()
    (batch,) = step
    assert [entry["id"] for entry in batch.meta] == ["1"]
    assert [(skip["id"], skip["reason"]) for skip in batch.skipped] == [("0", "unavailable")]


def test_the_cache_is_bounded(media_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = ("talk.mp4", "late.mp4", "silent.mp4")
    members = pack(media_root, "memory://cached", tmp_path / "log", names)
    sizes = [(media_root / name).stat().st_size for name in names]
    cache = ClipCache(tmp_path / "cache", sizes[0] + sizes[2])
    monkeypatch.setattr(shards, "cache", cache)
    monkeypatch.setattr(shards, "CHECKED_EVERY", 1)
    for number, member in enumerate(members):
        with open_local(member, 5.0):
            pass
        for file in tmp_path.glob("cache/*/*"):
            os.utime(file, (number, number))
    cache.evict()
    stored = [file.stat().st_size for file in tmp_path.glob("cache/*/*")]
    assert 0 < sum(stored) <= cache.max_bytes
    newest = parse_member(members[2])
    assert newest is not None and cache.read(newest) is not None
    monkeypatch.setattr(shards, "_open_filesystem", None)
    assert read_member(members[2], newest, 5.0) == (media_root / "silent.mp4").read_bytes()
