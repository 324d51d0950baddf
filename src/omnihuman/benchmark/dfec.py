"""DFEC: captions of how a face looks and changes, scored by n-grams and by a judge."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from omnihuman.benchmark.base import Benchmark, Peer, Prediction, Question, read_json, unique
from omnihuman.benchmark.text import (
    Media,
    TrainingClips,
    judged_by,
    marks,
    text_of,
    to_record,
)
from omnihuman.judge.base import Judge
from omnihuman.judge.scoring import ASPECTS, autodq, video_chatgpt
from omnihuman.metric.caption import ROUGE_VARIANTS, cider, rouge_l
from omnihuman.metric.events import autodq as f1_of_events
from omnihuman.metric.score import Score

PROMPT = (
    "Please provide a detailed description of the facial appearance attributes and expression changes of the character "
    "in the video"
)
GENERIC = "A person looks ahead, and the expression on the face changes a little."
CLIPS = {"dfew": 1, "mafw": 1, "ravdess": 1, "afew": 1, "mer2": 2, "caer": 3, "ferv39k": 3}
"""Source of clips, as its folder's name begins -> words at the end of a path that tell its clips apart."""

TRAINED, ZERO_SHOT = "fine-tuned", "zero-shot"
STATED = "judge and tokenizer not stated"
ROWS: tuple[tuple[str, str, str, tuple[float, ...]], ...] = (
    ("VideoLLaMA", "V", ZERO_SHOT, (3.60, 3.67, 3.84, 3.50, 0.189, 0.196, 0.303)),
    ("VideoChat", "V", ZERO_SHOT, (3.47, 3.52, 3.92, 3.38, 0.251, 0.192, 0.344)),
    ("VideoChat2", "V", ZERO_SHOT, (3.70, 3.56, 4.16, 3.52, 0.202, 0.229, 0.311)),
    ("Chat-UniVI", "V", ZERO_SHOT, (3.64, 3.63, 4.21, 3.61, 0.189, 0.231, 0.396)),
    ("LLaVA-Next-Video", "V", ZERO_SHOT, (4.19, 4.07, 4.39, 4.04, 0.250, 0.249, 0.395)),
    ("ShareGPT4Video", "V", ZERO_SHOT, (4.24, 4.13, 4.35, 4.09, 0.192, 0.205, 0.394)),
    ("LLaMA-VID", "V", ZERO_SHOT, (3.95, 4.01, 4.22, 3.71, 0.195, 0.231, 0.339)),
    ("VideoLLaMA2", "V", ZERO_SHOT, (4.17, 4.02, 4.47, 3.93, 0.253, 0.266, 0.344)),
    ("PLLaVA", "V", ZERO_SHOT, (4.21, 4.15, 4.37, 4.08, 0.268, 0.250, 0.393)),
    ("ST-LLM", "V", ZERO_SHOT, (4.00, 3.98, 4.31, 3.94, 0.213, 0.238, 0.321)),
    ("Tarsier", "V", ZERO_SHOT, (3.59, 3.50, 4.07, 3.41, 0.143, 0.185, 0.415)),
    ("LLaVA-OneVision", "V", ZERO_SHOT, (3.68, 3.47, 4.10, 3.42, 0.115, 0.165, 0.379)),
    ("Qwen2-VL-2B", "V", ZERO_SHOT, (4.01, 3.98, 4.37, 3.88, 0.202, 0.221, 0.406)),
    ("Qwen2-VL-7B", "V", ZERO_SHOT, (4.23, 4.16, 4.52, 4.02, 0.204, 0.233, 0.422)),
    ("Qwen2-VL-72B", "V", ZERO_SHOT, (4.28, 4.14, 4.55, 4.08, 0.241, 0.314, 0.449)),
    ("Claude3.5-Sonnet*", "V", f"{ZERO_SHOT}, starred in its source", (4.13, 4.01, 4.49, 4.05, 0.243, 0.228, 0.442)),
    ("GPT-4o*", "V", f"{ZERO_SHOT}, starred in its source", (4.22, 3.97, 4.48, 3.90, 0.264, 0.213, 0.432)),
    ("GPT-4o", "V", f"{ZERO_SHOT}, only in the source paper", (4.18, 3.98, 4.50, 3.92, 0.225, 0.179, 0.410)),
    ("VITA", "VA", ZERO_SHOT, (3.98, 3.74, 4.11, 3.59, 0.191, 0.224, 0.366)),
    ("IXC-2.5-OL", "VA", ZERO_SHOT, (3.91, 3.70, 4.12, 3.54, 0.113, 0.164, 0.382)),
    ("FaceTrack-MM", "V", TRAINED, (4.42, 4.30, 4.60, 4.26, 0.418, 0.473, 0.483)),
    ("HumanOmni", "VA", TRAINED, (4.58, 4.41, 4.70, 4.41, 0.412, 0.468, 0.523)),
    ("FaVChat (7B, UMT-L)", "V", TRAINED, (4.51, 4.41, 4.73, 4.38, 0.416, 0.431, 0.485)),
)
SOURCES = {
    "GPT-4o": "FaceTrack-MM",
    "FaceTrack-MM": "FaceTrack-MM; HumanOmni, table 3; FaVChat, table 1",
    "HumanOmni": "HumanOmni, table 3",
    "FaVChat (7B, UMT-L)": "FaVChat, table 1",
}


