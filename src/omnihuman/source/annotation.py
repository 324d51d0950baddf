"""Annotated clips, such as the rows of a table: records of them, with a question."""

import math
import os
import re
from abc import abstractmethod
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from omnihuman.data.media import Header, probe
from omnihuman.data.paths import PathError, resolve_path
from omnihuman.data.record import BadSample, Entry, parse_record
from omnihuman.modality import KINDS
from omnihuman.source.base import Source
from omnihuman.source.labels import Labels, find_labels
from omnihuman.source.questions import load_questions, write_question


@dataclass(frozen=True, slots=True)
class Annotation:
    """One annotated clip, as its data set writes it.

    Attributes:
        place: file and row, for messages.
        answer: label or text.
        files: ``video``, ``audio`` or ``image`` -> path; a video with an audio is a video with this audio track.
        question: about the clip; ``None`` for that of the source.
        start: first second, as text; empty for the beginning of the file.
        end: last second, likewise.
        split: its name in the data set, ``None`` where the data set has no splits.
        person: who is in the clip, ``None`` where the data set does not name people.
        system: the system prompt, ``None`` without one.
        second_clip: path of a video that follows that of ``files``; empty without one.
        meta: further entries of the record's ``meta``, such as the gender of the person.
        error: of a clip that cannot be read, such as a row with too many cells.
    """

    place: str
    answer: str = ""
    files: Mapping[str, str] = field(default_factory=dict)
    question: str | None = None
    start: str = ""
    end: str = ""
    split: str | None = None
    person: str | None = None
    system: str | None = None
    second_clip: str = ""
    meta: Mapping[str, Any] = field(default_factory=dict)
    error: BadSample | None = None


@dataclass(frozen=True, slots=True)
class AnnotatedRecord:
    """An annotated clip as a record.

    Attributes:
        annotation: of the clip, its answer parsed.
        raw: the record, as a data file has it; ``None`` for a clip that cannot be used.
        error: the reason why it cannot be used.
        tags: of its media, which its question begins with.
        seconds: length of the clip, as far as the headers of its files tell it.
    """

    annotation: Annotation
    raw: dict[str, Any] | None = None
    error: BadSample | None = None
    tags: tuple[str, ...] = ()
    seconds: float | None = None

    @property
    def files(self) -> tuple[str, ...]:
        """Paths of its media relative to the root, its own file first."""
        raw = self.raw or {}
        return tuple(str(raw[key]) for key in (*KINDS, "audio_track", "second_clip") if key in raw)


