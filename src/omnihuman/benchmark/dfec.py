"""DFEC: captions of facial appearance and expression changes, scored by n-grams and by a judge."""

import re
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from omnihuman.benchmark.base import (
    Benchmark,
    Prediction,
    PublishedResult,
    Question,
    check_unique_ids,
    get_value,
    read_peers,
    unzip,
)
from omnihuman.benchmark.text import (
    Media,
    TrainingClips,
    build_record,
    describe_judge,
    judge_answers,
    parse_text,
)
from omnihuman.data.text_files import read_json
from omnihuman.judge.base import Judge
from omnihuman.judge.scoring import ASPECTS, Counts, judge_autodq, judge_video_chatgpt
from omnihuman.metric.caption import ROUGE_VARIANTS, cider, rouge_l
from omnihuman.metric.events import score_autodq
from omnihuman.metric.score import Score

PROMPT = (
    "Please provide a detailed description of the facial appearance attributes and expression changes of the character "
    "in the video"
)
GENERIC_CAPTION = "A person looks ahead, and the expression on the face changes a little."
NAME_LENGTHS = {"dfew": 1, "mafw": 1, "ravdess": 1, "afew": 1, "mer2": 2, "caer": 3, "ferv39k": 3}
"""Prefix of a dataset's folder -> number of words at the end of a path that identify a clip."""


