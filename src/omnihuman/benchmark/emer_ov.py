"""EMER-OV: open-vocabulary emotion labels of clips, scored as sets."""

import ast
import re
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from omnihuman.benchmark.base import INVALID, Benchmark, Prediction, Question, check_unique_ids, read_peers, unzip
from omnihuman.benchmark.text import (
    SUFFIXES,
    Media,
    TrainingClips,
    build_record,
    describe_judge,
    read_csv,
)
from omnihuman.judge.base import Judge
from omnihuman.judge.scoring import extract_labels, group_labels
from omnihuman.metric.answer import CUT, final_answer
from omnihuman.metric.chinese import count_words
from omnihuman.metric.open_vocabulary import (
    Wheels,
    built_in_wheels,
    parse_labels,
    read_wheels,
    score_label_sets,
    score_on_wheels,
)
from omnihuman.metric.score import Score, select

PROMPT = (
    "As an expert in the field of emotions, please focus on the facial expressions, body movements, environment, "
    "acoustic information, subtitle content, etc., in the video to discern clues related to the emotions of the "
    "individual. Please provide a detailed description and ultimately predict the emotional state of the individual in "
    "the video."
)
"""MERTools' question; Omni-Emotion does not publish its own."""

SUBTITLED = "The subtitle of this video is: {subtitle}\n{question}"
JUDGED = "retired judge gpt-3.5-turbo-16k-0613"


class EmerOV(Benchmark):
    """The 332 clips of EMER-OV -> accuracy and recall of label sets grouped by a judge; always F1 on emotion wheels.

    Reference: EMER-OV (MERTools, MER2024 track 3), now OV-MERD: a table ``name,openset``. Its ``Avg`` is the mean of
    accuracy and recall, no F1. Published scores come from a retired judge and cannot be reproduced.
    Differs from it: a label in several groups counts for the first, unless ``last_wins``; labels are sorted before they
    are sent to the judge.

    Args:
        root: folder of the clips.
        annotations: ``check-openset.csv`` or an OV-MERD table, absolute or relative to ``root``.
        videos: folder of ``<name>.mp4``, relative to ``root``.
        subtitles: table with the columns ``name`` and ``language``; they precede the question. ``None``: no subtitles.
        language: column of the subtitles: ``english``, ``chinese``.
        prompt: for each clip.
        wheels: folder of the official emotion wheels (MERTools, ``emotion_wheel``); ``None``: the built-in ones.
        last_wins: a label that the judge puts into several groups counts for the last, as in MERTools.
        train_records: data files of the training; ``protocol`` counts the clips that are also in them.
        judge: for grouping, and for the labels of free-form answers; without one there are only scores on wheels.
        missing_media: ``raise``, or ``skip`` missing clips and count them.
        max_new_tokens: maximum length of an answer.
    """

    name = "emer_ov"
    view = "VAF"
    published = read_peers("emer_ov")

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
        self.training = TrainingClips(train_records, identify_clip)
        self.media = Media(self.root / videos, missing_media)

    def questions(self) -> list[Question]:
        self.media.reset()
        subtitles = Subtitles(self.subtitles, self.language)
        self.training.reset()
        questions = []
        for location, row in read_csv(self.annotations, ("name", "openset")):
            name = row["name"]
            labels = parse_label_cell(row["openset"], f"{location}: openset")
            file = self.media.find(name, f"{location}: name", SUFFIXES)
            if file is not None:
                record = build_record(file, subtitles.prepend(self.prompt, name), name, location)
                questions.append(Question(record, labels, meta=self.training.check(name)))
        return check_unique_ids(questions, str(self.annotations))

    @cached_property
    def wheels(self) -> Wheels:
        """The wheels of the scores, read at first use."""
        return built_in_wheels() if self.wheels_folder is None else read_wheels(self.wheels_folder)

    def parse(self, prediction: Prediction) -> tuple[Any, str]:
        """Parse the labels of an answer without a judge: the listed ones, or else its words that are on the wheels."""
        text = final_answer(prediction.answer)
        if text is None:
            return CUT
        try:
            return parse_label_cell(text, "answer"), "listed"  # long labels of a plain list stay
        except ValueError:
            labels = parse_labels(text)
        num_listed = sum(map(count_words, labels))
        if 3 * num_listed >= count_words(text) > 0:
            return (labels, "listed") if labels else INVALID
        words = find_wheel_words(text, self.wheels)
        return (words, "words on the wheels") if words else INVALID

    def scores(self, predictions: Sequence[Prediction]) -> list[Score]:
        ids, references, _ = unzip(predictions)
        parsed = [self.parse(prediction) for prediction in predictions]
        wheels = score_on_wheels(ids, references, [labels or [] for labels, _ in parsed], self.wheels)
        if self.judge is None:
            return wheels
        answers = self._extract_labels(predictions, parsed, self.judge)
        groups = self._group_labels(references, answers, self.judge)
        labels = [answer or [] for answer in answers]
        return score_label_sets(ids, references, labels, groups, f"judge {self.judge.id}") + wheels

    def _extract_labels(
        self, predictions: Sequence[Prediction], parsed: Sequence[tuple[Any, str]], judge: Judge
    ) -> list[list[str] | None]:
        """Return the labels of answers: listed ones, or those that the judge extracts; ``None`` where it fails."""
        answers: list[list[str] | None] = []
        free_form = []
        for index, (prediction, (labels, rule)) in enumerate(zip(predictions, parsed, strict=True)):
            is_empty = not re.search(r"\w", final_answer(prediction.answer) or "")
            if rule == "listed" or is_empty:
                answers.append(labels or [])
            else:
                answers.append(None)
                free_form.append(index)
        texts = [final_answer(predictions[index].answer) or "" for index in free_form]
        for index, extracted in zip(free_form, extract_labels(judge, texts), strict=True):
            answers[index] = extracted
        return answers

    def _group_labels(
        self, references: Sequence[list[str]], answers: Sequence[list[str] | None], judge: Judge
    ) -> list[list[list[str]] | None]:
        """Group the labels of all questions with an answer; without a label the groups do not matter."""
        labelled = [index for index, answer in enumerate(answers) if answer]
        predicted = [answer for answer in answers if answer]
        grouped = iter(group_labels(judge, select(references, labelled), predicted, compat_last_wins=self.last_wins))
        groups: list[list[list[str]] | None] = []
        for answer in answers:
            if answer:
                groups.append(next(grouped))
            else:
                groups.append(None if answer is None else [])
        return groups

    def protocol(self) -> dict[str, str]:
        subtitles, wheels = "none", "ours"
        if self.subtitles is not None:
            subtitles = f"{self.subtitles.name}, {self.language}"
        if self.wheels_folder is not None:
            wheels = f"official ({self.wheels_folder.name})"
        group = "last" if self.last_wins else "first"
        return {
            "prompt": self.prompt,
            "subtitles": subtitles,
            "judge": describe_judge(self.judge, "ov_avg, ov_accuracy and ov_recall"),
            **self.training.protocol(),
            "wheels": wheels,
            "labels": "listed in the answer; else extracted by the judge, for the wheels the words on them",
            "ov_avg": f"mean of accuracy and recall; a label in several groups counts for the {group}",
            **self.media.protocol(),
        }


