"""The built-in corpus as a benchmark: its validation and test records."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

from omnihuman.benchmark.base import Question, as_tuple, check_choices, check_unique_ids
from omnihuman.benchmark.task import TaskBenchmark
from omnihuman.data.options import read_options
from omnihuman.data.record import Record
from omnihuman.metric.emotion import FORMS, PARSERS
from omnihuman.source.dfew import LABELS
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

META_KEYS = ("emotion", "attribute", "identity")


class Sample(TaskBenchmark):
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
        parser: of labels and choices: ``strict``, ``official`` or ``answer_tag``; ``None`` for ``strict``.
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
        parser: Literal["strict", "official", "answer_tag"] | None = None,
        corpus_seed: int = 0,
        max_new_tokens: int = 48,
    ) -> None:
        parser = parser or "strict"
        check_choices(split=(split, ("test", "val")), task=(task, TASKS), parser=(parser, PARSERS))
        needs = as_tuple(needs)
        unknown = sorted(set(needs) - {"video", "audio"})
        if unknown:
            raise ValueError(f"needs={unknown}: choose from video, audio.")
        self.root, self.split, self.task, self.needs = Path(root), split, task, needs
        self.parser, self.corpus_seed, self.max_new_tokens = parser, corpus_seed, max_new_tokens
        self.kind, self.forms = TASKS[task], FORMS
        if task == "emotion":
            self.labels = tuple(LABELS.values())

    def questions(self) -> list[Question]:
        source = SampleSource(self.split, self.root, self.corpus_seed)
        questions = []
        for record in source.records():
            if not isinstance(record, Record):
                raise ValueError(f"{record[1]}")
            if self._is_asked(record):
                annotation = record.meta.get("meta", {})
                meta = {key: annotation[key] for key in META_KEYS if key in annotation}
                first_turn = replace(record, messages=record.messages[:2])
                questions.append(self.build_question(first_turn, str(annotation.get("shown_by", "")), meta))
        if not questions:
            raise ValueError(
                f"{source.location}: there is no record with task={self.task} and the slots {list(self.needs)}."
            )
        return check_unique_ids(questions, source.location)

    def _is_asked(self, record: Record) -> bool:
        if record.task != self.task or not set(self.needs) <= set(record.slots):
            return False
        # half of the questions about sounds are open, and no option can be right
        return self.kind != "choice" or bool(read_options(record))

    def protocol(self) -> dict[str, str]:
        return {
            "corpus": f"built-in, {self.split}, seed {self.corpus_seed}",
            "task": self.task,
            "questions": f"with {' and '.join(self.needs)}" if self.needs else "all of the task",
            "groups": "what shows the emotion: face, voice, both, none",
            "parser": self.parser,
        }
