"""What benchmarks of emotion labels share: folds, the question, two turns, WAR and UAR."""

import random
from abc import abstractmethod
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np

from omnihuman.benchmark.base import Benchmark, Peer, Prediction, Question, check_switches, unique
from omnihuman.benchmark.text import SUFFIXES, Media, to_record
from omnihuman.metric.emotion import FORMS, label_scores, parse_label
from omnihuman.metric.score import Score

QUESTION = (
    "As an emotional recognition expert, in the video, when the characters display their emotions, which predominant "
    "feeling is most clearly expressed?"
)
"""HumanOmni's, for DFEW and MAFW alike; the options follow on a line of their own."""

DESCRIBE = "Describe the face of the person in the video and how the expression changes over time."
INFER = "The video was described like this: {description}\n{question}"
SOUNDS = (".wav", ".flac", ".mp3", ".m4a", ".mp4")


class Clip(NamedTuple):
    """A line of a fold file: its place, the clip, its label in the benchmark's words."""

    where: str
    name: str
    label: str


class EmotionBenchmark(Benchmark):
    """Fold files and clips -> WAR and UAR in percent, over folds and pooled.

    Reference: HumanOmni's ``eval_mafw_dfew.py`` for question, parsing (``official``) and UAR (``official_union``);
    MAE-DFER and others for the unweighted mean over five folds. FaVChat describes first and infers the emotion from its
    own description (``two_step``); its wording is not published, this one is ours.
    Differs from the official script: a clip that cannot be read is an error, or wrong, and never silence or another
    clip.

    Args:
        root: the data set's folder.
        folds: which test folds are asked, 1 to 5.
        media: folder below the root that holds the clips: files, or a folder of pictures for each.
        sound: folder below the root that holds their sound, where the clips themselves have none.
        question: before the options; ``None`` for HumanOmni's.
        options: ``fixed`` in HumanOmni's order and spelling, or ``shuffled`` for each clip.
        seed: of the shuffled options.
        two_step: first ask for a description, then for the emotion, with that description in the question.
        describe: the first question then.
        infer: the second; ``{description}`` and ``{question}`` stand for the answer to the first, and for the question
            with its options.
        parser: ``strict``, or HumanOmni's ``official``, for which ``Angry`` and ``happy.`` are wrong.
        uar: mean recall of the classes that are ``present``, or of ``official_union``, HumanOmni's union of the strings
            in truth and answers.
        missing_media: ``raise``, or ``skip`` clips that are not on disk and count them.
        max_new_tokens: length limit of an answer; ``None`` for 16, and 256 in two steps.

    Raises:
        ValueError: a switch is unknown, or ``infer`` has no place for the description.
    """

    counts: tuple[int, ...]
    options_text: ClassVar[str]

    def __init__(
        self,
        root: str,
        *,
        folds: Sequence[int] = (1, 2, 3, 4, 5),
        media: str,
        sound: str | None = None,
        question: str | None = None,
        options: str = "fixed",
        seed: int = 0,
        two_step: bool = False,
        describe: str = DESCRIBE,
        infer: str = INFER,
        parser: str = "strict",
        uar: str = "present",
        missing_media: Literal["raise", "skip"] = "raise",
        max_new_tokens: int | None = None,
    ) -> None:
        check_switches(
            options=(options, ("fixed", "shuffled")),
            parser=(parser, ("strict", "official")),
            uar=(uar, ("present", "official_union")),
            missing_media=(missing_media, ("raise", "skip")),
        )
        folds = [folds] if isinstance(folds, int) else list(folds)
        if not folds or set(folds) - {1, 2, 3, 4, 5} or len(set(folds)) < len(folds):
            raise ValueError(f"folds={folds}: give some of 1 to 5, each once.")
        if two_step and "{description}" not in infer:
            raise ValueError(f"infer={infer!r} does not say where the {{description}} stands; write it in.")
        self.root, self.folds, self.sound = Path(root), tuple(folds), sound
        self.media = Media(self.root / media, missing_media)
        self.question, self.options, self.seed = question or QUESTION, options, seed
        self.two_step, self.describe, self.infer = two_step, describe, infer
        self.parser, self.uar = parser, uar
        self.max_new_tokens = max_new_tokens or (256 if two_step else 16)
        self._asked: dict[int, int] = {}
        self._without_sound = 0

    @abstractmethod
    def fold_file(self, fold: int) -> Path:
        """The file of a test fold.

        Raises:
            ValueError: there is none.
        """

    @abstractmethod
    def clips(self, path: Path) -> Iterator[Clip]:
        """What a fold file lists.

        Raises:
            ValueError: a line does not hold; file, line and cure are named.
        """

    @abstractmethod
    def stems(self, name: str) -> tuple[str, ...]:
        """Names that the medium of a clip may have, without ending."""

    def questions(self) -> list[Question]:
        self.media.start()
        self._asked, self._without_sound = {}, 0
        found = []
        for fold in self.folds:
            path = self.fold_file(fold)
            clips = list(self.clips(path))
            if not clips:
                raise ValueError(
                    f"{path}: it lists no clip; put the official file there, or leave fold {fold} out of folds."
                )
            self._asked[fold] = len(clips)
            found += [asked for clip in clips if (asked := self._question(clip, fold)) is not None]
        return unique(found, str(self.root))

    def parse(self, asked: Prediction) -> tuple[Any, str]:
        return parse_label(asked.answer, self.labels, FORMS, self.parser)

    def scores(self, predictions: Sequence[Prediction]) -> list[Score]:
        ids, truths = [each.id for each in predictions], [str(each.truth) for each in predictions]
        several = len({each.group for each in predictions}) > 1
        folds = [each.group for each in predictions] if several else None
        parsed = [self.parse(each)[0] for each in predictions]
        note = f"parser {self.parser}"
        scores = label_scores(ids, truths, parsed, self.labels, folds, note)
        if self.uar == "present":
            return scores
        return [self._union(each, predictions) if each.name.startswith("uar") else each for each in scores]

    def follow_up(self, question: Question, answer: str) -> str | None:
        if not self.two_step:
            return None
        asked = self._words(question.options)
        return self.infer.replace("{question}", asked).replace("{description}", " ".join(answer.split()))

    def protocol(self) -> dict[str, str]:
        several = len(self.folds) > 1
        names = ", ".join(map(str, self.folds))
        said = {
            "folds": f"{names}, the headline is their unweighted mean" if several else f"fold {names} alone",
            "checkpoint": "chosen without the test folds; there is no validation part",
            "options": self.options if self.options == "fixed" else f"shuffled for each clip, seed {self.seed}",
            "prompting": "describe, then infer (wording ours)" if self.two_step else "one turn",
            "parser": self.parser,
            "UAR": self.uar,
            **self.media.protocol(),
        }
        if self.question != QUESTION:
            said["question"] = self.question
        wrong = {k: n for k, n in self._asked.items() if self.counts and n != self.counts[k - 1]}
        found = ", ".join(f"{n} for {self.counts[k - 1]} of fold {k}" for k, n in wrong.items())
        fine = "official" if self.counts else "counted by nobody"
        said["fold sizes"] = f"not official: {found}" if wrong else fine if self._asked else "not counted"
        lost = f"{self._without_sound} of {self.media.found} clips have none and are asked without"
        said["sound files"] = lost if self._without_sound else "of the clips" if self.sound is None else self.sound
        return said

    def silent(self, clip: Clip, file: Path, sound: Path | None) -> bool:
        """Whether a clip is left out because nothing can be heard of it."""
        return False

    def _question(self, clip: Clip, fold: int) -> Question | None:
        stems = self.stems(clip.name)
        # a file before a folder, in each spelling of the name
        names = [f"{stem}{suffix}" for suffix in (*SUFFIXES, "") for stem in stems]
        file = self.media.find("", f"{clip.where}: clip {clip.name!r}", names)
        if file is None:
            return None
        sound = None
        if self.sound is not None:
            tried = (self.root / self.sound / f"{stem}{suffix}" for suffix in SOUNDS for stem in stems)
            sound = next((each for each in tried if each.is_file()), None)
        if self.silent(clip, file, sound):
            return None
        if sound is None and (self.sound is not None or file.is_dir()):
            self._without_sound += 1
        options = list(self.labels_asked)
        if self.options == "shuffled":
            random.Random(f"{self.seed}/{clip.name}").shuffle(options)
        text = self.describe if self.two_step else self._words(options)
        record = replace(to_record(file, text, clip.name, clip.where), sound=sound)
        return Question(record, clip.label, f"fold_{fold}", tuple(options))

    @property
    def labels_asked(self) -> tuple[str, ...]:
        """The options in the order of the official question."""
        return tuple(option.strip() for option in self.options_text.split(","))

    def _words(self, options: Sequence[str]) -> str:
        text = self.options_text if self.options == "fixed" else " ,".join(options)
        return f"{self.question}\n{text}"

    def _union(self, score: Score, predictions: Sequence[Prediction]) -> Score:
        kept = set(score.ids)
        some = [each for each in predictions if each.id in kept]
        folds = [each.group if score.name == "uar" else "" for each in some]
        truths, answers = [str(each.truth) for each in some], [(each.answer or "").lstrip() for each in some]
        return union_recall(score.name, [each.id for each in some], truths, answers, folds)


