"""Scenes: spans of a video between its cuts."""

from collections.abc import Iterable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import pyarrow as pa

from omnihuman.data.decode.frames import DecodedFrame
from omnihuman.operator.base import Operator, Outcome, Row, columns
from omnihuman.operator.decoding import find_span, take_frames

SIDE = 256
"""Longest side in pixels of the frames that are compared; what changes at a cut is large."""


class Scenes(Operator):
    """A clip -> a row for each of its scenes.

    Reference: PySceneDetect's ``AdaptiveDetector``, whose threshold is relative to the change of the frames around.
    Differs from HumanOmni §3, which does not name its detector.

    Args:
        threshold: of the change at a cut, relative to that of the frames around it.
        least_change: of the change at a cut, from 0 to 255.
        window: frames on each side that the change is compared with.
        min_seconds: of a scene; a cut that would leave a shorter one is none.
        max_seconds: of a scene; a longer one is cut into equal parts. ``None``: no limit.
        timeout: seconds for each half a minute of the file.
    """

    reads = columns(seconds=pa.float64())
    writes = columns(start=pa.float64(), end=pa.float64(), num_scenes=pa.int64())
    modules = "scenedetect"
    opens_media = True

    def __init__(
        self,
        threshold: float = 3.0,
        least_change: float = 15.0,
        window: int = 2,
        min_seconds: float = 0.6,
        max_seconds: float | None = None,
        timeout: float = 60.0,
    ) -> None:
        self.options = {"adaptive_threshold": threshold, "min_content_val": least_change, "window_width": window}
        self.min_seconds, self.max_seconds, self.timeout = min_seconds, max_seconds, timeout

    def setup(self, folder: Path) -> None:
        import scenedetect

        self.library = scenedetect

    def apply(self, rows: Sequence[Row]) -> Iterable[Outcome]:
        for row in rows:
            cuts = self.find_cuts(row)
            begin, end = row["start"], row["end"]
            last = find_span(row, self.timeout)[1]
            # a clip of one scene keeps the span, and with it the id, that it has
            edges = [begin, *cuts, last]
            spans = self._limit(edges)
            if spans == [(begin, last)]:
                spans = [(begin, end)]
            yield [{"start": first, "end": final, "num_scenes": len(spans)} for first, final in spans]

    def find_cuts(self, row: Row) -> list[float]:
        """Return the seconds in the file at which a new scene begins."""
        detector = self.library.AdaptiveDetector(min_scene_len=1, **self.options)
        times = list[float]()
        cuts = list[Any]()

        def compare(frame: DecodedFrame) -> None:
            if times and frame.time <= times[-1]:
                return
            times.append(frame.time)
            scale = min(1.0, SIDE / max(frame.size))
            height, width = (max(1, round(scale * side)) for side in frame.size)
            image = frame.scale((height, width)).permute(1, 2, 0).flip(2).contiguous().numpy()  # BGR
            timecode = self.library.FrameTimecode(len(times) - 1, fps=25.0)
            cuts.extend(detector.process_frame(timecode, image))

        for _ in take_frames(row, None, self.timeout, compare):
            pass
        seconds = sorted(times[cut.frame_num] for cut in cuts)
        return self._select(seconds, *find_span(row, self.timeout))

    def _select(self, cuts: Sequence[float], begin: float, end: float) -> list[float]:
        """Return the cuts that leave no scene that is too short."""
        selected = list[float]()
        for cut in cuts:
            last = selected[-1] if selected else begin
            if cut - last >= self.min_seconds and end - cut >= self.min_seconds:
                selected.append(cut)
        return selected

    def _limit(self, edges: Sequence[float]) -> list[tuple[float, float]]:
        """Return the spans between edges, long ones in equal parts."""
        spans = list[tuple[float, float]]()
        for begin, end in pairwise(edges):
            num_parts = 1
            if self.max_seconds is not None:
                num_parts = max(1, -int(-(end - begin) // self.max_seconds))
            length = (end - begin) / num_parts
            for number in range(num_parts):
                spans.append(
                    (begin + number * length, end if number == num_parts - 1 else begin + (number + 1) * length)
                )
        return spans