class AnnotationSource(Source):
    """Records of annotated clips that have one question in common, or one each.

    Args:
        path: of the data set.
        root: folder that all media paths are relative to and may not leave.
        task: name of what is asked for.
        question: asked of every clip; ``None``: that of ``questions``, or which of the options fits best.
        questions: wordings of the question of training records, see ``load_questions``; ``None``: all have one.
        options: classes of the answers, see ``find_labels``.
        system: system prompt.
        follow_links: accept links in the root to files outside.

    Attributes:
        notes: for the user, after the clips have been read.
        has_text_only: records may have no file.

    Raises:
        ValueError: the name of the task is no word, or there are no such questions.
    """

    def __init__(
        self,
        path: str | Path,
        root: str | Path,
        *,
        task: str,
        question: str | None = None,
        questions: str | None = None,
        options: Any = None,
        system: str | None = None,
        follow_links: bool = False,
    ) -> None:
        if not re.fullmatch(r"\w[\w-]*", task):
            raise ValueError(f"task={task}: expected one word of letters, digits and _.")  # it names metrics
        self.path, self.root, self.task = Path(path), Path(root), task
        self.questions = None if questions is None or question is not None else load_questions(questions)
        self.question = self.questions.texts[0] if self.questions else question
        self.options, self.system, self.follow_links = options, system, follow_links
        self.notes: list[str] = []
        self.has_text_only = False

    @property
    def location(self) -> str:
        return str(self.path)

    @property
    def base(self) -> Path:
        """The absolute path of the root, which paths of the media begin with."""
        return Path(os.path.abspath(self.root)) if self.follow_links else self.root.resolve()

    @abstractmethod
    def annotations(self) -> Iterator[Annotation]:
        """Yield the annotated clips, always in the same order, and add to ``notes`` what is no clip.

        Raises:
            ValueError: the data set cannot be read at all.
        """

    def records(self) -> Iterator[Entry]:
        _, items = self.annotate()
        for item in items:
            if item.raw is None:
                assert item.error is not None
                yield item.annotation.place, item.error
            else:
                yield parse_record(
                    item.raw, item.raw["id"], self.root, item.annotation.place, follow_links=self.follow_links
                )

    def annotate(self) -> tuple[Labels, list[AnnotatedRecord]]:
        """Return the classes of the answers, and every clip as a record; headers of files are read for this.

        Raises:
            ValueError: the data set cannot be read at all, or an option does not fit it.
        """
        if not self.root.is_dir():
            raise ValueError(f"root={self.root}: there is no such folder.")
        annotations = list(self.annotations())
        readable = [annotation for annotation in annotations if annotation.error is None]
        questions = {annotation.question for annotation in readable}
        answers = [annotation.answer for annotation in readable]
        labels = find_labels(answers, self.options, is_question_fixed=questions <= {None})
        if labels.names is None and self.question is None and None in questions:
            raise ValueError(
                f"{self.path}: {len(set(answers))} different answers of {len(answers)} clips count as free text, which "
                "needs a question=...; if they are classes, name them: options=[...]."
            )
        builder = _RecordBuilder(self, labels)
        items = [builder.build(annotation) for annotation in annotations]
        return labels, _add_ids(items)

    def draw_question(self, item: AnnotatedRecord, seed: int) -> AnnotatedRecord:
        """Return a training record with a wording and options that its id and a seed decide.

        A record is returned as it is if its clip has a question of its own, or the source has one question.
        """
        if self.questions is None or item.raw is None or item.annotation.question is not None:
            return item
        raw, answer = item.raw, item.annotation.answer
        meta = raw.get("meta", {})
        text, options = self.questions.draw(meta.get("options", ()), answer, f"{seed}/{raw['id']}")
        human = {"from": "human", "value": write_question(item.tags, text, options)}
        raw = {**raw, "conversations": [human, *raw["conversations"][1:]]}
        if options:
            raw["meta"] = {**meta, "options": options}
        return replace(item, raw=raw)


class _RecordBuilder:
    """Builds records of annotations, and reads every header once."""

    def __init__(self, source: AnnotationSource, labels: Labels) -> None:
        self.source, self.labels = source, labels
        self.read_header = lru_cache(maxsize=None)(read_header)

    def build(self, annotation: Annotation) -> AnnotatedRecord:
        try:
            if annotation.error is not None:
                raise annotation.error
            answer = self.labels.parse(annotation.answer)
            item = self._build_item(replace(annotation, answer=answer))
            parse_record(item.raw, "", self.source.root, annotation.place, follow_links=self.source.follow_links)
            return item
        except BadSample as bad:
            message = str(bad).removeprefix(f"{annotation.place}: ")
            return AnnotatedRecord(annotation, error=BadSample(bad.reason, f"{annotation.place}: {message}"))

    def _build_item(self, annotation: Annotation) -> AnnotatedRecord:
        """Return an annotation with its record, without an id.

        Raises:
            BadSample: a file or a time cannot be used.
        """
        files = {kind: name for kind, name in annotation.files.items() if name}
        if not files:
            raise BadSample("no_media", "the row names no file.")
        for key in ("split", "person", "question"):
            value = getattr(annotation, key)
            if value is not None and not value.strip():
                raise BadSample(f"empty_{key}", f"the {key} is empty.")
        paths = {kind: self._locate(kind, name) for kind, name in files.items()}
        if annotation.second_clip:
            paths["second_clip"] = second = self._locate("video", annotation.second_clip)
            _check_kind("video", annotation.second_clip, self.read_header(second))
        headers = {kind: _check_kind(kind, name, self.read_header(paths[kind])) for kind, name in files.items()}
        raw: dict[str, Any] = {kind: path.relative_to(self.source.base).as_posix() for kind, path in paths.items()}
        if {"video", "audio"} <= set(raw):
            raw["audio_track"] = raw.pop("audio")
        seconds = {"start": _parse_seconds("start", annotation.start), "end": _parse_seconds("end", annotation.end)}
        raw |= {key: value for key, value in seconds.items() if value is not None}
        _check_start(seconds["start"] or 0.0, headers)
        tags = [f"<{kind}>" for kind in ("video", "image") if kind in files]
        audio = headers.get("audio") or headers.get("video")
        if audio is not None and audio.num_samples(seconds["start"] or 0.0, seconds["end"]):
            tags.append("<audio>")
        raw["task"] = self.source.task
        if system := annotation.system or self.source.system:
            raw["system"] = system
        text = annotation.question or self.source.question
        if text is None:
            text = f"Which {self.source.task.replace('_', ' ')} fits this clip best?"
        raw["conversations"] = [
            {"from": "human", "value": write_question(tags, text, self.labels.names or ())},
            {"from": "gpt", "value": annotation.answer},
        ]
        meta: dict[str, Any] = {} if self.labels.names is None else {"options": list(self.labels.names)}
        if annotation.person is not None:
            meta["person"] = annotation.person
        meta |= annotation.meta
        raw |= {"meta": meta} if meta else {}
        return AnnotatedRecord(annotation, raw, tags=tuple(tags), seconds=_measure(seconds, headers))

    def _locate(self, kind: str, name: str) -> Path:
        options = {"allow_folder": kind == "video", "follow_links": self.source.follow_links}
        try:
            return resolve_path(self.source.root, name, **options)
        except PathError as error:
            message = str(error).replace("data.source.", "source.").replace("data.root", "root")
            raise BadSample(error.reason, f"{kind} {name!r:.200}: {message}") from error


