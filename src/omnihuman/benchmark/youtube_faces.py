"""YouTube Faces: whether two clips show one person."""

import math
import random
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

from omnihuman.benchmark.base import Benchmark, Peer, Prediction, Question, check_switches, lines_of, unique
from omnihuman.benchmark.text import Media
from omnihuman.data.media import probe
from omnihuman.data.record import Record
from omnihuman.metric.score import Score
from omnihuman.metric.verification import parse_yes_no, verification_scores

PROMPT = (
    "The first half of the frames is one clip, the second half is another. Do both clips show the same person? "
    "Answer Yes or No."
)
RATE = 25.0
"""Pictures a second that a folder is taken to have."""


class Segment(NamedTuple):
    """A part of a video folder ``<name>/<number>``: its pictures from ``start`` to ``end``, ``None`` for all."""

    video: str
    start: int = 0
    end: int | None = None

    @property
    def seconds(self) -> tuple[float, float | None]:
        # between two pictures, so that rounding moves none in or out
        start = max(0.0, (self.start - 0.5) / RATE)
        return start, None if self.end is None else (self.end - 0.5) / RATE


class Pair(NamedTuple):
    """Two segments and whether they show one person."""

    id: str
    where: str
    first: Segment
    second: Segment
    is_same: bool
    fold: str = ""


def _peer(method: str, accuracy: float, with_text: float | None = None) -> list[Peer]:
    how, source = "own pairs of 1,595 people, which are not published", "FaVChat, table 5"
    rows = [Peer(method, {"accuracy": accuracy}, "V", how, source)]
    if with_text is not None:
        rows.append(Peer(f"{method}, told FaVChat's description", {"accuracy": with_text}, "V", how, source))
    return rows