def union_recall(
    name: str, ids: Sequence[str], truths: Sequence[str], answers: Sequence[str], folds: Sequence[str]
) -> Score:
    """``metric.emotion.official_union`` as a score that can be resampled; with several folds their mean.

    How many stray words there are is held: which of them were drawn again would only ever make them fewer.

    >>> union_recall("uar", ["a", "b"], ["sad", "happy"], ["sad", "happy."], ["", ""]).value
    33.33333333333333
    """
    given = list(zip(folds, truths, answers, strict=True))
    cells = sorted({(fold, truth) for fold, truth, _ in given})
    below = np.asarray([[float((fold, truth) == cell) for cell in cells] for fold, truth, _ in given])
    below = below.reshape(len(given), len(cells))
    right = np.asarray([float(truth == answer) for _, truth, answer in given])
    sizes = Counter(fold for fold, _ in {(fold, word) for fold, *words in given for word in words})  # of the unions
    shares = np.asarray([len(cells) / (len(sizes) * sizes[fold]) for fold, _ in cells])
    above, strata = below * right[:, None] * shares, tuple(f"{fold}/{truth}" for fold, truth, _ in given)
    note, columns = "recall over the union of strings, as HumanOmni", tuple("/".join(cell) for cell in cells)
    return Score(name, tuple(ids), above, below, strata=strata, note=note, columns=columns)