class Subtitles:
    """The subtitles of clips, by name; a clip may have empty ones.

    Args:
        path: table with the columns ``name`` and ``language``, or that of EMER v1 (``names``, ``subtitles``); ``None``:
            no subtitles.
        language: the column.

    Raises:
        ValueError: the table lacks these columns.
    """

    def __init__(self, path: Path | None, language: str) -> None:
        self.path = path
        self.texts: dict[str, str] = {}
        if path is None:
            return
        for location, row in read_csv(path, ()):
            name, text = row.get("name", row.get("names")), row.get(language, row.get("subtitles"))
            if name is None or text is None:
                raise ValueError(f"{location}: expected the columns name and {language}, got {', '.join(row)}.")
            self.texts[name] = text.strip()

    def prepend(self, prompt: str, name: str) -> str:
        """Prepend the subtitles of a clip to its prompt.

        Raises:
            ValueError: there is a table, but no line for this clip.
        """
        if self.path is not None and name not in self.texts:
            raise ValueError(
                f"{self.path}: there is no line for {name}; add one (it may be empty), or set subtitles=null."
            )
        if not self.texts.get(name):
            return prompt
        return SUBTITLED.format(subtitle=self.texts[name], question=prompt)


def parse_label_cell(text: str, location: str) -> list[str]:
    """Parse a cell of labels, lower case, unique.

    Raises:
        ValueError: the cell is not a list of labels.

    >>> parse_label_cell("['Sad', 'down']", "a.csv:2"), parse_label_cell("[sad, down]", "a.csv:3")
    (['sad', 'down'], ['sad', 'down'])
    """
    text = text.strip()
    try:
        labels = ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
        labels = None
        if text[:1] == "[" and text[-1:] == "]":  # OV-MERD has no quotes
            labels = [label.strip().strip("'\"") for label in text[1:-1].split(",")]
    is_list = isinstance(labels, list) and all(isinstance(label, str) and label.strip() for label in labels)
    if not is_list or not labels:
        raise ValueError(f"{location} is {text!r:.80}; expected a list of labels: ['sad', 'down'].")
    return list(dict.fromkeys(label.strip().lower() for label in labels))


def identify_clip(video: str) -> str:
    """Return the name of a path's clip, equal in every release of MER.

    >>> identify_clip("mer2023/video/sample_00000007.avi") == identify_clip("sample_00000007")
    True
    """
    return PurePosixPath(video.lower()).stem


def find_wheel_words(text: str, wheels: Wheels) -> list[str]:
    """Return the words of a text that are on emotion wheels, unique; negation is ignored.

    >>> find_wheel_words("She seems happy, then Worried and worried.", built_in_wheels())
    ['happy', 'worried']
    """
    words = re.findall(r"[a-z]+(?:-[a-z]+)*", text.lower())
    return list(dict.fromkeys(word for word in words if wheels.words.get(word)))