def read_header(path: Path) -> Header | BadSample:
    """Return the header of a file, or why it cannot be used."""
    try:
        return probe(path)
    except BadSample as bad:
        return bad


def _check_kind(kind: str, name: str, header: Header | BadSample) -> Header:
    """Return the header of a file that has what its kind promises.

    Raises:
        BadSample: the file is unreadable or of another kind.
    """
    if isinstance(header, BadSample):
        raise header
    actual = "audio"
    if header.has_video:
        actual = "image" if header.is_still else "video"
    if kind == "audio" and not header.has_audio:
        raise BadSample("no_audio", f"{name} has no audio.")
    if kind != "audio" and actual != kind:
        raise BadSample("other_kind", f"{name} is {actual}, not {kind}: name it by {actual}=.")
    return header


def _parse_seconds(key: str, text: str) -> float | None:
    """Return a time of an annotation.

    Raises:
        BadSample: it is no number of seconds.
    """
    if not text:
        return None
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not math.isfinite(seconds):
        raise BadSample(
            "malformed_time", f"{key} {text!r:.40} is no number of seconds; write 83.5, not 1:23.5 or 83,5."
        )
    return seconds


def _check_start(start: float, headers: Mapping[str, Header]) -> None:
    """Check that a clip begins within its file, as far as the header knows its length.

    Raises:
        BadSample: it begins later.
    """
    for header in headers.values():
        seconds = measure_file(header)
        if start and 0 < seconds <= start:
            raise BadSample("outside_file", f"start {start:g} is after the end of the file, {seconds:.1f} s.")


def measure_file(header: Header) -> float:
    """Return the length of a file in seconds, 0 for a still or an unknown length."""
    return 0.0 if header.is_still else max(header.audio[1], header.num_frames / header.fps)


def _measure(span: Mapping[str, float | None], headers: Mapping[str, Header]) -> float | None:
    """Return the length of a clip in seconds, ``None`` for a still or a file whose header does not tell it."""
    start, end = span["start"] or 0.0, span["end"]
    lengths = [
        max(header.audio[1], header.num_frames / header.fps) for header in headers.values() if not header.is_still
    ]
    length = max(lengths, default=0.0)
    if end is None or 0 < length < end:
        end = length
    return end - start if end > start else None


def _add_ids(items: list[AnnotatedRecord]) -> list[AnnotatedRecord]:
    """Return the records with ids: the path, and a number where several records have it."""
    counts = Counter(item.files[:1] for item in items)
    numbers = Counter[tuple[str, ...]]()
    identified = []
    for item in items:
        if item.raw is not None:
            path = item.files[:1]
            numbers[path] += 1
            name = path[0] if counts[path] == 1 else f"{path[0]}#{numbers[path]}"
            item = replace(item, raw={"id": name, **item.raw})
        identified.append(item)
    return identified
