"""HEIF images (HEIC, AVIF) of one or more tiles, written box by box around key frames of HEVC or AV1."""

import struct
from itertools import chain
from pathlib import Path

import av
import numpy as np

CODECS = {"heic": ("libx265", b"hvcC", b"hvc1"), "avif": ("libsvtav1", b"av1C", b"av01")}
OPTIONS = {"libx265": {"x265-params": "log-level=none:bframes=0"}, "libsvtav1": {"preset": "8"}}


def write_heif(path: Path, levels: list[list[int]], side: int = 128) -> Path:
    """Write grey tiles in rows and columns; a single one is written as an image without a grid."""
    codec, config_name, item_type = CODECS[path.suffix[1:]]
    tiles = list(chain.from_iterable(levels))
    scratch = path.with_suffix(".mp4")
    encoded = [_encode(level, scratch, codec, config_name, side) for level in tiles]
    num_rows, num_columns, has_grid = len(levels), len(levels[0]), len(tiles) > 1
    width, height = num_columns * side, num_rows * side
    items = [(number + 1, item_type, sample) for number, (_, sample) in enumerate(encoded)]
    grid = len(items) + 1
    if has_grid:
        items.append((grid, b"grid", struct.pack(">4B2H", 0, 0, num_rows - 1, num_columns - 1, width, height)))
    properties = [encoded[0][0], _size_box(side, side), _box(b"pixi", b"\0\0\0\0\3\10\10\10"), _size_box(width, height)]
    links = b"".join(struct.pack(">HB3B", number, 3, 0x81, 2, 3) for number, kind, _ in items if kind != b"grid")
    if has_grid:
        links += struct.pack(">HB2B", grid, 2, 4, 3)
    parts = [
        _box(b"hdlr", bytes(8) + b"pict" + bytes(13)),
        _box(b"pitm", bytes(4) + struct.pack(">H", items[-1][0])),
        _box(b"iinf", bytes(4) + struct.pack(">H", len(items)) + b"".join(map(_item_box, items))),
        _box(b"iprp", _box(b"ipco", *properties), _box(b"ipma", struct.pack(">2I", 0, len(items)) + links)),
    ]
    if has_grid:
        order = struct.pack(f">{len(tiles) + 2}H", grid, len(tiles), *range(1, grid))
        parts.append(_box(b"iref", bytes(4), _box(b"dimg", order)))
    brand = path.suffix[1:].encode()
    head = _box(b"ftyp", brand, bytes(4), b"mif1", brand, b"miaf")
    size = len(head) + len(_meta(parts, items, 0)) + 8
    path.write_bytes(head + _meta(parts, items, size) + _box(b"mdat", *[data for _, _, data in items]))
    return path


def _encode(level: int, scratch: Path, codec: str, config_name: bytes, side: int) -> tuple[bytes, bytes]:
    """Return the box with the decoder's configuration, and one key frame."""
    with av.open(str(scratch), "w") as out:
        stream = out.add_stream(codec, rate=1, options=OPTIONS[codec])
        stream.width, stream.height, stream.pix_fmt = side, side, "yuv420p"
        pixels = np.full((side, side, 3), level, np.uint8)
        frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
        frame.pts = 0
        out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    data = scratch.read_bytes()
    start = data.index(config_name) - 4
    config = data[start : start + int.from_bytes(data[start : start + 4], "big")]
    with av.open(str(scratch)) as container:
        sample = b"".join(bytes(packet) for packet in container.demux(video=0))
    scratch.unlink()
    return config, sample


def _box(name: bytes, *contents: bytes) -> bytes:
    content = b"".join(contents)
    return struct.pack(">I", 8 + len(content)) + name + content


def _size_box(width: int, height: int) -> bytes:
    return _box(b"ispe", struct.pack(">3I", 0, width, height))


def _item_box(item: tuple[int, bytes, bytes]) -> bytes:
    number, kind, _ = item
    return _box(b"infe", struct.pack(">I2H", 2 << 24, number, 0), kind, b"\0")


def _meta(parts: list[bytes], items: list[tuple[int, bytes, bytes]], offset: int) -> bytes:
    locations = b""
    for number, _, data in items:
        locations += struct.pack(">3H2I", number, 0, 1, offset, len(data))
        offset += len(data)
    location_box = _box(b"iloc", bytes(4), b"\x44\0", struct.pack(">H", len(items)), locations)
    return _box(b"meta", bytes(4), *parts, location_box)
