"""Benchmarks: questions about media files, parsing of answers, and scores."""

import csv
import json
from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from importlib.resources import files
from typing import Any, ClassVar

from omnihuman.data.record import Record
from omnihuman.metric.answer import final_answer
from omnihuman.metric.score import Score

INVALID = (None, "invalid")
"""Result of ``Benchmark.parse`` without a match."""


@dataclass(frozen=True)
class Question:
    """A question of a benchmark.

    Attributes:
        record: file, clip and prompt, with an empty answer. Its id is that of the question, unique in the benchmark.
        reference: the right answer: a label, an option, a caption or a list of labels; JSON.
        group: fold, sub-task or split of the question.
        options: answers to choose from.
        meta: further data for scores and cards; JSON.
    """

    record: Record
    reference: Any
    group: str = ""
    options: tuple[str, ...] = ()
    meta: Mapping[str, Any] = field(default_factory=dict)

    @property
    def id(self) -> str:
        return self.record.id


@dataclass(frozen=True)
class Prediction:
    """A question and its answer: a line of ``predictions.jsonl``, all that scores and reports need.

    Attributes:
        benchmark: its name.
        id: of the question.
        group: of the question.
        prompt: the user's text without slots.
        reference: of the question.
        answer: raw text of the model; ``None`` where generation failed.
        options: of the question.
        meta: of the question.
        view: its letters: ``V``, ``A``, ``F``, ``VA`` ...
        control: of the evaluation: ``""``, ``shuffled_audio``, ``drop_branch:face`` ...
        previous_turns: (prompt, answer) of the turns before the last one, where the prompting has several turns.
        log_probs: of the options, where they were computed.
        missing_slots: slots that the file does not fill: ``audio`` of a silent clip.
        weights: fusion -> stream -> its weight.
        seconds: of answering, the share of the batch.
        tokens: of the prompt and of the answer.
        error: reason of a failure, else ``None``.
        media: file, start and end of the record.
    """

    benchmark: str
    id: str
    group: str
    prompt: str
    reference: Any
    answer: str | None
    options: tuple[str, ...] = ()
    meta: Mapping[str, Any] = field(default_factory=dict)
    view: str = "VAF"
    control: str = ""
    previous_turns: tuple[tuple[str, str], ...] = ()
    log_probs: tuple[float, ...] = ()
    missing_slots: tuple[str, ...] = ()
    weights: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    seconds: float = 0.0
    tokens: tuple[int, int] = (0, 0)
    error: str | None = None
    media: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> str:
        """Format as a line of JSON, without the newline."""
        return json.dumps(asdict(self), ensure_ascii=False)

    @classmethod
    def from_json(cls, raw: Any, location: str) -> "Prediction":
        """Build a prediction from parsed JSON.

        Raises:
            ValueError: keys are missing or unknown, or a value has the wrong type; the message names ``location``.
        """
        if not isinstance(raw, Mapping):
            raise ValueError(f"{location}: this is not a prediction (not an object).")
        known = {attribute.name for attribute in fields(cls)}
        required = {"benchmark", "id", "group", "prompt", "reference", "answer"}
        wrong = (set(raw) - known) | (required - set(raw))
        if wrong:
            raise ValueError(f"{location}: this is not a prediction (keys missing or unknown: {sorted(wrong)}).")
        _check_types(raw, location)
        values = dict(raw)
        try:
            for key in ("options", "missing_slots", "tokens"):
                if key in raw:
                    values[key] = tuple(raw[key])
            values["log_probs"] = tuple(float(value) for value in raw.get("log_probs", ()))
            turns = raw.get("previous_turns", ())
            values["previous_turns"] = tuple((str(prompt), str(answer)) for prompt, answer in turns)
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"{location}: this is not a prediction (options, log_probs, missing_slots, tokens, previous_turns: "
                f"{error})."
            ) from error
        return cls(**values)


def _check_types(raw: Mapping[str, Any], location: str) -> None:
    if not isinstance(raw["id"], str) or not isinstance(raw["answer"], str | None):
        raise ValueError(f"{location}: id and answer must be text, got {raw['id']!r} and {raw['answer']!r:.80}.")
    for key in ("benchmark", "group", "prompt", "view"):
        if not isinstance(raw.get(key, ""), str):
            raise ValueError(f"{location}: {key} must be text, got {raw[key]!r:.80}.")
    for key in ("meta", "weights", "media"):
        if not isinstance(raw.get(key, {}), Mapping):
            raise ValueError(f"{location}: {key} must be an object, got {raw[key]!r:.80}.")


@dataclass(frozen=True)
class PublishedResult:
    """A row of a paper's table.

    Attributes:
        method: its name.
        values: score name -> value, as printed.
        view: its letters: ``V``, ``A``, ``VA`` ...
        protocol: conditions of the measurement: ``5 folds``, ``one fold``, ``zero-shot``, ``judge not stated``.
        source: paper that prints it.
    """

    method: str
    values: Mapping[str, float]
    view: str = ""
    protocol: str = ""
    source: str = ""


