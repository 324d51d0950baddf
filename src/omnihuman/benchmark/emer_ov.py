"""EMER-OV: all emotions that a clip shows, in free words, scored as sets."""

import ast
import re
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from omnihuman.benchmark.base import Benchmark, Peer, Prediction, Question, unique
from omnihuman.benchmark.text import (
    SUFFIXES,
    Media,
    TrainingClips,
    judged_by,
    rows,
    to_record,
)
from omnihuman.judge.base import Judge
from omnihuman.judge.scoring import extract_labels, group_labels
from omnihuman.metric.open_vocabulary import Wheels, our_wheels, parse_labels, read_wheels, set_scores, wheel_scores
from omnihuman.metric.score import Score

PROMPT = (
    "As an expert in the field of emotions, please focus on the facial expressions, body movements, environment, "
    "acoustic information, subtitle content, etc., in the video to discern clues related to the emotions of the "
    "individual. Please provide a detailed description and ultimately predict the emotional state of the individual in "
    "the video."
)
"""MERTools' question; Omni-Emotion does not print its own."""

SUBTITLED = "The subtitle of this video is: {subtitle}\n{question}"
JUDGED = "retired judge gpt-3.5-turbo-16k-0613"


def _peer(method: str, modality: str, average: float, accuracy: float, recall: float, table: int) -> Peer:
    values = {"ov_avg": average, "ov_accuracy": accuracy, "ov_recall": recall}
    return Peer(method, values, modality, f"judge not stated, probably the {JUDGED}", f"Omni-Emotion, table {table}")


class EmerOV(Benchmark):
    """The 332 clips of EMER-OV -> accuracy and recall of label sets that a judge groups; always emotion wheels' F.

    Reference: EMER-OV (MERTools, MER2024 track 3), now OV-MERD: a table ``name,openset``. Its ``Avg`` is the mean of
    accuracy and recall, no F1; published figures come from a judge that is gone, so they can be measured again only.
    Differs from it: a label in several groups counts for the first, unless ``last_wins``; labels are sorted before a
    judge sees them.

    Args:
        root: folder of the clips.
        annotations: ``check-openset.csv`` or an OV-MERD table, from ``root`` on or with a path of its own.
        videos: folder of ``<name>.mp4``, from ``root`` on.
        subtitles: table ``name`` and ``language``, whose lines go before the question; ``None``: none.
        language: column of the subtitles: ``english``, ``chinese``.
        prompt: what is asked about each clip.
        wheels: folder of the official emotion wheels (MERTools, ``emotion_wheel``); ``None``: our own.
        last_wins: a label that the judge puts into several groups counts for the last, as in MERTools.
        train_records: data files of the training; clips that both have are counted in ``protocol``.
        judge: for grouping, and for labels in free answers; without one only the wheels score.
        missing_media: ``raise``, or ``skip`` clips that are not there and count them.
        max_new_tokens: length limit of an answer.
    """

    name = "emer_ov"
    modality = "VAF"
    peers = (
        _peer("AffectGPT", "VA", 56.6, 47.5, 65.7, 1),
        _peer("Omni-Emotion v", "V", 53.4, 48.8, 58.0, 1),
        _peer("Omni-Emotion v+a", "VA", 63.1, 61.7, 64.4, 1),
        _peer("Omni-Emotion v+a+f", "VAF", 65.9, 61.3, 70.6, 1),
        _peer("Omni-Emotion, concat per frame", "VAF", 63.4, 60.1, 66.6, 3),
        _peer("Omni-Emotion, cross-attention", "VAF", 60.7, 58.1, 63.2, 3),
        _peer("Omni-Emotion, concat per video", "VAF", 65.9, 61.3, 70.6, 3),
    )

    def __init__(
        self,
        root: str,
        *,
        annotations: str = "check-openset.csv",
        videos: str = "video",
        subtitles: str | None = None,
        language: str = "english",
        prompt: str = PROMPT,
        wheels: str | None = None,
        last_wins: bool = False,
        train_records: str | Sequence[str] = (),
        judge: Judge | None = None,
        missing_media: Literal["raise", "skip"] = "raise",
        max_new_tokens: int = 512,
    ) -> None:
        self.root, self.annotations, self.prompt = Path(root), Path(root, annotations), prompt
        self.subtitles, self.language = None if subtitles is None else Path(root, subtitles), language
        self.wheels_folder = None if wheels is None else Path(wheels)
        self.last_wins, self.judge, self.max_new_tokens = last_wins, judge, max_new_tokens
        self.training = TrainingClips(train_records, clip_of)
        self.media = Media(self.root / videos, missing_media)

    def questions(self) -> list[Question]:
        self.media.start()
        said = spoken(self.subtitles, self.language)
        self.training.start()
        found = []
        for where, row in rows(self.annotations, ("name", "openset")):
            truth = labels_of(row["openset"], f"{where}: openset")
            if file := self.media.find(row["name"], f"{where}: name", SUFFIXES):
                prompt = subtitled(self.prompt, said, row["name"], self.subtitles)
                meta = self.training.mark(row["name"])
                found.append(Question(to_record(file, prompt, row["name"], where), truth, meta=meta))
        return unique(found, str(self.annotations))

    @cached_property
    def wheels(self) -> Wheels:
        """Those that score, read when they are first wanted."""
        return our_wheels() if self.wheels_folder is None else read_wheels(self.wheels_folder)

    def parse(self, asked: Prediction) -> tuple[Any, str]:
        """The labels of an answer, without a judge: what it lists, or else its words that stand on the wheels."""
        text = (asked.answer or "").strip()
        try:
            return labels_of(text, "answer"), "listed"  # long labels of a plain list stay
        except ValueError:
            labels = parse_labels(text)
        listed = sum(len(label.split()) for label in labels)
        if 3 * listed >= len(text.split()) > 0:
            return (labels, "listed") if labels else (None, "invalid")
        return (named, "words on the wheels") if (named := on_wheels(text, self.wheels)) else (None, "invalid")

    def scores(self, predictions: Sequence[Prediction]) -> list[Score]:
        ids, truths = [each.id for each in predictions], [list(each.truth) for each in predictions]
        parsed = [self.parse(each) for each in predictions]
        wheels = wheel_scores(ids, truths, [labels or [] for labels, _ in parsed], self.wheels)
        if self.judge is None:
            return wheels
        # an empty list is an answer, too: there is nothing to ask about
        told = [rule == "listed" or not re.search(r"\w", each.answer or "")
                for (_, rule), each in zip(parsed, predictions, strict=True)]  # fmt: skip
        answers = [(labels or []) if clear else None for (labels, _), clear in zip(parsed, told, strict=True)]
        free = [n for n, one in enumerate(answers) if one is None]
        for n, one in zip(free, extract_labels(self.judge, [predictions[n].answer or "" for n in free]), strict=True):
            answers[n] = one
        # without a label nothing is right, however labels group
        groups: list[list[list[str]] | None] = [None if one is None else [] for one in answers]
        named = [n for n, one in enumerate(answers) if one]
        both = [truths[n] for n in named], [answers[n] or [] for n in named]
        for n, group in zip(named, group_labels(self.judge, *both, compat_last_wins=self.last_wins), strict=True):
            groups[n] = group
        note = f"judge {self.judge.id}"
        return set_scores(ids, truths, [one or [] for one in answers], groups, note) + wheels

    def protocol(self) -> dict[str, str]:
        wins = "last" if self.last_wins else "first"
        return {
            "prompt": self.prompt,
            "subtitles": "none" if self.subtitles is None else f"{self.subtitles.name}, {self.language}",
            "judge": judged_by(self.judge, "ov_avg, ov_accuracy and ov_recall"),
            **self.training.protocol(),
            "wheels": "ours" if self.wheels_folder is None else f"official ({self.wheels_folder.name})",
            "labels": "what an answer lists; of free text what the judge finds, for the wheels the words on them",
            "ov_avg": f"mean of accuracy and recall; a label in several groups counts for the {wins}",
            **self.media.protocol(),
        }