class DFEC(Benchmark):
    """The clips of ``test.json`` -> CIDEr, ROUGE-L, and with a judge Video-ChatGPT's four scores and AutoDQ's F1.

    Reference: FaceTrack-MM (arXiv 2501.07978), FEC-Bench: a list of ``{"id", "video", "caption"}``, of which 800 of
    1,000 are released; HumanOmni, table 3, FaVChat, table 1.
    Differs from them: the judge is stated, and clips on which it fails are missing; their event matching (TEM) is
    omitted, its formula is not published.

    Args:
        root: folder of the videos (``DFEW/videos/2961.mp4`` and six other sources).
        annotations: ``test.json``, absolute or relative to ``root``.
        prompt: for each clip.
        rouge: ``coco`` (as in pycocoevalcap) or another variant of ``metric.caption.rouge_l``.
        train_records: data files of the training; ``protocol`` counts the clips that are also in them.
        judge: for Video-ChatGPT's scores and AutoDQ, which are omitted without one.
        missing_media: ``raise``, or ``skip`` missing clips and count them.
        max_new_tokens: maximum length of a caption.
    """

    name = "dfec"
    view = "VAF"
    published = read_peers("dfec")

    def __init__(
        self,
        root: str,
        *,
        annotations: str = "test.json",
        prompt: str = PROMPT,
        rouge: str = "coco",
        train_records: str | Sequence[str] = (),
        judge: Judge | None = None,
        missing_media: Literal["raise", "skip"] = "raise",
        max_new_tokens: int = 512,
    ) -> None:
        if rouge not in ROUGE_VARIANTS:
            raise ValueError(f"rouge={rouge}: choose from {', '.join(ROUGE_VARIANTS)}.")
        self.root, self.annotations, self.prompt, self.rouge = Path(root), Path(root, annotations), prompt, rouge
        self.judge, self.max_new_tokens = judge, max_new_tokens
        self.media = Media(self.root, missing_media)
        self.training = TrainingClips(train_records, identify_clip)

    def questions(self) -> list[Question]:
        self.media.reset()
        entries = read_json(self.annotations)
        if not isinstance(entries, list) or not entries:
            raise ValueError(f"{self.annotations}: this is not a list of clips; use DFEC's test.json.")
        self.training.reset()
        questions = []
        for number, entry in enumerate(entries):
            location = f"{self.annotations}[{number}]"
            name, video, caption = (_read_text(entry, key, location) for key in ("id", "video", "caption"))
            file = self.media.find(video, f"{location}: video")
            if file is not None:
                source = video.split("/")[0]
                meta = {"source": source, **self.training.check(video, source)}
                questions.append(Question(build_record(file, self.prompt, name, location), caption, meta=meta))
        return check_unique_ids(questions, str(self.annotations))

    def parse(self, prediction: Prediction) -> tuple[Any, str]:
        return parse_text(prediction)

    def scores(self, predictions: Sequence[Prediction]) -> list[Score]:
        ids, references, answers = unzip(predictions)
        captions = [answer.strip() for answer in answers]
        scores = [cider(ids, references, captions), rouge_l(ids, references, captions, variant=self.rouge)]
        if self.judge is not None:
            scores += self._judge_captions(predictions, self.judge)
        return scores

    def _judge_captions(self, predictions: Sequence[Prediction], judge: Judge) -> list[Score]:
        """Compute Video-ChatGPT's scores and AutoDQ; a failed generation scores 0."""
        note = f"judge {judge.id}"
        ids = [prediction.id for prediction in predictions]

        def judge_aspects(answered: Sequence[Prediction]) -> list[tuple[float | None, ...]]:
            prompts = [prediction.prompt for prediction in answered]
            _, references, answers = unzip(answered)
            scores = judge_video_chatgpt(judge, prompts, references, answers, ASPECTS)
            return list(zip(*scores.values(), strict=True))

        def judge_events(answered: Sequence[Prediction]) -> list[Counts | None]:
            _, references, answers = unzip(answered)
            return judge_autodq(judge, references, answers)

        zeros: tuple[float | None, ...] = (0.0,) * len(ASPECTS)
        rows = judge_answers(predictions, judge_aspects, zeros)
        scores = []
        for aspect, values in zip(ASPECTS, zip(*rows, strict=True), strict=True):
            scores.append(_mean_score(aspect, ids, values, note))
        no_events: Counts | None = (0, 1, 0, 1)
        precision_counts: list[tuple[int, int] | None] = []
        recall_counts: list[tuple[int, int] | None] = []
        for counts in judge_answers(predictions, judge_events, no_events):
            precision_counts.append(None if counts is None else counts[:2])
            recall_counts.append(None if counts is None else counts[2:])
        return scores + score_autodq(ids, precision_counts, recall_counts, note)

    def floors(self, predictions: Sequence[Prediction]) -> tuple[PublishedResult, ...]:
        """Score trivial captions on the same references, for comparison in tables."""
        ids, references, _ = unzip(predictions)
        captions = {
            "caption of the next clip": references[1:] + references[:1],
            "caption of the first clip": references[:1] * len(references),
            "one generic sentence": [GENERIC_CAPTION] * len(references),
        }
        floors = []
        for name, answers in captions.items():
            values = {
                "cider": cider(ids, references, answers).value,
                "rouge_l": rouge_l(ids, references, answers, self.rouge).value,
            }
            source = f"computed on these {len(ids)} references"
            floors.append(PublishedResult(f"floor: {name}", values, protocol="floor, without video", source=source))
        return tuple(floors)

    def protocol(self) -> dict[str, str]:
        return {
            "prompt": self.prompt,
            "CIDEr": f"document frequencies of {self.annotations.name}: scores of subsets are not comparable",
            "ROUGE-L": self.rouge,
            "judge": describe_judge(self.judge, f"{', '.join(ASPECTS)} and autodq"),
            **self.training.protocol(),
            **self.media.protocol(),
        }


def identify_clip(video: str) -> str:
    """Return the name of a path's clip, independent of the folder of the dataset.

    >>> identify_clip("DFEW/videos/2961.mp4") == identify_clip("media/dfew/Clip/02961.avi")
    True
    """
    path = PurePosixPath(video.lower())
    for name, length in NAME_LENGTHS.items():
        if any(part.startswith(name) for part in path.parts[:-1]):
            # the folders of FERV39k are joined by underscores in some copies
            words = re.split(r"[/_]", str(path.with_suffix("")))[-length:]
            return "/".join([name, *(word.lstrip("0") or "0" for word in words)])
    return str(path)


def _read_text(entry: Any, key: str, location: str) -> str:
    value = get_value(entry, key)
    if key == "id" and isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"{location}: {key} is {value!r:.80}; an entry must have the texts id, video and caption.")
    return value.strip()


def _mean_score(aspect: str, ids: Sequence[str], values: Sequence[float | None], note: str) -> Score:
    """Return the mean of the judged values; failed ones lower the coverage, not the mean."""
    names, judged = [], []
    for name, value in zip(ids, values, strict=True):
        if value is not None:
            names.append(name)
            judged.append(value)
    return Score.mean(aspect, names, judged, scale=1.0, num_questions=len(ids), note=note)
