"""What a benchmark is: questions about files, what an answer means, and what the answers are worth."""

import json
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, ClassVar

from omnihuman.data.record import Record
from omnihuman.metric.score import Score

MODALITIES = {
    "V": "frames",
    "A": "audio",
    "F": "faces",
    "VA": "frames_audio",
    "VF": "video",
    "AF": "faces_audio",
    "VAF": "video_audio",
}
"""What a checkpoint may use, in the letters of the papers' tables -> the view of a record (``data.record.MODALS``)."""


@dataclass(frozen=True)
class Question:
    """One question of a benchmark.

    Attributes:
        record: file, clip and prompt; the answer in it stays empty. Its id is the question's, unique in the benchmark.
        truth: a label, an option, a caption, a list of labels: what JSON can hold.
        group: the fold, the sub-task or the split that it belongs to.
        options: the answers it offers.
        meta: what scores or cards want to know besides; JSON.
    """

    record: Record
    truth: Any
    group: str = ""
    options: tuple[str, ...] = ()
    meta: Mapping[str, Any] = field(default_factory=dict)

    @property
    def id(self) -> str:
        return self.record.id


@dataclass(frozen=True)
class Prediction:
    """What was asked and answered: a line of ``predictions.jsonl``, all that scores and reports need.

    Attributes:
        benchmark: its name.
        id: of the question.
        group: of the question.
        prompt: the user's words, slots left out.
        truth: of the question.
        answer: the model's own words; ``None`` where it could not be asked.
        options: of the question.
        meta: of the question.
        modality: ``V``, ``A``, ``F``, ``VA``, ``VF``, ``AF`` or ``VAF``.
        control: ``""``, or what was shuffled: ``audio``, ``video``.
        before: (prompt, answer) of the turns before the one that counts, where the prompting has several.
        log_probs: of the options, where they were asked for.
        lacking: slots that the file could not fill: ``audio`` of a silent clip.
        weights: fusion -> stream -> what it was given.
        seconds: of answering, the batch's share.
        tokens: of the prompt and of the answer.
        error: why it could not be asked, ``None`` where it could.
        media: file, start and end, as the record says.
    """

    benchmark: str
    id: str
    group: str
    prompt: str
    truth: Any
    answer: str | None
    options: tuple[str, ...] = ()
    meta: Mapping[str, Any] = field(default_factory=dict)
    modality: str = "VAF"
    control: str = ""
    before: tuple[tuple[str, str], ...] = ()
    log_probs: tuple[float, ...] = ()
    lacking: tuple[str, ...] = ()
    weights: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    seconds: float = 0.0
    tokens: tuple[int, int] = (0, 0)
    error: str | None = None
    media: Mapping[str, Any] = field(default_factory=dict)

    def line(self) -> str:
        """As a line of JSON, without its end."""
        return json.dumps(asdict(self), ensure_ascii=False)

    @classmethod
    def of(cls, raw: Any, where: str) -> "Prediction":
        """From parsed JSON.

        Raises:
            ValueError: keys are missing or unknown, or a value is of another kind; the message names ``where``.
        """
        known = {each.name for each in fields(cls)}
        needed = {"benchmark", "id", "group", "prompt", "truth", "answer"}
        if not isinstance(raw, Mapping) or (wrong := (set(raw) - known) | (needed - set(raw))):
            what = f"keys missing or unknown: {sorted(wrong)}" if isinstance(raw, Mapping) else "no object"
            raise ValueError(f"{where}: this is not a prediction ({what}).")
        try:
            lists = {key: tuple(raw[key]) for key in ("options", "lacking", "tokens") if key in raw}
            lists["log_probs"] = tuple(float(each) for each in raw.get("log_probs", ()))
            before = tuple((str(prompt), str(answer)) for prompt, answer in raw.get("before", ()))
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"{where}: this is not a prediction (options, log_probs, lacking, tokens: {error})."
            ) from error
        if not isinstance(raw["id"], str) or not isinstance(raw["answer"], str | None):
            raise ValueError(f"{where}: id and answer are text, found {raw['id']!r} and {raw['answer']!r:.80}.")
        texts = [key for key in ("benchmark", "group", "prompt", "modality") if not isinstance(raw.get(key, ""), str)]
        maps = [key for key in ("meta", "weights", "media") if not isinstance(raw.get(key, {}), Mapping)]
        for key in [*texts, *maps]:
            raise ValueError(f"{where}: {key} is {'text' if key in texts else 'an object'}, found {raw[key]!r:.80}.")
        return cls(**{**raw, **lists, "before": before})


