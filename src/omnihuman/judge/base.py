"""Judges: items of a protocol in, validated replies out."""

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from pydantic import BaseModel

from omnihuman.judge.media import Media, Show

Item = Mapping[str, Any]
"""Values of the placeholders in a protocol's prompt: texts and lists; and media, or lists of them, which precede it."""

UNSUPPORTED_KEYS = {"title", "description", "default", "minimum", "maximum", "minItems", "maxItems"}
"""Keys that some endpoints reject in a strict schema (Azure rejects limits). The prompt states the limits, and replies
are validated against the full schema."""


@dataclass(frozen=True)
class Protocol:
    """A kind of question for a judge and the schema of its reply.

    Attributes:
        name: key in the cache and in tables.
        version: increased with every change of a prompt, so that cached judgements of the old prompt are not used.
        system: system prompt: the task and the form of the reply. It mentions JSON, which ``json_object`` requires.
        user: user prompt, with ``{placeholders}`` of the item.
        schema: of the reply.
        check: (reply, item) -> the reply, corrected where possible; a ``ValueError`` if it does not fit the item.
    """

    name: str
    version: str
    system: str
    user: str
    schema: type[BaseModel]
    check: Callable[[Any, Item], Any] | None = None

    def build_messages(self, item: Item, show: Show = Media.build_part) -> list[dict[str, Any]]:
        """Build the chat for an item; lists are formatted as JSON, and media are parts before the text.

        Args:
            item: values of the prompt.
            show: makes the part of each media.
        """
        values, parts = dict[str, str](), list[dict[str, Any]]()
        for key, value in item.items():
            media = list_media(value)
            if media:
                parts += map(show, media)
            else:
                values[key] = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        text = self.user.format(**values)
        content = [*parts, {"type": "text", "text": text}] if parts else text
        return [{"role": "system", "content": self.system}, {"role": "user", "content": content}]

    def json_schema(self) -> dict[str, Any]:
        """Build the reply's schema for strict endpoints."""
        schema: dict[str, Any] = _strip_schema(self.schema.model_json_schema())
        return schema

    def parse_reply(self, text: str, item: Item) -> Any:
        """Parse and validate a judge's reply: JSON, or text that can be repaired (fences, prose, Python's quotes).

        Raises:
            ValueError: the text has no JSON, or violates the schema or the check.
        """
        from json_repair import loads

        text = text.rpartition("</think>")[2]  # open reasoning models prepend their reasoning
        try:
            raw = json.loads(text)
        except RecursionError:
            raise ValueError("the brackets are nested too deeply") from None
        except ValueError:
            raw = loads(text)
        reply = self.schema.model_validate(raw)
        return self.check(reply, item) if self.check else reply


@dataclass(frozen=True)
class Verdict:
    """A judge's reply to an item.

    Attributes:
        reply: validated, an instance of the protocol's schema.
        text: raw reply.
        is_cached: True if the reply comes from the cache.
        model: that replied, according to the endpoint.
    """

    reply: Any
    text: str = ""
    is_cached: bool = False
    model: str = ""


@dataclass(frozen=True)
class Missing:
    """The reason for which an item has no verdict.

    Attributes:
        why: a code that is counted: ``timeout``, ``no_connection``, ``server_error``, ``invalid_reply``, ``rejected``,
            ``skipped``, ``not_cached`` or ``no_reply``.
        reason: in words.
        sample: beginning of an invalid reply.
    """

    why: str
    reason: str
    sample: str = ""

    def __str__(self) -> str:
        return f"{self.reason}: {self.sample}" if self.sample else self.reason


@dataclass
class Ledger:
    """Cost and outcome of judging.

    Attributes:
        num_items: items in total.
        num_judged: items with a verdict.
        num_cached: items with a verdict from the cache, or from an equal item in the same call.
        num_calls: requests, retries included.
        tokens_in: prompt tokens of these requests, as far as the endpoint reports them.
        tokens_out: reply tokens.
        seconds: from the first request to the last reply.
        missing: reason -> number of items without a verdict.
        models: model reported by the endpoint -> number of items; several models mean that the judge has changed.
        spread: protocol -> standard deviation of the mean score over the repeats, on items judged in all of them.
    """

    num_items: int = 0
    num_judged: int = 0
    num_cached: int = 0
    num_calls: int = 0
    tokens_in: int = 0
    tokens_out: int = 0
    seconds: float = 0.0
    missing: dict[str, int] = field(default_factory=dict)
    models: dict[str, int] = field(default_factory=dict)
    spread: dict[str, float] = field(default_factory=dict)

    @property
    def coverage(self) -> float:
        """The share of items with a verdict."""
        return self.num_judged / max(1, self.num_items)

    def add(self, verdicts: Sequence[Verdict | None]) -> None:
        """Add the outcome of a call."""
        self.num_items += len(verdicts)
        for verdict in verdicts:
            if verdict is not None:
                self.num_judged += 1
                self.models[verdict.model] = self.models.get(verdict.model, 0) + 1

    def add_missing(self, reason: str) -> None:
        """Add an item without a verdict."""
        self.missing[reason] = self.missing.get(reason, 0) + 1


class Judge(ABC):
    """Scores, splits, compares and groups texts where rules do not suffice.

    Attributes:
        id: model and sampling, for table headings; scores of different judges are never in the same column.
        offline: True for stand-ins without a language model; comparisons with papers omit their scores.
        repeats: number of judgements per item whose mean is the score.
        ledger: of all queries so far.
        absences: reasons of the last query's items, in their order; ``None`` for those with a verdict.
        note_call: called before every request, in the thread that sends it, so that a call is counted that a kill
            interrupts.
    """

    offline: ClassVar[bool] = False
    id: str
    repeats: int = 1

    def __init__(self) -> None:
        self.ledger = Ledger()
        self.absences: list[Missing | None] = []
        self.note_call: Callable[[], None] = lambda: None

    @property
    def dollars(self) -> float | None:
        """The cost of all queries so far; ``None`` if the price is unknown."""
        return 0.0

    @abstractmethod
    def query(self, protocol: Protocol, items: Sequence[Item], repeat: int = 0) -> list[Verdict | None]:
        """Judge items in order; ``None`` where the judge failed: the item is missing, not 0.

        Args:
            protocol: prompt and schema.
            items: to judge.
            repeat: number of the repeat; each has its own sample.
        """


def list_media(value: Any) -> list[Media]:
    """Return the media of an item's value, none of a text or a list of texts."""
    if isinstance(value, Media):
        return [value]
    return [entry for entry in value if isinstance(entry, Media)] if isinstance(value, list | tuple) else []


def _strip_schema(node: Any) -> Any:
    """Remove the unsupported keys of a JSON schema."""
    if isinstance(node, list):
        return [_strip_schema(child) for child in node]
    if not isinstance(node, dict):
        return node
    schema = {}
    for key, value in node.items():
        if key in ("properties", "$defs"):  # their keys are names of fields, which may equal a keyword
            schema[key] = {name: _strip_schema(child) for name, child in value.items()}
        elif key not in UNSUPPORTED_KEYS:
            schema[key] = _strip_schema(value)
    return schema
