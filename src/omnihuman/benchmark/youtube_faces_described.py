"""YouTube Faces from descriptions: the model describes each clip, and a judge compares the descriptions of a pair."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal, NamedTuple

from omnihuman.benchmark.base import Benchmark, Prediction, Question, check_unique_ids, read_peers
from omnihuman.benchmark.text import describe_judge, parse_text
from omnihuman.benchmark.youtube_faces import FPS, Segment, YouTubeFaces
from omnihuman.data.record import Record
from omnihuman.judge.base import Judge
from omnihuman.judge.scoring import judge_same_person
from omnihuman.metric.score import Score
from omnihuman.metric.verification import score_verification

DESCRIBE = (
    "Describe the face of the person in the video in detail: its shape, eyes, eyebrows, nose, mouth, skin, hair, facial"
    " hair, glasses, age and gender, and everything by which this person could be recognized."
)


class Compared(NamedTuple):
    """A pair of clips with their descriptions; ``None`` where there is none."""

    id: str
    fold: str
    is_same: bool
    first: str | None
    second: str | None


class YouTubeFacesDescribed(Benchmark):
    """A copy of YouTube Faces -> share of the pairs that a second model decides from descriptions of both clips.

    Reference: FaVChat, table 5, second column: other models get FaVChat's description of the clips, and answer whether
    they show the same person. Its prompts are not published.
    Differs from it: the second model, the judge, gets the descriptions alone and not the frames. Every clip is
    described once, in whichever pairs it is. A pair without one of its descriptions is wrong; a pair on which the judge
    fails is missing.

    Args:
        root: see ``YouTubeFaces``, as all options of the pairs.
        pairs: ``official`` or ``favchat_like``.
        splits: the list of the official pairs.
        media: folder below the root with the frames.
        describe: prompt of the descriptions.
        segment: frames of a segment of ``favchat_like``.
        same_video_positive: include people with one video in ``favchat_like``.
        seed: of the segments and the pairs of ``favchat_like``.
        judge: the second model; without one there is no accuracy.
        missing_media: ``raise``, or ``skip`` pairs with missing frames and count them.
        max_new_tokens: maximum length of a description.

    Raises:
        ValueError: an option is invalid.
    """

    name = "youtube_faces_described"
    view = "VF"
    published = read_peers("youtube_faces_described")

    def __init__(
        self,
        root: str,
        *,
        pairs: Literal["official", "favchat_like"] = "official",
        splits: str = "splits.txt",
        media: str = "frame_images_DB",
        describe: str = DESCRIBE,
        segment: int = 36,
        same_video_positive: bool = True,
        seed: int = 0,
        judge: Judge | None = None,
        missing_media: Literal["raise", "skip"] = "raise",
        max_new_tokens: int = 512,
    ) -> None:
        self.faces = YouTubeFaces(
            root,
            pairs=pairs,
            splits=splits,
            media=media,
            segment=segment,
            same_video_positive=same_video_positive,
            seed=seed,
            missing_media=missing_media,
        )
        self.describe, self.judge, self.max_new_tokens = describe, judge, max_new_tokens

    def questions(self) -> list[Question]:
        self.faces.media.reset()
        pairs: dict[Segment, list[list[Any]]] = {}
        places: dict[Segment, str] = {}
        for pair in self.faces.read_pairs():
            if self.faces.find_folders(pair) is None:
                continue
            for position, segment in enumerate((pair.first, pair.second)):
                pairs.setdefault(segment, []).append([pair.id, pair.fold, pair.is_same, position])
                places.setdefault(segment, pair.location)
        questions = [self._build_question(segment, places[segment], entries) for segment, entries in pairs.items()]
        return check_unique_ids(questions, str(self.faces.root))

    def parse(self, prediction: Prediction) -> tuple[Any, str]:
        return parse_text(prediction)

    def scores(self, predictions: Sequence[Prediction]) -> list[Score]:
        ids = [prediction.id for prediction in predictions]
        described = [float(parse_text(prediction)[0] is not None) for prediction in predictions]
        scores = [Score.mean("described", ids, described, note="clips that have a description")]
        if self.judge is not None:
            scores = [*self._score_pairs(collect_pairs(predictions), self.judge), *scores]
        return scores

    def protocol(self) -> dict[str, str]:
        faces = self.faces.protocol()
        return {
            "pairs": faces["pairs"],
            "prompt": self.describe,
            "second model": describe_judge(self.judge, "accuracy"),
            "second model's input": "the two descriptions, no frames",
            **self.faces.media.protocol(),
        }

    def _build_question(self, segment: Segment, location: str, pairs: list[list[Any]]) -> Question:
        start, end = segment.seconds
        name = segment.video
        if segment.start or segment.end is not None:
            name += f"/{segment.start}-{segment.end or ''}"
        file = self.faces.media.root / segment.video
        messages = (("user", f"<video>\n{self.describe}"), ("assistant", ""))
        record = Record(name, file, "video", messages, ("video",), start, end, location=location, fps=FPS)
        return Question(record, segment.video.partition("/")[0], meta={"pairs": pairs})

    def _score_pairs(self, pairs: Sequence[Compared], judge: Judge) -> list[Score]:
        """Return the accuracy of the pairs, with folds their mean and each fold."""
        texts = {pair.id: (pair.first, pair.second) for pair in pairs if pair.first and pair.second}
        verdicts = dict(zip(texts, judge_same_person(judge, list(texts.values())), strict=True))
        # a pair without a description has no verdict and is wrong; one on which the judge failed is missing
        scored = [pair for pair in pairs if verdicts.get(pair.id, False) is not None]
        parsed = [verdicts.get(pair.id) for pair in scored]
        references, folds = [pair.is_same for pair in scored], [pair.fold for pair in scored]
        scores = score_verification(
            [pair.id for pair in scored],
            references,
            parsed,
            folds if len(set(folds)) > 1 else None,
            note=f"judge {judge.id}",
        )
        counts = {"accuracy": len(pairs)}
        for pair in pairs:
            counts[f"accuracy/{pair.fold}"] = counts.get(f"accuracy/{pair.fold}", 0) + 1
        return [replace(score, num_questions=counts[score.name]) for score in scores]


def collect_pairs(predictions: Sequence[Prediction]) -> list[Compared]:
    """Return the pairs whose two clips are among the predictions, in the order of their first clips."""
    sides: dict[str, dict[int, str | None]] = {}
    facts: dict[str, tuple[str, bool]] = {}
    for prediction in predictions:
        for name, fold, is_same, position in prediction.meta["pairs"]:
            sides.setdefault(name, {})[position] = parse_text(prediction)[0]
            facts[name] = (fold, is_same)
    return [Compared(name, *facts[name], texts[0], texts[1]) for name, texts in sides.items() if len(texts) == 2]