@dataclass(frozen=True)
class Peer:
    """A row of a paper's table.

    Attributes:
        method: its name.
        values: score name -> figure, as printed.
        modality: ``V``, ``A``, ``VA`` ...
        protocol: how it was measured, in a few words: ``5 folds``, ``one fold``, ``zero-shot``, ``judge not stated``.
        source: which paper prints it.
    """

    method: str
    values: Mapping[str, float]
    modality: str = ""
    protocol: str = ""
    source: str = ""


class Benchmark(ABC):
    """Reads an official layout on disk, asks its questions in its words, and scores the answers.

    Only ``questions`` reads files: parsing and scoring work from predictions alone, wherever these lie.

    Attributes:
        name: module, yaml and ``benchmark=`` on the command line.
        labels: classes in the order of confusion matrices; empty where there are none.
        modality: what is used unless the user says otherwise.
        max_new_tokens: length limit of an answer.
        log_probs: whether its scores need the log-probabilities of the options.
        peers: rows of the papers.
    """

    name: ClassVar[str]
    labels: tuple[str, ...] = ()
    modality: str = "VAF"
    max_new_tokens: int = 64
    log_probs: bool = False
    peers: tuple[Peer, ...] = ()

    @abstractmethod
    def questions(self) -> list[Question]:
        """All questions, in order.

        Raises:
            ValueError: the layout or an annotation does not hold; file, line, key and cure are named.
        """

    @abstractmethod
    def parse(self, asked: Prediction) -> tuple[Any, str]:
        """What an answer means and by which rule it was read; ``(None, "invalid")`` where it means nothing.

        For label sets and options the first is one of them.
        """

    @abstractmethod
    def scores(self, predictions: Sequence[Prediction]) -> list[Score]:
        """The figures of a set of answers, the headline first. What could not be asked counts as wrong."""

    def truth_of(self, asked: Prediction) -> Any:
        """The truth in the words of ``parse``."""
        return asked.truth

    def follow_up(self, question: Question, answer: str) -> str | None:
        """The prompt of the second turn, given the first answer; ``None`` where one turn is all (the default)."""
        return None

    def protocol(self) -> dict[str, str]:
        """Every switch that decides a figure, in words: folds, parser, prompting, judge."""
        return {}


def read_json(path: Path) -> Any:
    """A JSON file.

    Raises:
        ValueError: it is missing or no JSON; the message names it.
    """
    if not path.is_file():
        raise ValueError(f"{path}: there is no such file.")
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except ValueError as error:
        raise ValueError(f"{path}: this is not JSON ({error}).") from error


def check_switches(**switches: tuple[str, Collection[str]]) -> None:
    """Switch -> what was given, and what it may be.

    Raises:
        ValueError: one is unknown.
    """
    for switch, (given, known) in switches.items():
        if given not in known:
            raise ValueError(f"{switch}={given}: choose from {', '.join(known)}.")


def lines_of(path: Path) -> Iterator[tuple[str, str]]:
    """The lines of a text file that are not blank: place and words.

    Raises:
        ValueError: it is no UTF-8; the message names it.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: save the file as UTF-8 ({error}).") from error
    yield from ((f"{path}:{number}", line) for number, line in enumerate(text.splitlines(), 1) if line.strip())


def unique(questions: Sequence[Question], where: str) -> list[Question]:
    """The questions, none of which may have the id of another.

    Raises:
        ValueError: an id is there twice, or there is no question at all.
    """
    if not questions:
        raise ValueError(
            f"{where}: there is nothing to ask: the annotation lists nothing, or none of it is on disk and all was "
            "skipped (missing_media=skip)."
        )
    seen: dict[str, Question] = {}
    for question in questions:
        if question.id in seen:
            first, second = seen[question.id].record.source, question.record.source
            raise ValueError(f"{where}: the id {question.id!r} is there twice ({first} and {second}); keep one.")
        seen[question.id] = question
    return list(questions)
