"""YouTube Faces: face verification of two clips."""

import random
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

from omnihuman.benchmark.base import (
    Benchmark,
    Prediction,
    Question,
    check_choices,
    check_unique_ids,
    read_peers,
)
from omnihuman.benchmark.task import score_pairs
from omnihuman.benchmark.text import Media
from omnihuman.data.media import probe
from omnihuman.data.record import Record
from omnihuman.metric.score import Score
from omnihuman.metric.verification import parse_yes_no
from omnihuman.source.youtube_faces import read_pairs

PROMPT = (
    "The first half of the frames is one clip, the second half is another. Do both clips show the same person? "
    "Answer Yes or No."
)
LABELS: dict[bool | None, str] = {True: "Yes", False: "No"}
FPS = 25.0
"""Assumed frame rate of a folder of frames."""


class Segment(NamedTuple):
    """A part of a video folder ``<name>/<number>``: frames ``[start, end)``, ``None`` for all."""

    video: str
    start: int = 0
    end: int | None = None

    @property
    def seconds(self) -> tuple[float, float | None]:
        """Start and end in seconds, half a frame early, so that rounding cannot add or remove a frame."""
        start = max(0.0, (self.start - 0.5) / FPS)
        return start, None if self.end is None else (self.end - 0.5) / FPS


class Pair(NamedTuple):
    """Two segments of the same person or of different ones."""

    id: str
    location: str
    first: Segment
    second: Segment
    is_same: bool
    fold: str = ""


