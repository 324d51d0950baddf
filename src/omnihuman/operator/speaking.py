"""Speaking: the tracks of faces that speak, and what each of them says."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

import pyarrow as pa
import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor

from omnihuman.data.decode.frames import DecodedFrame
from omnihuman.data.face import interpolate_box
from omnihuman.data.record import Box
from omnihuman.operator.base import TRACKS, WORDS, Failed, Operator, Outcome, Row, columns
from omnihuman.operator.decoding import take_frames
from omnihuman.operator.pretrained import GpuClock
from omnihuman.operator.sound import read_sound
from omnihuman.operator.tracks import compute_overlaps
from omnihuman.operator.truth import Word, find_limits, read_words

LEAST_OVERLAP = 0.3
"""Intersection over union above which the box of a speaker is that of a track."""

MAX_PAUSE = 0.5
"""Seconds between two words of a speaker that are one span of speech."""

Span = dict[str, Any]
"""``{"track", "start", "end", "score"}``."""


class SpeakerModel(ABC):
    """An active speaker detector: the crops of one face and the sound -> a score for every crop.

    Such a model comes with a package of yours, which names the class in its entry points ``omnihuman.plugins``. Its
    constructor reads the weights; it is called once a worker.

    Attributes:
        frame_rate: crops per second, 25 for Light-ASD and TalkNet.
        side: of the square crops in pixels.
        margin: share of the box's width and height that is added on every side.
    """

    frame_rate: ClassVar[float] = 25.0
    side: ClassVar[int] = 112
    margin: ClassVar[float] = 0.2

    @abstractmethod
    def __call__(self, faces: UInt8[Tensor, "T 3 S S"], waveform: Float[Tensor, " A"]) -> Float[Tensor, " T"]:
        """Return a score for every crop, larger where the face speaks.

        Args:
            faces: at the frame rate.
            waveform: 16 kHz sound of the same span.
        """


class Speaking(Operator):
    """Tracks of faces, words and sound -> the spans in which a track speaks, and the speech of each track.

    A word belongs to the track that speaks in its middle, and to the track ``null`` where none does: its speaker is not
    in the picture, or not known.

    Reference: Omni-Emotion §3.1 describes the speech of each person; it names no active speaker detector.

    Args:
        speakers: ``truth``: of the boxes that the words of the records have; ``model``: of an active speaker detector.
        model: a ``SpeakerModel``, called without arguments.
        threshold: score above which a face speaks.
        timeout: seconds for each half a minute of the file.

    Raises:
        ValueError: there is no model.
    """

    opens_media = True

    def __init__(
        self,
        speakers: Literal["truth", "model"] = "model",
        model: Callable[[], SpeakerModel] | None = None,
        threshold: float = 0.0,
        timeout: float = 60.0,
    ) -> None:
        if speakers == "model" and model is None:
            raise ValueError(
                "speaking: speakers=model needs one: model={_target_: <class of a package of yours>, _partial_: true}; "
                "speakers=truth takes the boxes that the words of the records have."
            )
        self.speakers, self.model, self.threshold, self.timeout = speakers, model, threshold, timeout
        self.reads = {"faces": TRACKS, "words": WORDS, "seconds": pa.float64(), "has_sound": pa.bool_()}
        if speakers == "truth":
            self.reads |= {"records": pa.list_(pa.string())}

    writes = columns(
        speaking=pa.list_(
            pa.struct({"track": pa.int64(), "start": pa.float64(), "end": pa.float64(), "score": pa.float32()})
        ),
        track_speech=pa.list_(pa.struct({"track": pa.int64(), "speech": pa.string()})),
    )

    def setup(self, folder: Path) -> None:
        self.clock = GpuClock()
        if self.speakers == "model":
            assert self.model is not None
            self.detect = self.model()

    def take_cost(self) -> Mapping[str, float]:
        return self.clock.take_cost()

    def apply(self, rows: Sequence[Row]) -> Iterable[Outcome]:
        for row in rows:
            spans: Sequence[Span] | None = []
            if row["has_sound"] and self.speakers == "truth":
                words = read_words(row)
                spans = None if words is None else list(_match_boxes(words, row["faces"]))
            elif row["has_sound"]:
                spans = list(self._detect(row))
            if spans is None:
                yield Failed("no_words", f"{row['source']}: no record of the file has words, which name their speaker.")
            else:
                yield {"speaking": spans, "track_speech": assign_words(row["words"], spans)}

    def _detect(self, row: Row) -> Iterator[Span]:
        """Yield the spans in which the model hears and sees a track speak."""
        begin, end = find_limits(row)
        for track in row["faces"]:
            first, last = max(begin, track["times"][0]), min(end, track["times"][-1])
            waveform, start = read_sound(row, self.timeout, (first, last))
            if waveform is None:
                continue
            crops, times = self._crop(row, track, (max(first, start), last))
            with self.clock.measure():
                scores = self.detect(crops, waveform)
            if scores.shape != (len(crops),):
                raise RuntimeError(f"the speaker model gave {tuple(scores.shape)} scores for {len(crops)} crops.")
            yield from _list_spans(track["track"], times, scores.tolist(), self.threshold, 1 / self.detect.frame_rate)

    def _crop(
        self, row: Row, track: Mapping[str, Any], span: tuple[float, float]
    ) -> tuple[UInt8[Tensor, "T 3 S S"], list[float]]:
        """Return the crops of a track at the frame rate of the model, and their seconds."""
        boxes = _list_boxes(track)
        rate, margin, side = self.detect.frame_rate, self.detect.margin, self.detect.side

        def take(frame: DecodedFrame) -> UInt8[Tensor, "3 S S"]:
            box = interpolate_box(boxes, frame.time)
            assert box is not None
            return _cut(frame.image, box, frame.file_scale, margin, side)

        part = row | {"start": span[0], "end": span[1], "seconds": span[1] - span[0]}
        frames = list(take_frames(part, rate, self.timeout, take))
        crops, times, position = [], [], 0
        for number in range(max(1, round((span[1] - span[0]) * rate))):
            time = span[0] + (number + 0.5) / rate
            while position + 1 < len(frames) and frames[position + 1][0] <= time:
                position += 1
            crops.append(frames[position][1])  # a video with fewer frames repeats them
            times.append(time)
        return torch.stack(crops), times


def _match_boxes(words: Sequence[Word], faces: Sequence[Mapping[str, Any]]) -> Iterator[Span]:
    """Yield the spans of words whose speaker has a track."""
    last: Span | None = None
    for word in words:
        track = None if word["box"] is None else _find_track(word["box"], (word["start"] + word["end"]) / 2, faces)
        if last is not None and track == last["track"] and word["start"] - last["end"] <= MAX_PAUSE:
            last["end"] = word["end"]
            continue
        if last is not None:
            yield last
        last = None if track is None else {"track": track, "start": word["start"], "end": word["end"], "score": 1.0}
    if last is not None:
        yield last


def _find_track(box: Box, time: float, faces: Sequence[Mapping[str, Any]]) -> int | None:
    """Return the number of the track with the largest overlap with a box at a second, ``None`` without one."""
    best, number = LEAST_OVERLAP, None
    for track in faces:
        current = interpolate_box(_list_boxes(track), time)
        assert current is not None
        overlap = float(compute_overlaps([box], [current])[0, 0])
        if overlap > best:
            best, number = overlap, track["track"]
    return number


def _list_spans(
    track: int, times: Sequence[float], scores: Sequence[float], threshold: float, length: float
) -> Iterator[Span]:
    """Yield the runs of frames above the threshold, with their mean score."""
    run: list[tuple[float, float]] = []
    for time, score in [*zip(times, scores, strict=True), (0.0, -torch.inf)]:
        if score > threshold:
            run.append((time, score))
        elif run:
            mean = sum(value for _, value in run) / len(run)
            yield {"track": track, "start": run[0][0] - length / 2, "end": run[-1][0] + length / 2, "score": mean}
            run = []


def assign_words(words: Sequence[Mapping[str, Any]], spans: Sequence[Span]) -> list[dict[str, Any]]:
    """Return the speech of each track that says something, and of the track ``None``; of two, the surer one speaks.

    >>> spans = [{"track": 2, "start": 0.0, "end": 1.0, "score": 1.0}]
    >>> assign_words([{"word": "yes", "start": 0.2, "end": 0.4}, {"word": "no", "start": 1.2, "end": 1.4}], spans)
    [{'track': 2, 'speech': 'yes'}, {'track': None, 'speech': 'no'}]
    """
    speech: dict[int | None, list[str]] = {}
    for word in words:
        middle = (word["start"] + word["end"]) / 2
        speaking = [span for span in spans if span["start"] <= middle <= span["end"]]
        surest = max(speaking, key=lambda span: span["score"], default=None)
        speech.setdefault(None if surest is None else surest["track"], []).append(word["word"])
    return [{"track": track, "speech": " ".join(spoken)} for track, spoken in speech.items()]


def _list_boxes(track: Mapping[str, Any]) -> list[tuple[float, Box | None]]:
    boxes: list[tuple[float, Box | None]] = []
    for time, (x0, y0, x1, y1) in zip(track["times"], track["boxes"], strict=True):
        boxes.append((time, (x0, y0, x1, y1)))
    return boxes


def _cut(frame: UInt8[Tensor, "3 H W"], box: Box, scale: float, margin: float, side: int) -> UInt8[Tensor, "3 S S"]:
    """Return the square around a box with its margin, black outside of the frame.

    Args:
        frame: pixels.
        box: in pixels of the file.
        scale: side of the frame divided by that in the file.
        margin: share of the box's larger side that is added on every side.
        side: of the result.
    """
    x0, y0, x1, y1 = (scale * value for value in box)
    size = max(1, round(max(x1 - x0, y1 - y0) * (1 + 2 * margin)))
    left, top = round((x0 + x1 - size) / 2), round((y0 + y1 - size) / 2)
    height, width = frame.shape[1:]
    padded = F.pad(frame, (max(0, -left), max(0, left + size - width), max(0, -top), max(0, top + size - height)))
    square = padded[:, max(0, top) :, max(0, left) :][:, :size, :size]
    resized = F.interpolate(square[None].float(), (side, side), mode="bilinear", antialias=True)
    return resized[0].round().clamp(0, 255).byte()
