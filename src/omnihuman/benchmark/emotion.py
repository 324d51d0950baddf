"""Shared parts of emotion benchmarks: folds, prompts of one or two turns, WAR and UAR."""

import random
from abc import abstractmethod
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np

from omnihuman.benchmark.base import (
    Benchmark,
    Prediction,
    Question,
    check_choices,
    check_unique_ids,
    unzip,
)
from omnihuman.benchmark.text import SUFFIXES, Media, build_record
from omnihuman.metric.emotion import FORMS, PARSERS, parse_label, score_labels
from omnihuman.metric.score import Score, equal, one_hot

QUESTION = (
    "As an emotional recognition expert, in the video, when the characters display their emotions, which predominant "
    "feeling is most clearly expressed?"
)
"""HumanOmni's question for DFEW and MAFW; the options follow in the next line."""

DESCRIBE = "Describe the face of the person in the video and how the expression changes over time."
INFER = "The video was described like this: {description}\n{question}"
AUDIO_SUFFIXES = (".wav", ".flac", ".mp3", ".m4a", ".mp4")
MISSING_MEDIA = ("raise", "skip")


class Clip(NamedTuple):
    """A line of a fold file: its location, the clip, its label."""

    location: str
    name: str
    label: str


class EmotionBenchmark(Benchmark):
    """Fold files and clips -> WAR and UAR in percent, over folds and pooled.

    Reference: HumanOmni's ``eval_mafw_dfew.py`` for question, parsing (``official``) and UAR (``official_union``);
    MAE-DFER and others for the unweighted mean over five folds. FaVChat describes first and infers the emotion from its
    own description (``two_step``); its prompts are not published, ours are used.
    Differs from the official script: a clip that cannot be decoded is an error, or wrong, and is never replaced by
    silence or another clip.

    Args:
        root: folder of the dataset.
        folds: test folds, 1 to 5.
        media: folder below the root with the clips: files, or a folder of frames per clip.
        audio: folder below the root with audio files, where the clips have no audio track.
        question: before the options; ``None`` for HumanOmni's.
        options: ``fixed`` in HumanOmni's order and spelling, ``shuffled`` for each clip, or ``none``, as R1-Omni asks;
            ``None`` for ``fixed``.
        seed: of the shuffled options.
        two_step: first turn: describe the clip; second turn: infer the emotion from this description.
        describe: prompt of the first turn.
        infer: prompt of the second turn, with the placeholders ``{description}`` (the first answer) and ``{question}``
            (the question with its options).
        parser: ``strict``; HumanOmni's ``official``, for which ``Angry`` and ``happy.`` are wrong; or R1-Omni's
            ``answer_tag``; ``None`` for ``strict``.
        uar: mean recall of the classes that are ``present``, or of ``official_union``, HumanOmni's union of the strings
            in references and answers.
        missing_media: ``raise``, or ``skip`` clips that are not on disk and count them.
        max_new_tokens: maximum length of an answer; ``None`` for 16, and 256 with two turns.

    Raises:
        ValueError: an option is invalid, or ``infer`` lacks the placeholder of the description.
    """

    fold_sizes: tuple[int, ...]
    options_text: ClassVar[str]

    def __init__(
        self,
        root: str,
        *,
        folds: Sequence[int] = (1, 2, 3, 4, 5),
        media: str,
        audio: str | None = None,
        question: str | None = None,
        options: str | None = None,
        seed: int = 0,
        two_step: bool = False,
        describe: str = DESCRIBE,
        infer: str = INFER,
        parser: str | None = None,
        uar: str = "present",
        missing_media: Literal["raise", "skip"] = "raise",
        max_new_tokens: int | None = None,
    ) -> None:
        options, parser = options or "fixed", parser or "strict"
        check_choices(
            options=(options, ("fixed", "shuffled", "none")),
            parser=(parser, PARSERS),
            uar=(uar, ("present", "official_union")),
            missing_media=(missing_media, MISSING_MEDIA),
        )
        folds = [folds] if isinstance(folds, int) else list(folds)
        if not folds or set(folds) - {1, 2, 3, 4, 5} or len(set(folds)) < len(folds):
            raise ValueError(f"folds={folds}: choose from 1 to 5, each once.")
        if two_step and "{description}" not in infer:
            raise ValueError(f"infer={infer!r} lacks the placeholder {{description}}; add it.")
        self.root, self.folds, self.audio = Path(root), tuple(folds), audio
        self.media = Media(self.root / media, missing_media)
        self.question, self.options, self.seed = question or QUESTION, options, seed
        self.two_step, self.describe, self.infer = two_step, describe, infer
        self.parser, self.uar = parser, uar
        self.max_new_tokens = max_new_tokens or (256 if two_step else 16)
        self._num_clips: dict[int, int] = {}
        self._num_without_audio = 0

    @abstractmethod
    def fold_file(self, fold: int) -> Path:
        """Find the file of a test fold.

        Raises:
            ValueError: the file is missing.
        """

    @abstractmethod
    def read_clips(self, path: Path) -> Iterator[Clip]:
        """Read the clips of a fold file.

        Raises:
            ValueError: a line is invalid; the message names file, line and cure.
        """

    @abstractmethod
    def media_stems(self, name: str) -> tuple[str, ...]:
        """Return the possible file names of a clip without suffix."""

    def questions(self) -> list[Question]:
        self.media.reset()
        self._num_clips, self._num_without_audio = {}, 0
        questions = []
        for fold in self.folds:
            path = self.fold_file(fold)
            clips = list(self.read_clips(path))
            if not clips:
                raise ValueError(
                    f"{path}: there are no clips; use the official file, or remove fold {fold} from folds."
                )
            self._num_clips[fold] = len(clips)
            for clip in clips:
                question = self._build_question(clip, fold)
                if question is not None:
                    questions.append(question)
        return check_unique_ids(questions, str(self.root))

    def parse(self, prediction: Prediction) -> tuple[Any, str]:
        return parse_label(prediction.answer, self.labels, FORMS, self.parser)

    def scores(self, predictions: Sequence[Prediction]) -> list[Score]:
        ids, references, _ = unzip(predictions)
        parsed = [self.parse(prediction)[0] for prediction in predictions]
        folds: list[str] | None = [prediction.group for prediction in predictions]
        if folds is not None and len(set(folds)) < 2:
            folds = None
        scores = score_labels(ids, references, parsed, self.labels, folds, f"parser {self.parser}")
        if self.uar == "official_union":
            for index, score in enumerate(scores):
                if score.name.startswith("uar"):
                    scores[index] = self._score_union(score, predictions)
        return scores

    def follow_up(self, question: Question, answer: str) -> str | None:
        if not self.two_step:
            return None
        prompt = self.infer.replace("{question}", self._build_prompt(question.options))
        return prompt.replace("{description}", " ".join(answer.split()))

    def protocol(self) -> dict[str, str]:
        names = ", ".join(map(str, self.folds))
        protocol = {
            "folds": f"fold {names} alone",
            "checkpoint": "chosen without the test folds; there is no validation split",
            "options": self.options,
            "prompting": "describe, then infer (prompts ours)" if self.two_step else "one turn",
            "parser": self.parser,
            "UAR": self.uar,
            **self.media.protocol(),
        }
        if len(self.folds) > 1:
            protocol["folds"] = f"{names}, the main score is their unweighted mean"
        if self.options == "shuffled":
            protocol["options"] = f"shuffled for each clip, seed {self.seed}"
        if self.question != QUESTION:
            protocol["question"] = self.question
        protocol["fold sizes"] = self._describe_fold_sizes()
        protocol["audio files"] = self._describe_audio()
        return protocol

    def _describe_fold_sizes(self) -> str:
        if not self._num_clips:
            return "not counted"
        if not self.fold_sizes:
            return "no official sizes"
        differences = []
        for fold, num_clips in self._num_clips.items():
            if num_clips != self.fold_sizes[fold - 1]:
                differences.append(f"{num_clips} for {self.fold_sizes[fold - 1]} of fold {fold}")
        return f"not official: {', '.join(differences)}" if differences else "official"

    def _describe_audio(self) -> str:
        if self._num_without_audio:
            return f"{self._num_without_audio} of {self.media.num_found} clips have none and are answered without"
        return "of the clips" if self.audio is None else self.audio

    def is_dropped(self, file: Path, audio: Path | None) -> bool:
        """Return True for a clip without audio if such clips are dropped."""
        return False

    def _build_question(self, clip: Clip, fold: int) -> Question | None:
        stems = self.media_stems(clip.name)
        # files in each spelling of the name first, folders of frames last
        names = [f"{stem}{suffix}" for suffix, stem in product((*SUFFIXES, ""), stems)]
        file = self.media.find("", f"{clip.location}: clip {clip.name!r}", names)
        if file is None:
            return None
        audio = self._find_audio(stems)
        if self.is_dropped(file, audio):
            return None
        if audio is None and (self.audio is not None or file.is_dir()):
            self._num_without_audio += 1
        options = list(self.option_labels)
        if self.options == "shuffled":
            random.Random(f"{self.seed}/{clip.name}").shuffle(options)
        prompt = self.describe if self.two_step else self._build_prompt(options)
        record = replace(build_record(file, prompt, clip.name, clip.location), audio_track=audio)
        return Question(record, clip.label, f"fold_{fold}", tuple(options))

    def _find_audio(self, stems: Sequence[str]) -> Path | None:
        if self.audio is None:
            return None
        for suffix, stem in product(AUDIO_SUFFIXES, stems):
            file = self.root / self.audio / f"{stem}{suffix}"
            if file.is_file():
                return file
        return None

    @property
    def option_labels(self) -> tuple[str, ...]:
        """The options in the order of the official question."""
        return tuple(option.strip() for option in self.options_text.split(","))

    def _build_prompt(self, options: Sequence[str]) -> str:
        if self.options == "none":
            return self.question
        text = self.options_text if self.options == "fixed" else " ,".join(options)
        return f"{self.question}\n{text}"

    def _score_union(self, score: Score, predictions: Sequence[Prediction]) -> Score:
        scored = set(score.ids)
        members = [prediction for prediction in predictions if prediction.id in scored]
        ids, references, _ = unzip(members)
        answers = [(prediction.answer or "").lstrip() for prediction in members]
        folds = [""] * len(ids)
        if score.name == "uar":  # the mean over folds; the other scores are those of a fold, or pooled
            folds = [prediction.group for prediction in members]
        return score_union_recall(score.name, ids, references, answers, folds)


