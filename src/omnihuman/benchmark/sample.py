"""The built-in corpus as a benchmark: what it asks for validation and test."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from omnihuman.benchmark.base import Benchmark, Prediction, Question, check_switches, unique
from omnihuman.benchmark.dfew import LABELS
from omnihuman.benchmark.text import text_of
from omnihuman.benchmark.transcription import transcript
from omnihuman.data.datafile import read_records
from omnihuman.data.record import Record
from omnihuman.metric.caption import cider, rouge_l
from omnihuman.metric.emotion import FORMS, label_scores, parse_label
from omnihuman.metric.open_vocabulary import parse_labels, set_scores
from omnihuman.metric.score import Score
from omnihuman.metric.speech import wer

TASKS = {
    "emotion": "label",
    **dict.fromkeys(("attribute", "sound", "same_person"), "choice"),
    "open_emotion": "labels",
    **dict.fromkeys(("transcription", "speaker_speech"), "speech"),
    **dict.fromkeys(
        (
            "caption",
            "audio_caption",
            "expression",
            "reason",
            "summary",
            "face",
            "body",
            "interaction",
            "face_qa",
            "hard_qa",
        ),
        "text",
    ),
}
"""Task of the corpus' records -> what its answers are."""


class Sample(Benchmark):
    """The corpus' val or test records of one task -> the figures of that kind of task, also by how an emotion is shown.

    The corpus is made where it is not there yet. Its people are in one split only.

    Args:
        root: the corpus; made there from ``corpus_seed``.
        split: ``test`` or ``val``.
        task: of the records: ``emotion`` (WAR and UAR), ``attribute``, ``sound``, ``same_person`` (accuracy),
            ``open_emotion`` (overlap of sets), ``transcription``, ``speaker_speech`` (WER), ``caption`` and others of
            free text (CIDEr, ROUGE-L).
        needs: only questions that name all these slots, ``video`` or ``audio``, so that modalities are compared on the
            same ones.
        parser: of emotions: ``strict`` or ``official``.
        corpus_seed: of the corpus.
        max_new_tokens: length limit of an answer.

    Raises:
        ValueError: the task is unknown.
    """

    name = "sample"

    def __init__(
        self,
        root: str = "data/sample",
        *,
        split: Literal["test", "val"] = "test",
        task: str = "emotion",
        needs: str | Sequence[str] = (),
        parser: Literal["strict", "official"] = "strict",
        corpus_seed: int = 0,
        max_new_tokens: int = 48,
    ) -> None:
        check_switches(split=(split, ("test", "val")), task=(task, TASKS), parser=(parser, ("strict", "official")))
        needs = [needs] if isinstance(needs, str) else needs
        if foreign := sorted(set(needs) - {"video", "audio"}):
            raise ValueError(f"needs={foreign}: choose from video, audio.")
        self.root, self.split, self.task, self.needs = Path(root), split, task, tuple(needs)
        self.parser, self.corpus_seed, self.max_new_tokens = parser, corpus_seed, max_new_tokens
        self.labels = tuple(LABELS.values()) if task == "emotion" else ()

    def questions(self) -> list[Question]:
        from omnihuman.data.module import sample_corpus

        path = self.root / f"{self.split}.json"
        if not path.is_file():
            sample_corpus(str(self.root), self.corpus_seed)
        found = []
        for record in read_records(path, self.root):
            if not isinstance(record, Record):
                raise ValueError(f"{record[1]}")
            if record.task == self.task and not set(self.needs) - set(record.slots):
                found.append(self._question(record))
        if not found:
            raise ValueError(f"{path}: no record has task={self.task} and the slots {list(self.needs)}.")
        return unique(found, str(path))

    def parse(self, asked: Prediction) -> tuple[Any, str]:
        kind = TASKS[self.task]
        if kind == "label":
            return parse_label(asked.answer, self.labels, FORMS, self.parser)
        if kind == "choice":
            bare = (asked.answer or "").strip(" .\n").lower()  # one option may be a part of another
            return (bare, "option") if bare in asked.options else parse_label(asked.answer, asked.options)
        if kind == "labels":
            found = parse_labels(asked.answer or "")
            return (found, "listed") if found else (None, "invalid")
        return transcript(asked) if kind == "speech" else text_of(asked)

    def scores(self, predictions: Sequence[Prediction]) -> list[Score]:
        measure = self._measures()[TASKS[self.task]]
        scores = measure(predictions)
        groups = sorted({each.group for each in predictions})
        if TASKS[self.task] == "text" or len(groups) < 2:  # CIDEr weighs words by all captions: parts do not compare
            return scores
        for group in groups:
            some = [each for each in predictions if each.group == group]
            scores += [replace(score, name=f"{score.name}/{group}") for score in measure(some)]
        return scores

    def protocol(self) -> dict[str, str]:
        return {
            "corpus": f"built-in, {self.split}, seed {self.corpus_seed}",
            "task": self.task,
            "questions": f"with {' and '.join(self.needs)}" if self.needs else "all of the task",
            "groups": "what shows the emotion: face, voice, both, none",
            "parser": self.parser,
        }

    def _question(self, record: Record) -> Question:
        said = record.meta.get("meta", {})
        (_, text), (_, truth) = record.messages[:2]
        # every modality is asked the same: also what it cannot know
        asked = replace(record, messages=(("user", text), ("assistant", "")), needs=())
        options = tuple(said.get("options", ())) if TASKS[self.task] in ("label", "choice") else ()
        if options and truth not in options:
            raise ValueError(f"{record.source}: the answer {truth!r} is none of the options {list(options)}.")
        answer: Any = parse_labels(truth) if TASKS[self.task] == "labels" else truth
        meta = {key: said[key] for key in ("emotion", "attribute", "identity") if key in said}
        return Question(asked, answer, str(said.get("shown_by", "")), options, meta)

    def _measures(self) -> dict[str, Callable[[Sequence[Prediction]], list[Score]]]:
        def ids(some: Sequence[Prediction]) -> list[str]:
            return [each.id for each in some]

        def truths(some: Sequence[Prediction]) -> list[str]:
            return [str(each.truth) for each in some]

        def words(some: Sequence[Prediction]) -> list[str]:
            return [self.parse(each)[0] or "" for each in some]

        def choice(some: Sequence[Prediction]) -> list[Score]:
            return [Score.mean("accuracy", ids(some), [float(self.parse(each)[0] == each.truth) for each in some])]

        def label(some: Sequence[Prediction]) -> list[Score]:
            parsed = [self.parse(each)[0] for each in some]
            return label_scores(ids(some), truths(some), parsed, self.labels, note=f"parser {self.parser}")

        def sets(some: Sequence[Prediction]) -> list[Score]:
            given = [self.parse(each)[0] or [] for each in some]
            return set_scores(ids(some), [each.truth for each in some], given, [[]] * len(some), "labels as written")

        def texts(some: Sequence[Prediction]) -> list[Score]:
            return [measure(ids(some), truths(some), words(some)) for measure in (cider, rouge_l)]

        return {
            "label": label,
            "choice": choice,
            "labels": sets,
            "speech": lambda some: [wer(ids(some), truths(some), words(some))],
            "text": texts,
        }