class YouTubeFaces(Benchmark):
    """A copy of YouTube Faces -> accuracy, area under the ROC curve and equal error rate in percent.

    Reference: ``splits.txt`` (or ``splits_corrected.txt``), 5,000 pairs in ten folds: number of the fold and of the
    pair, two folders ``<name>/<number>``, and last 1 for the same person or 0; frames in
    ``frame_images_DB/<name>/<number>/0.555.jpg``. FaVChat, table 5: 3,190 segments of 36 frames of 1,595 people.
    Differs from FaVChat, whose pairs, prompt and parsing are not published: ``pairs=favchat_like`` pairs two segments
    of each person, and one of them with a segment of another person. 591 people have one video only, so both of their
    segments are from it.

    Args:
        root: folder of the frames' folder and the lists.
        pairs: ``official`` or ``favchat_like``.
        splits: the list of the official pairs.
        media: folder below the root with the frames.
        prompt: about two clips, each of which has half of the frames.
        segment: frames of a segment of ``favchat_like``.
        same_video_positive: include people with one video in ``favchat_like``.
        seed: of the segments and the pairs of ``favchat_like``.
        missing_media: ``raise``, or ``skip`` pairs with missing frames and count them.
        log_probs: compute P(Yes), for the area and the error rate.
        max_new_tokens: maximum length of an answer.

    Raises:
        ValueError: an option is invalid.
    """

    name = "youtube_faces"
    labels = tuple(LABELS.values())
    view = "VF"
    published = read_peers("youtube_faces")

    def __init__(
        self,
        root: str,
        *,
        pairs: Literal["official", "favchat_like"] = "official",
        splits: str = "splits.txt",
        media: str = "frame_images_DB",
        prompt: str = PROMPT,
        segment: int = 36,
        same_video_positive: bool = True,
        seed: int = 0,
        missing_media: Literal["raise", "skip"] = "raise",
        log_probs: bool = True,
        max_new_tokens: int = 8,
    ) -> None:
        check_choices(pairs=(pairs, ("official", "favchat_like")), missing_media=(missing_media, ("raise", "skip")))
        if segment < 1:
            raise ValueError(f"segment={segment}: a segment must have at least one frame.")
        self.root, self.pairs, self.splits, self.prompt = Path(root), pairs, splits, prompt
        self.segment, self.same_video_positive, self.seed = segment, same_video_positive, seed
        self.media = Media(self.root / media, missing_media)
        self.log_probs, self.max_new_tokens = log_probs, max_new_tokens

    def questions(self) -> list[Question]:
        self.media.reset()
        questions = []
        for pair in self.read_pairs():
            question = self._build_question(pair)
            if question is not None:
                questions.append(question)
        return check_unique_ids(questions, str(self.root))

    def parse(self, prediction: Prediction) -> tuple[Any, str]:
        is_yes, rule = parse_yes_no(prediction.answer)
        return LABELS.get(is_yes), rule

    def scores(self, predictions: Sequence[Prediction]) -> list[Score]:
        scores = self._compute_scores(predictions, "parser: the first word, else the only one of yes and no")
        two_videos = [prediction for prediction in predictions if not prediction.meta.get("same_video")]
        if len(two_videos) < len(predictions):
            accuracy = self._compute_scores(two_videos, "without pairs from one video")[0]
            scores.append(replace(accuracy, name="accuracy_two_videos"))
        return scores

    def protocol(self) -> dict[str, str]:
        pairs = f"official, {self.splits}, mean of its folds"
        if self.pairs == "favchat_like":
            preposition = "with" if self.same_video_positive else "without"
            people = f"{preposition} people who have one video only"
            pairs = f"ours after FaVChat, {self.segment} frames, seed {self.seed}, {people}"
        return {
            "pairs": pairs,
            "prompt": self.prompt,
            "frames": "half of them from each clip",
            **self.media.protocol(),
        }

    def _compute_scores(self, predictions: Sequence[Prediction], note: str) -> list[Score]:
        folds = [prediction.group for prediction in predictions]
        parsed = [self.parse(prediction)[0] for prediction in predictions]
        return score_pairs(predictions, parsed, "Yes", folds if len(set(folds)) > 1 else None, note)

    def read_pairs(self) -> Iterator[Pair]:
        """Yield the pairs, official or drawn.

        Raises:
            ValueError: the list or the folder of the frames is missing or invalid.
        """
        return self._read_official() if self.pairs == "official" else self._draw_pairs()

    def find_folders(self, pair: Pair) -> tuple[Path, Path] | None:
        """Return the folders of the frames of both clips; ``None`` if one is missing and skipped.

        Raises:
            ValueError: one is missing, and ``missing_media`` is ``raise``.
        """
        first = self.media.find(pair.first.video, pair.location)
        second = self.media.find(pair.second.video, pair.location)
        return None if first is None or second is None else (first, second)

    def _read_official(self) -> Iterator[Pair]:
        path = self.root / self.splits
        if not path.is_file():
            raise ValueError(f"{path}: there is no such file; set splits, or pairs=favchat_like, which needs none.")
        for pair in read_pairs(path):
            first, second = Segment(pair.first), Segment(pair.second)
            name = f"{pair.fold}/{pair.number}"
            yield Pair(name, pair.location, first, second, pair.mark == "1", f"fold_{pair.fold}")

    def _draw_pairs(self) -> Iterator[Pair]:
        """Draw a positive and a negative pair for each person."""
        min_videos = 1 if self.same_video_positive else 2
        people = {}
        for folder in sorted(self.media.root.glob("*/")):
            videos = [f"{folder.name}/{video.name}" for video in folder.iterdir() if video.is_dir()]
            if len(videos) >= min_videos:
                people[folder.name] = sorted(videos, key=_sort_key)
        if len(people) < 2:
            raise ValueError(
                f"{self.media.root}: {len(people)} people with videos <name>/<number>/*.jpg; set root to the folder "
                "YouTubeFaces, and media to its folder of frames."
            )
        rng = random.Random(self.seed)
        segments = {name: self._draw_segments(videos, rng) for name, videos in people.items()}
        order = list(segments)
        rng.shuffle(order)
        other = dict(zip(order, [*order[1:], order[0]], strict=True))  # a cycle: each person is drawn once
        for name, (first, second) in segments.items():
            location = f"{self.media.root}/{name}"
            yield Pair(f"{name}/same", location, first, second, True)
            yield Pair(f"{name}/different", location, first, segments[other[name]][1], False)

    def _draw_segments(self, videos: Sequence[str], rng: random.Random) -> tuple[Segment, Segment]:
        """Draw two segments of a person: the middle of two videos, or start and end of a single one."""
        if len(videos) == 1:
            num_frames = probe(self.media.root / videos[0]).num_frames
            end = Segment(videos[0], max(0, num_frames - self.segment), None)
            return Segment(videos[0], 0, self.segment), end
        first, second = rng.sample(videos, 2)
        return self._middle_segment(first), self._middle_segment(second)

    def _middle_segment(self, video: str) -> Segment:
        start = max(0, (probe(self.media.root / video).num_frames - self.segment) // 2)
        return Segment(video, start, start + self.segment)

    def _build_question(self, pair: Pair) -> Question | None:
        folders = self.find_folders(pair)
        if folders is None:
            return None
        folder, second_folder = folders
        start, end = pair.first.seconds
        record = Record(
            pair.id,
            folder,
            "video",
            (("user", f"<video>\n{self.prompt}"), ("assistant", "")),
            ("video",),
            start,
            end,
            location=pair.location,
            second_clip=second_folder,
            second_clip_span=pair.second.seconds,
            fps=FPS,
        )
        same_video = pair.first.video == pair.second.video
        meta = {"videos": [pair.first.video, pair.second.video], "same_video": same_video}
        return Question(record, LABELS[pair.is_same], pair.fold, self.labels, meta)


def _sort_key(video: str) -> tuple[int, str]:
    name = video.rpartition("/")[2]
    return (int(name) if name.isdecimal() else 0), name