def read_peers(benchmark: str) -> tuple[PublishedResult, ...]:
    """Return the results in ``peers/<benchmark>.csv``, in order; every further column is a score, empty if not printed.

    >>> read_peers("fleurs")[-1].values
    {'wer/en_us': 6.3, 'cer/cmn_hans_cn': 7.5}
    """
    text = (files("omnihuman.benchmark") / "peers" / f"{benchmark}.csv").read_text(encoding="utf-8")
    results = []
    for row in csv.DictReader(text.splitlines(), strict=True):
        method, view, protocol, paper = (row.pop(key) for key in ("method", "view", "protocol", "source"))
        values = {name: float(value) for name, value in row.items() if value}
        results.append(PublishedResult(method, values, view, protocol, paper))
    return tuple(results)


class Benchmark(ABC):
    """Reads a dataset in its official layout, builds its questions, and parses and scores the answers.

    Only ``questions`` reads files: parsing and scoring need nothing but predictions.

    Attributes:
        name: of the module, the yaml and ``benchmark=`` on the command line.
        labels: classes in the order of confusion matrices; empty if there are none.
        view: letters of the default view.
        max_new_tokens: maximum length of an answer.
        log_probs: True if the scores need the log-probabilities of the options.
        published: results of papers, see ``read_peers``.
    """

    name: ClassVar[str]
    labels: tuple[str, ...] = ()
    view: str = "VAF"
    max_new_tokens: int = 64
    log_probs: bool = False
    published: tuple[PublishedResult, ...] = ()

    @abstractmethod
    def questions(self) -> list[Question]:
        """Read all questions in order.

        Raises:
            ValueError: the layout or an annotation is invalid; the message names file, line, key and cure.
        """

    @abstractmethod
    def parse(self, prediction: Prediction) -> tuple[Any, str]:
        """Parse an answer and name the rule that matched; ``(None, "invalid")`` without a match.

        Benchmarks with labels or options return one of them.
        """

    @abstractmethod
    def scores(self, predictions: Sequence[Prediction]) -> list[Score]:
        """Compute all scores, the most important one first. A failed generation counts as wrong."""

    def parse_reference(self, prediction: Prediction) -> Any:
        """Return the reference in the form that ``parse`` returns."""
        return prediction.reference

    def follow_up(self, question: Question, answer: str) -> str | None:
        """Build the prompt of the second turn from the first answer; ``None`` (default) for a single turn."""
        return None

    def data_options(self) -> dict[str, Any]:
        """Return the options that ``questions`` has read from the data; the evaluation's config holds them.

        A report builds the benchmark from that config, without the data.
        """
        return {}

    def protocol(self) -> dict[str, str]:
        """Describe every option that affects a score: folds, parser, prompting, judge."""
        return {}


def score_unanswered(benchmark: Benchmark, questions: Sequence[Question], log_probs: bool) -> list[Score]:
    """Return the scores of questions that nobody has answered: their names and directions.

    Args:
        benchmark: of the questions.
        questions: all of them.
        log_probs: whether answers would have log-probabilities of their options.
    """
    predictions = []
    for question in questions:
        values = (0.0,) * len(question.options or "yn") if log_probs else ()
        fields: Mapping[str, Any] = {"options": question.options, "meta": question.meta, "log_probs": values}
        prediction = Prediction(benchmark.name, question.id, question.group, "", question.reference, None, **fields)
        predictions.append(prediction)
    return benchmark.scores(predictions)


def unzip(predictions: Sequence[Prediction]) -> tuple[list[str], list[Any], list[str]]:
    """Return ids, references and answers without reasoning (``""`` where generation failed or was cut)."""
    ids, references, answers = [], [], []
    for prediction in predictions:
        ids.append(prediction.id)
        references.append(prediction.reference)
        answers.append(final_answer(prediction.answer) or "")
    return ids, references, answers


def check_choices(**options: tuple[str, Collection[str]]) -> None:
    """Check options: name -> value and allowed values.

    Raises:
        ValueError: a value is not allowed.
    """
    for name, (value, allowed) in options.items():
        if value not in allowed:
            raise ValueError(f"{name}={value}: choose from {', '.join(allowed)}.")


def check_subset(name: str, values: str | Sequence[str], allowed: Sequence[str]) -> tuple[str, ...]:
    """Check an option with several values, or a single one without brackets; return the values.

    Raises:
        ValueError: there is no value, or one is not allowed or duplicated.

    >>> check_subset("splits", "test-clean", ("test-clean", "test-other"))
    ('test-clean',)
    """
    values = as_tuple(values)
    if not values or set(values) - set(allowed) or len(set(values)) < len(values):
        raise ValueError(f"{name}={list(values)}: choose from {', '.join(allowed)}, each once.")
    return values


def as_tuple(values: str | Sequence[str]) -> tuple[str, ...]:
    """Return the values of an option that may be a single text."""
    return (values,) if isinstance(values, str) else tuple(values)


def get_value(entry: Any, key: str) -> Any:
    """Return a value of a JSON object; ``None`` if the key is missing or the entry is not an object."""
    return entry.get(key) if isinstance(entry, Mapping) else None


def check_unique_ids(questions: Sequence[Question], location: str) -> list[Question]:
    """Check that the ids of questions are unique; return the questions.

    Raises:
        ValueError: an id is duplicated, or there is no question.
    """
    if not questions:
        raise ValueError(
            f"{location}: there are no questions: the annotation is empty, or no media file exists and all questions "
            "were skipped (missing_media=skip)."
        )
    places: dict[str, str] = {}
    for question in questions:
        place = question.record.location
        if question.id in places:
            first = places[question.id]
            raise ValueError(f"{location}: the id {question.id!r} is duplicated ({first} and {place}); remove one.")
        places[question.id] = place
    return list(questions)