FIVE, ONE, OPEN = "5 folds", "one fold, which is not stated", "folds not stated"
ZERO, BOTH, THREE = "HumanOmni, FaVChat", "HumanOmni, Omni-Emotion", "HumanOmni, Omni-Emotion, FaVChat"
TABLE: tuple[tuple[str, str, tuple[float | None, float | None, float | None, float | None], str, str], ...] = (
    ("Wav2Vec2.0", "A", (36.15, 43.05, 21.59, 29.69), OPEN, BOTH),
    ("HuBERT", "A", (35.98, 43.24, 25.00, 32.60), OPEN, BOTH),
    ("DFER-CLIP", "V", (59.61, 71.25, 38.89, 52.55), FIVE, THREE),
    ("SVFAP", "V", (62.83, 74.27, 41.19, 54.28), OPEN, "Omni-Emotion, FaVChat"),
    ("MAE-DFER", "V", (63.41, 74.43, 41.62, 54.31), FIVE, THREE),
    ("Finecliper", "V", (65.98, 76.21, 45.01, 56.91), OPEN, "Omni-Emotion, FaVChat"),
    ("TMEP", "VA", (57.16, 68.85, 37.17, 51.15), OPEN, "Omni-Emotion, FaVChat"),
    ("HiCMAE", "VA", (63.76, 75.01, 42.65, 56.17), "5 folds; MAFW without its silent clips", THREE),
    ("Emotion-LLaMA", "VA", (64.21, 77.06, None, None), "fold 1", THREE),
    ("MMA-DFER", "VA", (66.01, 77.51, 44.11, 58.52), FIVE, "Omni-Emotion, FaVChat"),
    ("MMA-DFER, as HumanOmni quotes it", "VA", (66.85, 77.43, 44.25, 58.45), FIVE, "HumanOmni"),
    ("Qwen2-VL-7B", "V", (43.08, 52.83, 31.67, 45.89), OPEN, ZERO),
    ("Qwen2-VL-72B", "V", (39.24, 45.12, 42.61, 46.07), OPEN, ZERO),
    ("VITA", "VA", (21.36, 32.07, 14.05, 33.38), OPEN, "HumanOmni"),
    ("IXC-2.5-OL", "VA", (44.23, 51.29, 33.78, 46.81), OPEN, "HumanOmni"),
    ("GPT-4o", "VA", (50.57, 57.19, 38.29, 48.82), OPEN, "HumanOmni"),
    ("HumanOmni", "VA", (74.86, 82.46, 52.94, 68.40), ONE, "HumanOmni, table 2"),
    ("HumanOmni", "VA", (None, 81.82, None, 66.50), ONE, "HumanOmni, table 6"),
    ("HumanOmni", "V", (None, 70.62, None, 59.58), ONE, "HumanOmni, table 6"),
    ("HumanOmni", "A", (None, 58.63, None, 51.33), ONE, "HumanOmni, table 6"),
    ("Omni-Emotion", "VAF", (68.80, 78.35, 53.81, 64.23), OPEN, "Omni-Emotion, table 5"),
    ("FaVChat", "VF", (68.17, 77.88, 49.07, 60.97), OPEN + ", two turns", "FaVChat, table 3"),
)
"""Method, modality, UAR and WAR of DFEW, UAR and WAR of MAFW, protocol, and which papers print it."""


def peers_of(dataset: Literal["dfew", "mafw"]) -> tuple[Peer, ...]:
    """The rows of the papers' table for one of the two data sets."""
    first = {"dfew": 0, "mafw": 2}[dataset]
    rows = []
    for method, modality, figures, protocol, source in TABLE:
        given = dict(zip(("uar", "war"), figures[first : first + 2], strict=True))
        values = {name: figure for name, figure in given.items() if figure is not None}
        if values:
            rows.append(Peer(method, values, modality, protocol, source))
    return tuple(rows)


def label_at(words: Mapping[str, str], given: str, where: str) -> str:
    """The label that an annotation means.

    Raises:
        ValueError: it is none of the known ones.
    """
    if given not in words:
        known = ", ".join(f"{key} ({word})" if key != word else key for key, word in words.items())
        raise ValueError(f"{where}: the label {given!r} is none of {known}; correct the line.")
    return words[given]
