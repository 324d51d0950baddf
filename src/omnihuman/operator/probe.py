"""Probe: the header of a file, and its keyframes by packets alone."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from omnihuman.data.decode.frames import read_orientation
from omnihuman.data.decode.streams import list_streams
from omnihuman.data.media import open_media, probe
from omnihuman.data.record import BadSample
from omnihuman.operator.base import Operator, Outcome, Row, columns

TURNS = {
    (False, False, False): 0,
    (False, True, False): 0,
    (False, False, True): 180,
    (False, True, True): 180,
    (True, True, False): 90,
    (True, True, True): 90,
    (True, False, True): 270,
    (True, False, False): 270,
}
"""Orientation of a frame -> the clockwise turn in degrees by which it is shown; a mirrored one counts as its turn."""


class Probe(Operator):
    """File -> kind, size, rotation, frames per second, seconds, whether there is sound, and keyframes.

    Reference: HumanOmni §3 keeps clips of at least 480p and drops those with very few keyframes. Differs from it: the
    paper does not say what a keyframe is. These are the packets from which decoding can begin, which depend on the
    encoder; nothing is decoded.

    Args:
        timeout: seconds per file.
    """

    writes = columns(
        kind=pa.string(),
        width=pa.int64(),
        height=pa.int64(),
        short_side=pa.int64(),
        rotation=pa.int64(),
        fps=pa.float64(),
        seconds=pa.float64(),
        has_sound=pa.bool_(),
        keyframes=pa.int64(),
    )
    opens_media = True

    def __init__(self, timeout: float = 60.0) -> None:
        self.timeout = timeout

    def apply(self, rows: Sequence[Row]) -> Iterable[Outcome]:
        for row in rows:
            yield self._probe(row)

    def _probe(self, row: Row) -> Row:
        path: Path = row["file"]
        header = probe(path, self.timeout)
        video = _read_image(header.size) if header.is_still else _read_video(path, header.video_stream, self.timeout)
        seconds = 0.0 if header.is_still else max(video.pop("last"), header.audio[1])
        begin, end = row["start"], row["end"]
        if begin and begin >= seconds:
            raise BadSample("empty_span", f"{path}: the clip begins at {begin:g} s, the file ends at {seconds:g} s.")
        video.pop("last", None)
        kind = "audio"
        if header.has_video:
            kind = "image" if header.is_still else "video"
        return video | {
            "kind": kind,
            "short_side": min(video["width"], video["height"]),
            "seconds": min(seconds, end or seconds) - begin,
            "has_sound": header.has_audio,
        }


def _read_image(size: tuple[int, int] | None) -> dict[str, Any]:
    assert size is not None
    height, width = size
    return {"width": width, "height": height, "rotation": 0, "fps": 0.0, "keyframes": 1}


def _read_video(path: Path, number: int | None, timeout: float) -> dict[str, Any]:
    """Return the size of the upright frames, and what the packets of the video tell; zeros without a video."""
    video = {"width": 0, "height": 0, "rotation": 0, "fps": 0.0, "keyframes": 0, "last": 0.0}
    if number is None:
        return video
    with open_media(path, timeout) as (container, check):
        stream = list_streams(container)[0][number]
        fps = float(stream.average_rate or 25)
        times = list[float]()
        for packet in container.demux(stream):
            check()
            if packet.pts is not None and not packet.is_discard:
                times.append(float(packet.pts * packet.time_base))
                video["keyframes"] += packet.is_keyframe
        container.seek(0)
        orientation = read_orientation(next(container.decode(stream)))
        height, width = stream.height, stream.width
    if orientation[0]:
        height, width = width, height
    last = max(times) - min(times) + 1 / fps if times else 0.0
    return video | {"width": width, "height": height, "rotation": TURNS[orientation], "fps": fps, "last": last}
