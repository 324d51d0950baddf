"""Headers of WAV and CAF files that were written to a pipe."""

import struct
from pathlib import Path

import pytest

from omnihuman.data.decode.riff import has_open_end

FMT = b"fmt " + struct.pack("<IHHIIHH", 16, 1, 1, 16000, 32000, 2, 16)


def write_riff(path: Path, size: int, audio: bytes, name: bytes = b"RIFF", before: bytes = b"") -> Path:
    path.write_bytes(
        name + struct.pack("<I", 0xFFFFFFFF) + b"WAVE" + before + FMT + b"data" + struct.pack("<I", size) + audio
    )
    return path


def ds64(size: int) -> bytes:
    return b"ds64" + struct.pack("<IQQQI", 28, size + 72, size, size // 2, 0)


@pytest.mark.parametrize("size", [0, 0x7FFFF000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF - 36, 0xFFFFFFFF])
def test_placeholders_of_wav(size: int, tmp_path: Path) -> None:
    assert has_open_end(write_riff(tmp_path / "a.wav", size, bytes(1000)))
    odd_chunk = b"LIST" + struct.pack("<I", 3) + bytes(4)
    assert has_open_end(write_riff(tmp_path / "a.wav", size, bytes(1000), before=odd_chunk))


@pytest.mark.parametrize("size", [1000, 2000, 0x7FFFEFFF])
def test_sizes_are_no_placeholders(size: int, tmp_path: Path) -> None:
    assert not has_open_end(write_riff(tmp_path / "a.wav", size, bytes(1000)))


def test_sizes_of_rf64_are_in_their_own_chunk(tmp_path: Path) -> None:
    sizes = [0, 1000, 2000, 0x7FFFF000, 2**63]
    results = []
    for size in sizes:
        file = write_riff(tmp_path / "a.wav", 0xFFFFFFFF, bytes(1000), b"RF64", ds64(size))
        results.append(has_open_end(file))
    assert results == [True, False, False, True, True]


def test_a_caf_has_a_size_of_minus_one(tmp_path: Path) -> None:
    file = tmp_path / "a.caf"
    for size in (-1, 1000):
        description = b"desc" + struct.pack(">q", 32) + bytes(32)
        file.write_bytes(
            b"caff" + struct.pack(">HH", 1, 0) + description + b"data" + struct.pack(">q", size) + bytes(1000)
        )
        assert has_open_end(file) == (size == -1)


@pytest.mark.parametrize(
    "content", [b"", b"RIFF", b"RIFF0000WAVE", b"RIFF0000WAVEdata", b"caff0000", b"caff0000data" + b"\xff" * 7]
)
def test_other_files_have_an_end(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_bytes(content)
    assert not has_open_end(tmp_path / "a.wav")
