"""A file of records as a benchmark: any task and any labels."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from omnihuman.benchmark.base import Question, check_choices, check_unique_ids
from omnihuman.benchmark.task import KINDS, YES_NO, TaskBenchmark
from omnihuman.data.options import find_labels, read_options
from omnihuman.data.paths import FOLLOW_LINKS
from omnihuman.data.record import Record
from omnihuman.metric.answer import fold
from omnihuman.metric.emotion import PARSERS
from omnihuman.source.records import RecordsSource
from omnihuman.source.root import find_media_root

LABEL_KINDS = ("auto", "label", "pairs")
"""Kinds whose answers are the same in all records."""

PAIRS = (YES_NO, ("same", "different"), ("是", "否"))
"""Answers about two clips, in pairs: the first means that they are the same."""


class Records(TaskBenchmark):
    """The records of one task in a file -> the scores of their kind of answer.

    All records are asked, and all are checked before the first question is. A record with several turns is asked for
    its last answer, with the earlier turns as context.

    Args:
        path: of a json, jsonl or parquet file with records.
        root: folder of the media; ``None``: that of ``report.json`` beside the file, else the file's own folder.
        task: of the records to ask; ``None`` where all records are of one task.
        kind: of the answers, see ``TaskBenchmark``. ``auto``: ``label`` where all records have the same
            ``meta.options``, ``choice`` where each has its own, ``pairs`` where all have a ``second_clip`` and answers
            of yes and no, or same and different.
        labels: the classes, or label -> other words for it in references and answers; for ``pairs`` first the one
            that means the same. ``None``: the options of the records.
        parser: of labels and choices: ``strict``, ``official`` or ``answer_tag``; ``None`` for ``strict``.
        follow_links: accept links in the root to files outside, as in a cache of the hub.
        text_only: accept records without a file.
        add_audio: a video whose text has no ``<audio>`` gets one, as in training with ``data.source.add_audio``.
        max_new_tokens: maximum length of an answer; ``None`` for that of the kind.

    Raises:
        ValueError: an option is invalid.
    """

    name = "records"

    def __init__(
        self,
        path: str,
        *,
        root: str | None = None,
        task: str | None = None,
        kind: str = "auto",
        labels: Sequence[Any] | Mapping[Any, Any] | None = None,
        parser: str | None = None,
        follow_links: bool = False,
        text_only: bool = False,
        add_audio: bool = False,
        max_new_tokens: int | None = None,
    ) -> None:
        parser = parser or "strict"
        check_choices(kind=(kind, ("auto", *KINDS)), parser=(parser, PARSERS))
        if labels is not None and kind not in LABEL_KINDS:
            raise ValueError(f"labels={labels}: kind={kind} has none; leave labels out, or choose kind=label.")
        self.path, self.root, self.task = Path(path).expanduser(), root, task
        self.source_options = {"follow_links": follow_links, "text_only": text_only, "add_audio": add_audio}
        self.kind, self.parser, self.max_answer = kind, parser, max_new_tokens
        self.forms = {} if labels is None else parse_forms(labels)
        self._set_labels(tuple(self.forms))
        if labels is not None and kind == "auto":
            self.kind = "label"

    def _set_labels(self, labels: tuple[str, ...]) -> None:
        if self.kind == "pairs" and len(labels) not in (0, 2):
            raise ValueError(f"labels={list(labels)}: kind=pairs has two, first the one that means the same.")
        self.labels = labels

    @property
    def log_probs(self) -> bool:  # type: ignore[override]
        """True for pairs, whose curve needs probabilities."""
        return self.kind == "pairs"

    @property
    def max_new_tokens(self) -> int:  # type: ignore[override]
        """The maximum length of an answer."""
        return self.max_answer or KINDS[self.kind]

    def questions(self) -> list[Question]:
        records = self._select_task(self._read())
        if self.kind == "auto":
            self._derive_kind(records)
        if self.kind in ("label", "pairs") and not self.labels:
            self._derive_labels(records)
        return check_unique_ids([self.build_question(record) for record in records], str(self.path))

    def data_options(self) -> dict[str, Any]:
        labels: Any = list(self.labels) or None
        if any(self.forms.values()):
            labels = {label: list(self.forms.get(label, ())) for label in self.labels}
        return {"kind": self.kind, "labels": labels, "task": self.task}

    def protocol(self) -> dict[str, str]:
        protocol = {"file": self.path.name, "task": self.task or "not named", "answers": self.kind}
        if self.kind in ("label", "choice"):
            protocol["parser"] = self.parser
        return protocol

    def _read(self) -> list[Record]:
        """Return all records of the file.

        Raises:
            ValueError: one is invalid, or there is none.
        """
        if self.path.is_dir():
            files = [str(file) for file in sorted(self.path.glob("*.json*")) if file.name != "report.json"]
            raise ValueError(f"benchmark.path={self.path} is a folder; name a file of it: {', '.join(files)}.")
        if not self.path.is_file():
            raise ValueError(f"benchmark.path={self.path}: there is no such file.")
        root = find_media_root(self.path) if self.root is None else Path(self.root).expanduser()
        if not root.is_dir():
            raise ValueError(f"benchmark.root={root}: there is no such folder; {self.path} names its media below it.")
        records, errors = list[Record](), list[str]()
        for entry in RecordsSource(self.path, root, **self.source_options).records():
            if isinstance(entry, Record):
                records.append(entry)
            else:
                errors.append(str(entry[1]))
        if errors:
            rest = f" ({len(errors) - 1} more records are invalid)" if len(errors) > 1 else ""
            # the keys of training that a message names
            message = errors[0].replace(FOLLOW_LINKS, "benchmark.follow_links=true")
            raise ValueError(f"{message.replace('data.root', 'benchmark.root')}{rest}")
        if not records:
            raise ValueError(f"{self.path} has no records; choose another file.")
        return records

    def _select_task(self, records: Sequence[Record]) -> list[Record]:
        counts = Counter(record.task for record in records)
        tasks = ", ".join(f"{task or 'none'} ({count})" for task, count in counts.items())
        if self.task is None and len(counts) > 1:
            raise ValueError(f"{self.path} has records of several tasks: {tasks}; choose one with benchmark.task=...")
        if self.task is not None and self.task not in counts:
            raise ValueError(f"{self.path} has no record of benchmark.task={self.task}; there are {tasks}.")
        if self.task is None:
            self.task = records[0].task
        return [record for record in records if record.task == self.task]

    def _derive_kind(self, records: Sequence[Record]) -> None:
        options = [read_options(record) for record in records]
        if any(options):
            self._check_all_have(records, options)
            self.kind = "label" if find_labels(options) else "choice"
        elif all(record.second_clip for record in records) and _find_pair(records):
            self.kind = "pairs"
        else:
            raise ValueError(
                f"{records[0].location}: meta.options is missing, so the kind of the answers is not known: set "
                "benchmark.labels=[...] for classes, or benchmark.kind=text (captions), speech (transcripts), labels "
                "(several in an answer) or pairs (yes and no)."
            )

    def _derive_labels(self, records: Sequence[Record]) -> None:
        if self.kind == "pairs":
            labels: tuple[str, ...] = _find_pair(records)
            cure = "set benchmark.labels=[<same>, <different>]"
        else:
            options = [read_options(record) for record in records]
            self._check_all_have(records, options)
            labels, cure = find_labels(options), "set benchmark.labels=[...], or benchmark.kind=choice"
        if not labels:
            raise ValueError(f"{self.path}: the records have no labels in common: {cure}.")
        self._set_labels(labels)

    def _check_all_have(self, records: Sequence[Record], options: Sequence[Sequence[str]]) -> None:
        for record, texts in zip(records, options, strict=True):
            if not texts:
                raise ValueError(
                    f"{record.location}: meta.options is missing; list the options as in the other records, or set "
                    "benchmark.labels=[...]."
                )


def _find_pair(records: Sequence[Record]) -> tuple[str, ...]:
    """Return the two answers that the records have, of the pairs that mean same and different; else nothing."""
    answers = {fold(record.messages[-1][1]) for record in records}
    for pair in PAIRS:
        if answers <= set(pair):
            return pair
    return ()


def parse_forms(labels: Sequence[Any] | Mapping[Any, Any]) -> dict[str, tuple[str, ...]]:
    """Return label -> other words for it, from such a mapping, or a list of labels and of lists that begin with one.

    Raises:
        ValueError: there is one label, or a word stands for two.

    >>> parse_forms({"happy": ["joyful"], "sad": None}), parse_forms(["高兴", ["难过", "伤心"]])
    ({'happy': ('joyful',), 'sad': ()}, {'高兴': (), '难过': ('伤心',)})
    """
    raw: Mapping[Any, Any]
    if isinstance(labels, Mapping):
        raw = labels
    else:
        lists = [entry if isinstance(entry, list) and entry else [entry] for entry in labels]
        raw = {label: words for label, *words in lists}
    if isinstance(labels, str) or len(raw) < 2 or len(raw) < len(labels):
        raise ValueError(f"benchmark.labels={labels}: list two different labels or more.")
    forms: dict[str, tuple[str, ...]] = {}
    owners: dict[str, str] = {}
    for label, words in raw.items():
        words = [words] if isinstance(words, str) else list(words or ())
        forms[_to_text(label)] = tuple(map(_to_text, words))
        for word in (_to_text(label), *forms[_to_text(label)]):
            if owners.setdefault(fold(word), str(label)) != str(label):
                raise ValueError(
                    f"benchmark.labels: {word!r} stands for {owners[fold(word)]!r} and {label!r}; keep one."
                )
    return forms


def _to_text(label: Any) -> str:
    if isinstance(label, bool) or not isinstance(label, str | int) or label == "":
        raise ValueError(f"benchmark.labels: {label!r} is no text; put it in quotes.")
    return str(label)