class YouTubeFaces(Benchmark):
    """A copy of YouTube Faces -> accuracy, area under the curve and equal error rate of same or different, in percent.

    Reference: ``splits.txt`` (or ``splits_corrected.txt``), 5,000 pairs in ten folds: number of the fold and of the
    pair, two folders ``<name>/<number>``, and last whether they are the same; pictures in
    ``frame_images_DB/<name>/<number>/0.555.jpg``. FaVChat, table 5: 3,190 segments of 36 frames of 1,595 people.
    Differs from FaVChat, whose pairs, prompt and parsing are not published: ``pairs=favchat_like`` draws two segments
    of each person, and for each person one of somebody else. 591 people have one video only, so their segments come
    from the same one.

    Args:
        root: the folder with the pictures' folder and the lists.
        pairs: ``official`` or ``favchat_like``.
        splits: the list of the official pairs.
        media: folder below the root that holds the pictures.
        prompt: what is asked about two clips, of which the model sees half of its frames each.
        segment: frames of a segment of ``favchat_like``.
        same_video_positive: whether people with one video take part in it.
        seed: of its segments and of who is compared with whom.
        missing_media: ``raise``, or ``skip`` pairs whose pictures are not on disk and count them.
        log_probs: also take P(Yes), for area and error rate.
        max_new_tokens: length limit of an answer.

    Raises:
        ValueError: a switch is unknown.
    """

    name = "youtube_faces"
    labels = ("Yes", "No")
    modality = "VF"
    peers = (
        *_peer("GPT-4o", 71.29, 93.61),
        *_peer("Claude3.5-Sonnet", 68.59, 94.29),
        *_peer("VideoChat", 54.74, 73.61),
        *_peer("VideoChat2", 57.30, 81.32),
        *_peer("VideoLLaMA2", 51.03, 75.05),
        *_peer("Qwen2-VL-2B", 46.46, 65.39),
        *_peer("Qwen2-VL-7B", 58.75, 83.20),
        *_peer("Qwen2-VL-72B", 64.83, 84.51),
        *_peer("FaVChat", 82.38),
    )

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
        check_switches(pairs=(pairs, ("official", "favchat_like")), missing_media=(missing_media, ("raise", "skip")))
        if segment < 1:
            raise ValueError(f"segment={segment}: a segment has one frame at least.")
        self.root, self.pairs, self.splits, self.prompt = Path(root), pairs, splits, prompt
        self.segment, self.same_video_positive, self.seed = segment, same_video_positive, seed
        self.media = Media(self.root / media, missing_media)
        self.log_probs, self.max_new_tokens = log_probs, max_new_tokens

    def questions(self) -> list[Question]:
        self.media.start()
        pairs = self._official() if self.pairs == "official" else self._favchat_like()
        return unique([asked for pair in pairs if (asked := self._question(pair)) is not None], str(self.root))

    def parse(self, asked: Prediction) -> tuple[Any, str]:
        said, rule = parse_yes_no(asked.answer)
        return (None if said is None else self.labels[not said]), rule

    def scores(self, predictions: Sequence[Prediction]) -> list[Score]:
        scores = self._scores(predictions, "parser: the first word, else the only one of yes and no")
        apart = [each for each in predictions if not each.meta.get("same_video")]
        if len(apart) < len(predictions):
            accuracy = self._scores(apart, "without pairs from one video")[0]
            scores.append(replace(accuracy, name="accuracy_two_videos"))
        return scores

    def protocol(self) -> dict[str, str]:
        official = f"official, {self.splits}, mean of its folds"
        one = "with" if self.same_video_positive else "without"
        drawn = f"ours after FaVChat, {self.segment} frames, seed {self.seed}, {one} people who have one video only"
        return {
            "pairs": official if self.pairs == "official" else drawn,
            "prompt": self.prompt,
            "frames": "half of them from each clip",
            **self.media.protocol(),
        }

    def _scores(self, predictions: Sequence[Prediction], note: str) -> list[Score]:
        truths = [each.truth == "Yes" for each in predictions]
        parsed = [None if (said := self.parse(each)[0]) is None else said == "Yes" for each in predictions]
        folds = [each.group for each in predictions] if len({each.group for each in predictions}) > 1 else None
        yes = None
        if any(each.log_probs for each in predictions):  # what could not be asked is wrong: as wrong as can be
            yes = [
                _p_yes(each) if each.log_probs else float(not truth)
                for each, truth in zip(predictions, truths, strict=True)
            ]
        return verification_scores([each.id for each in predictions], truths, parsed, folds, yes, note)

    def _official(self) -> Iterator[Pair]:
        path = self.root / self.splits
        if not path.is_file():
            raise ValueError(f"{path}: there is no such file; set splits, or pairs=favchat_like, which needs none.")
        for number, (where, line) in enumerate(lines_of(path), 1):
            cells = [cell.strip() for cell in line.split(",")]
            if number == 1 and not re.search(r"/\d", line):
                continue  # the head
            videos = [cell for cell in cells if "/" in cell]
            if len(cells) < 4 or len(videos) != 2 or cells[-1] not in ("0", "1") or not cells[0].isdecimal():
                raise ValueError(
                    f"{where}: a line is <fold>, <pair>, <name>/<number>, <name>/<number>, ..., 0 or 1; found {line!r}."
                )
            first, second = (Segment(video) for video in videos)
            place = cells[1] if cells[1].isdecimal() else str(number)
            yield Pair(f"{cells[0]}/{place}", where, first, second, cells[-1] == "1", f"fold_{cells[0]}")

    def _favchat_like(self) -> Iterator[Pair]:
        people = {
            folder.name: sorted(
                (f"{folder.name}/{part.name}" for part in folder.iterdir() if part.is_dir()), key=_number
            )
            for folder in sorted(self.media.root.glob("*/"))
        }
        several = {name: some for name, some in people.items() if len(some) > 1 or (some and self.same_video_positive)}
        if len(several) < 2:
            raise ValueError(
                f"{self.media.root}: {len(several)} people with videos <name>/<number>/*.jpg; root is the folder "
                "YouTubeFaces, and media its folder of pictures."
            )
        drawn = random.Random(self.seed)
        own = {name: self._segments(videos, drawn) for name, videos in several.items()}
        order = list(own)
        drawn.shuffle(order)
        other = dict(zip(order, [*order[1:], order[0]], strict=True))  # each is somebody else's other once
        for name, (first, second) in own.items():
            where = f"{self.media.root}/{name}"
            yield Pair(f"{name}/same", where, first, second, True)
            yield Pair(f"{name}/different", where, first, own[other[name]][1], False)

    def _segments(self, videos: Sequence[str], drawn: random.Random) -> tuple[Segment, Segment]:
        """Two segments of one person: of two videos their middle, of one its beginning and its end."""
        if len(videos) == 1:
            count = probe(self.media.root / videos[0]).frames
            return Segment(videos[0], 0, self.segment), Segment(videos[0], max(0, count - self.segment), None)
        first, second = (self._middle(video) for video in drawn.sample(videos, 2))
        return first, second

    def _middle(self, video: str) -> Segment:
        start = max(0, (probe(self.media.root / video).frames - self.segment) // 2)
        return Segment(video, start, start + self.segment)

    def _question(self, pair: Pair) -> Question | None:
        folders = [self.media.find(each.video, pair.where) for each in (pair.first, pair.second)]
        if folders[0] is None or folders[1] is None:
            return None
        start, end = pair.first.seconds
        record = Record(
            pair.id,
            folders[0],
            "video",
            (("user", f"<video>\n{self.prompt}"), ("assistant", "")),
            ("video",),
            start,
            end,
            source=pair.where,
            then=folders[1],
            then_clip=pair.second.seconds,
            rate=RATE,
        )
        same_video = pair.first.video == pair.second.video
        meta = {"videos": [pair.first.video, pair.second.video], "same_video": same_video}
        return Question(record, self.labels[not pair.is_same], pair.fold, self.labels, meta)


def _p_yes(asked: Prediction) -> float:
    yes, no = asked.log_probs
    return 1 / (1 + math.exp(min(700.0, no - yes)))


def _number(video: str) -> tuple[int, str]:
    name = video.rpartition("/")[2]
    return (int(name) if name.isdecimal() else 0), name