def _peer(method: str, modality: str, protocol: str, figures: Sequence[float]) -> Peer:
    values = dict(zip((*ASPECTS, "cider", "rouge_l", "autodq"), figures, strict=True))
    return Peer(method, values, modality, f"{protocol}; {STATED}", SOURCES.get(method, "HumanOmni, table 3"))


class DFEC(Benchmark):
    """The clips of ``test.json`` -> CIDEr, ROUGE-L, and with a judge Video-ChatGPT's four marks and AutoDQ's F1.

    Reference: FaceTrack-MM (arXiv 2501.07978), FEC-Bench: a list of ``{"id", "video", "caption"}``, of which 800 of
    1,000 are released; HumanOmni, table 3, FaVChat, table 1.
    Differs from them: the judge is named, and what it fails on is missing; their event matching (TEM) is left out, its
    formula is not published.

    Args:
        root: folder of the videos (``DFEW/videos/2961.mp4`` and six other sources).
        annotations: ``test.json``, from ``root`` on or with a path of its own.
        prompt: what is asked about each clip.
        rouge: ``coco`` (as pycocoevalcap counts) or another variant that ``metric.caption.rouge_l`` knows.
        train_records: data files of the training; clips that both have are counted in ``protocol``.
        judge: for the marks and AutoDQ, which are left out without one.
        missing_media: ``raise``, or ``skip`` clips that are not there and count them.
        max_new_tokens: length limit of a caption.
    """

    name = "dfec"
    modality = "VAF"
    peers = tuple(_peer(*row) for row in ROWS)

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
        self.training = TrainingClips(train_records, clip_of)

    def questions(self) -> list[Question]:
        self.media.start()
        entries = read_json(self.annotations)
        if not isinstance(entries, list) or not entries:
            raise ValueError(f"{self.annotations}: this is no list of clips; take DFEC's test.json.")
        self.training.start()
        found = []
        for number, entry in enumerate(entries):
            where = f"{self.annotations}[{number}]"
            name, video, caption = (_text(entry, key, where) for key in ("id", "video", "caption"))
            if file := self.media.find(video, f"{where}: video"):
                source = video.split("/")[0]
                meta = {"source": source, **self.training.mark(video, source)}
                found.append(Question(to_record(file, self.prompt, name, where), caption, meta=meta))
        return unique(found, str(self.annotations))

    def parse(self, asked: Prediction) -> tuple[Any, str]:
        return text_of(asked)

    def scores(self, predictions: Sequence[Prediction]) -> list[Score]:
        ids, truths = [each.id for each in predictions], [str(each.truth) for each in predictions]
        captions = [text_of(each)[0] or "" for each in predictions]
        scores = [cider(ids, truths, captions), rouge_l(ids, truths, captions, variant=self.rouge)]
        return scores if self.judge is None else [*scores, *self._judged(predictions, self.judge)]

    def _judged(self, predictions: Sequence[Prediction], judge: Judge) -> list[Score]:
        """The four marks and AutoDQ; a clip that could not be asked has no point, and nothing in it is right."""
        note = f"judge {judge.id}"

        def points(some: Sequence[Prediction]) -> list[dict[str, float | None]]:
            questions, answers = [each.prompt for each in some], [str(each.answer) for each in some]
            given = video_chatgpt(judge, questions, [str(each.truth) for each in some], answers, ASPECTS)
            return [{aspect: given[aspect][number] for aspect in ASPECTS} for number in range(len(some))]

        def events(some: Sequence[Prediction]) -> list[Any]:
            return list(autodq(judge, [str(each.truth) for each in some], [str(each.answer) for each in some]))

        ids, every = [each.id for each in predictions], marks(predictions, points, dict.fromkeys(ASPECTS, 0.0))
        scores = [_mean(aspect, ids, [one[aspect] for one in every], note) for aspect in ASPECTS]
        counts = marks(predictions, events, (0, 1, 0, 1))
        said, told = [one and one[:2] for one in counts], [one and one[2:] for one in counts]
        return scores + f1_of_events(ids, said, told, note)

    def floors(self, predictions: Sequence[Prediction]) -> tuple[Peer, ...]:
        """What captions that look at nothing get on these very references: rows to hold a table against."""
        ids, truths = [each.id for each in predictions], [str(each.truth) for each in predictions]
        blind = {
            "caption of the next clip": truths[1:] + truths[:1],
            "caption of the first clip": truths[:1] * len(truths),
            "one generic sentence": [GENERIC] * len(truths),
        }
        return tuple(
            Peer(
                f"floor: {name}",
                {"cider": cider(ids, truths, given).value, "rouge_l": rouge_l(ids, truths, given, self.rouge).value},
                protocol="floor, sees nothing",
                source=f"computed on these {len(ids)} references",
            )
            for name, given in blind.items()
        )

    def protocol(self) -> dict[str, str]:
        return {
            "prompt": self.prompt,
            "CIDEr": f"over the {self.annotations.name} at hand: figures of subsets do not compare",
            "ROUGE-L": self.rouge,
            "judge": judged_by(self.judge, f"{', '.join(ASPECTS)} and autodq"),
            **self.training.protocol(),
            **self.media.protocol(),
        }


