"""The built-in corpus as a benchmark: its validation and test records."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, TypeVar

from omnihuman.benchmark.base import (
    INVALID,
    Benchmark,
    Prediction,
    Question,
    as_tuple,
    check_choices,
    check_unique_ids,
    unzip,
)
from omnihuman.benchmark.dfew import LABELS
from omnihuman.benchmark.text import parse_text
from omnihuman.benchmark.transcription import parse_transcript
from omnihuman.data.record import Record
from omnihuman.metric.answer import CUT, final_answer
from omnihuman.metric.caption import cider, rouge_l
from omnihuman.metric.emotion import FORMS, PARSERS, parse_label, score_labels
from omnihuman.metric.open_vocabulary import parse_labels, score_label_sets
from omnihuman.metric.score import Score, group_positions, select
from omnihuman.metric.speech import wer
from omnihuman.source.sample import SampleSource

TASKS = {
    "emotion": "label",
    "attribute": "choice",
    "sound": "choice",
    "same_person": "choice",
    "open_emotion": "labels",
    "transcription": "speech",
    "speaker_speech": "speech",
    "caption": "text",
    "audio_caption": "text",
    "expression": "text",
    "reason": "text",
    "summary": "text",
    "face": "text",
    "body": "text",
    "interaction": "text",
    "face_qa": "text",
    "hard_qa": "text",
}
"""Task of a record -> kind of its answers."""

T = TypeVar("T", str, list[str])
META_KEYS = ("emotion", "attribute", "identity")


class Sample(Benchmark):
    """The validation or test records of one task -> scores of its kind, also by the view that shows the emotion.

    The corpus is generated if it is missing or incomplete. Each person is in one split only.

    Args:
        root: folder of the corpus.
        split: ``test`` or ``val``.
        task: of the records: ``emotion`` (WAR and UAR), ``attribute``, ``sound``, ``same_person`` (accuracy),
            ``open_emotion`` (overlap of sets), ``transcription``, ``speaker_speech`` (WER), ``caption`` and other free
            text (CIDEr, ROUGE-L).
        needs: keep only questions with all these slots, ``video`` or ``audio``, to compare modalities on the same
            questions.
        parser: of emotions: ``strict`` or ``official``.
        corpus_seed: of the corpus.
        max_new_tokens: maximum length of an answer.

    Raises:
        ValueError: an option is invalid.
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
        check_choices(split=(split, ("test", "val")), task=(task, TASKS), parser=(parser, PARSERS))
        needs = as_tuple(needs)
        unknown = sorted(set(needs) - {"video", "audio"})
        if unknown:
            raise ValueError(f"needs={unknown}: choose from video, audio.")
        self.root, self.split, self.task, self.needs = Path(root), split, task, needs
        self.parser, self.corpus_seed, self.max_new_tokens = parser, corpus_seed, max_new_tokens
        if task == "emotion":
            self.labels = tuple(LABELS.values())

    @property
    def kind(self) -> str:
        """The kind of the task's answers."""
        return TASKS[self.task]

    def questions(self) -> list[Question]:
        source = SampleSource(self.split, self.root, self.corpus_seed)
        questions = []
        for record in source.records():
            if not isinstance(record, Record):
                raise ValueError(f"{record[1]}")
            if record.task == self.task and set(self.needs) <= set(record.slots):
                questions.append(self._build_question(record))
        if not questions:
            raise ValueError(
                f"{source.location}: there is no record with task={self.task} and the slots {list(self.needs)}."
            )
        return check_unique_ids(questions, source.location)

    def parse(self, prediction: Prediction) -> tuple[Any, str]:
        if self.kind == "label":
            return parse_label(prediction.answer, self.labels, FORMS, self.parser)
        if self.kind == "choice":
            # exact match first, because an option may contain another one
            text = (final_answer(prediction.answer) or "").strip(" .\n").lower()
            return (
                (text, "option") if text in prediction.options else parse_label(prediction.answer, prediction.options)
            )
        if self.kind == "labels":
            final = final_answer(prediction.answer)
            if final is None:
                return CUT
            labels = parse_labels(final)
            return (labels, "listed") if labels else INVALID
        if self.kind == "speech":
            return parse_transcript(prediction)
        return parse_text(prediction)

    def scores(self, predictions: Sequence[Prediction]) -> list[Score]:
        metric = self._metrics()[self.kind]
        scores = metric(predictions)
        groups = group_positions([prediction.group for prediction in predictions])
        # CIDEr weighs n-grams by the captions of all groups, so scores of single groups are not comparable.
        if self.kind == "text" or len(groups) < 2:
            return scores
        for group, positions in sorted(groups.items()):
            for score in metric(select(predictions, positions)):
                scores.append(replace(score, name=f"{score.name}/{group}"))
        return scores

    def protocol(self) -> dict[str, str]:
        return {
            "corpus": f"built-in, {self.split}, seed {self.corpus_seed}",
            "task": self.task,
            "questions": f"with {' and '.join(self.needs)}" if self.needs else "all of the task",
            "groups": "what shows the emotion: face, voice, both, none",
            "parser": self.parser,
        }

    def _build_question(self, record: Record) -> Question:
        annotation = record.meta.get("meta", {})
        (_, text), (_, reference) = record.messages[:2]
        # Without needs, every view gets the same questions, even those that it cannot answer.
        question = replace(record, messages=(("user", text), ("assistant", "")), needs=())
        options: tuple[str, ...] = ()
        if self.kind in ("label", "choice"):
            options = tuple(annotation.get("options", ()))
        if options and reference not in options:
            raise ValueError(f"{record.location}: the answer {reference!r} must be one of the options {list(options)}.")
        answer: Any = reference
        if self.kind == "labels":
            answer = parse_labels(reference)
        meta = {key: annotation[key] for key in META_KEYS if key in annotation}
        return Question(question, answer, str(annotation.get("shown_by", "")), options, meta)

    def _metrics(self) -> dict[str, Callable[[Sequence[Prediction]], list[Score]]]:
        return {
            "label": self._score_labels,
            "choice": self._score_choices,
            "labels": self._score_label_sets,
            "speech": self._score_speech,
            "text": self._score_texts,
        }

    def _score_labels(self, predictions: Sequence[Prediction]) -> list[Score]:
        ids, references, _ = unzip(predictions)
        parsed = [self.parse(prediction)[0] for prediction in predictions]
        return score_labels(ids, references, parsed, self.labels, note=f"parser {self.parser}")

    def _score_choices(self, predictions: Sequence[Prediction]) -> list[Score]:
        ids, _, _ = unzip(predictions)
        correct = [float(self.parse(prediction)[0] == prediction.reference) for prediction in predictions]
        return [Score.mean("accuracy", ids, correct)]

    def _score_label_sets(self, predictions: Sequence[Prediction]) -> list[Score]:
        ids, references, answers = self._parse_all(predictions, [])
        return score_label_sets(ids, references, answers, [[]] * len(ids), "labels as written")

    def _score_speech(self, predictions: Sequence[Prediction]) -> list[Score]:
        return [wer(*self._parse_all(predictions, ""))]

    def _score_texts(self, predictions: Sequence[Prediction]) -> list[Score]:
        texts = self._parse_all(predictions, "")
        return [cider(*texts), rouge_l(*texts)]

    def _parse_all(self, predictions: Sequence[Prediction], default: T) -> tuple[list[str], list[T], list[T]]:
        """Return ids, references and parsed answers, with a default for invalid ones."""
        ids, references, _ = unzip(predictions)
        return ids, references, [self.parse(prediction)[0] or default for prediction in predictions]