def score_union_recall(
    name: str, ids: Sequence[str], references: Sequence[str], answers: Sequence[str], folds: Sequence[str]
) -> Score:
    """Return ``metric.emotion.official_union_recall`` as a score for resampling; with several folds their mean.

    Resampling keeps the number of distinct wrong strings, because a resample can only have fewer of them.

    >>> score_union_recall("uar", ["a", "b"], ["sad", "happy"], ["sad", "happy."], ["", ""]).value
    33.33333333333333
    """
    cells = list(zip(folds, references, strict=True))
    columns = sorted(set(cells))
    below = one_hot(cells, columns)
    correct = np.asarray(equal(references, answers))
    union_sizes = Counter(fold for fold, _ in {*cells, *zip(folds, answers, strict=True)})
    weights = np.asarray([len(columns) / (len(union_sizes) * union_sizes[fold]) for fold, _ in columns])
    return Score(
        name,
        tuple(ids),
        below * correct[:, None] * weights,
        below,
        strata=tuple(map("/".join, cells)),
        note="recall over the union of strings, as HumanOmni",
        columns=tuple(map("/".join, columns)),
    )


def map_label(labels: Mapping[str, str], value: str, location: str) -> str:
    """Map the label of an annotation to the benchmark's label.

    Raises:
        ValueError: the label is unknown.
    """
    if value not in labels:
        known = ", ".join(key if key == label else f"{key} ({label})" for key, label in labels.items())
        raise ValueError(f"{location}: unknown label {value!r}; expected one of {known}: correct the line.")
    return labels[value]