def clip_of(video: str) -> str:
    """A path -> what names the clip wherever a data set is kept.

    >>> clip_of("DFEW/videos/2961.mp4") == clip_of("media/dfew/Clip/02961.avi")
    True
    """
    path = PurePosixPath(video.lower())
    known = [name for name in CLIPS for part in path.parts[:-1] if part.startswith(name)]
    if not known:
        return str(path)
    # FERV39k's folders are joined by underscores in some copies
    words = re.split(r"[/_]", str(path.with_suffix("")))[-CLIPS[known[0]] :]
    return "/".join([known[0], *(word.lstrip("0") or "0" for word in words)])


def _text(entry: Any, key: str, where: str) -> str:
    value = entry.get(key) if isinstance(entry, Mapping) else None
    if key == "id" and isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"{where}: {key} is {value!r:.80}; an entry has the texts id, video and caption.")
    return value.strip()


def _mean(aspect: str, ids: Sequence[str], points: Sequence[float | None], note: str) -> Score:
    """The mean of points; those that the judge failed to give lower the coverage, not the mean."""
    given = [(name, value) for name, value in zip(ids, points, strict=True) if value is not None]
    names, values = [name for name, _ in given], [value for _, value in given]
    return Score.mean(aspect, names, values, scale=1.0, asked=len(ids), note=note)