def labels_of(text: str, where: str) -> list[str]:
    """A cell of labels -> the labels, lower case, each once.

    Raises:
        ValueError: it is no list of words.

    >>> labels_of("['Sad', 'down']", "a.csv:2"), labels_of("[sad, down]", "a.csv:3")
    (['sad', 'down'], ['sad', 'down'])
    """
    try:
        found = ast.literal_eval(text.strip())
    except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):  # OV-MERD writes no quotes
        bare = text.strip()
        listed = bare[1:-1].split(",") if bare[:1] == "[" and bare[-1:] == "]" else None
        found = listed and [one.strip().strip("'\"") for one in listed]
    if not isinstance(found, list) or not all(isinstance(one, str) and one.strip() for one in found) or not found:
        raise ValueError(f"{where} is {text!r:.80}; it is a list of labels: ['sad', 'down'].")
    return list(dict.fromkeys(one.strip().lower() for one in found))


def clip_of(video: str) -> str:
    """A path -> what names a clip of MER in every release.

    >>> clip_of("mer2023/video/sample_00000007.avi") == clip_of("sample_00000007")
    True
    """
    return PurePosixPath(video.lower()).stem


def on_wheels(text: str, wheels: Wheels) -> list[str]:
    """The words of a text that stand on emotion wheels, each once; what a text denies is named, too.

    >>> on_wheels("She seems happy, then Worried and worried.", our_wheels())
    ['happy', 'worried']
    """
    found = re.findall(r"[a-z]+(?:-[a-z]+)*", text.lower())
    return list(dict.fromkeys(word for word in found if wheels.words.get(word)))


def spoken(path: Path | None, language: str) -> dict[str, str]:
    """What is said in each clip, by its name; a clip may say nothing.

    Args:
        path: a table ``name`` and ``language``, or EMER's own (``names``, ``subtitles``); ``None``: none is wanted.
        language: the column.

    Raises:
        ValueError: the table lacks these columns.
    """
    said: dict[str, str] = {}
    for where, row in () if path is None else rows(path, ()):
        name, text = row.get("name", row.get("names")), row.get(language, row.get("subtitles"))
        if name is None or text is None:
            raise ValueError(f"{where}: subtitles have the columns name and {language}, here are {', '.join(row)}.")
        said[name] = text.strip()
    return said


def subtitled(prompt: str, said: dict[str, str], name: str, path: Path | None) -> str:
    """The question of a clip, what is said in it before it.

    Raises:
        ValueError: there are subtitles, but none of this clip.
    """
    if path is not None and name not in said:
        raise ValueError(f"{path}: there is no line for {name}; add one (it may be empty), or set subtitles=null.")
    return SUBTITLED.format(subtitle=said[name], question=prompt) if said.get(name) else prompt
