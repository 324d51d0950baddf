"""What a judge is: questions in the words of a protocol go in, checked replies come out, or nothing."""

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from pydantic import BaseModel

Item = Mapping[str, Any]
"""What one question is about, by the names that the protocol's words use: texts and lists."""

LIMITS = {"title", "description", "default", "minimum", "maximum", "minItems", "maxItems"}
"""Keys that not every endpoint takes in a strict schema (Azure refuses limits); the prompt and the check hold them."""


@dataclass(frozen=True)
class Protocol:
    """One kind of question and the form of its reply.

    Attributes:
        name: stands in the cache and in tables.
        version: raised with every change of the words; the cache then asks anew.
        system: the task and the form of the reply; says JSON, without which ``json_object`` is refused.
        user: what it is about, with ``{names}`` of the item.
        schema: of the reply.
        check: (reply, item) -> the reply, mended where it may be; a ``ValueError`` where it does not fit the item.
    """

    name: str
    version: str
    system: str
    user: str
    schema: type[BaseModel]
    check: Callable[[Any, Item], Any] | None = None

    def messages(self, item: Item) -> list[dict[str, str]]:
        """The chat that asks about an item; lists stand in it as JSON."""
        words = {k: v if isinstance(v, str) else json.dumps(v, ensure_ascii=False) for k, v in item.items()}
        return [{"role": "system", "content": self.system}, {"role": "user", "content": self.user.format(**words)}]

    def json_schema(self) -> dict[str, Any]:
        """The reply's schema as strict endpoints take it."""
        bare: dict[str, Any] = _bare(self.schema.model_json_schema())
        return bare

    def read(self, text: str, item: Item) -> Any:
        """The reply in a judge's words: JSON, or what can be mended to it (fences, prose around, Python's quotes).

        Raises:
            ValueError: there is none in it, or it does not hold the schema or the check.
        """
        from json_repair import loads

        said = text.rpartition("</think>")[2]  # open models think aloud
        try:
            found = json.loads(said)
        except RecursionError:
            raise ValueError("brackets without end") from None
        except ValueError:
            found = loads(said)
        reply = self.schema.model_validate(found)
        return self.check(reply, item) if self.check else reply


@dataclass(frozen=True)
class Verdict:
    """What a judge said about an item.

    Attributes:
        reply: checked, of the protocol's schema.
        text: in its own words.
        cached: whether it was said before.
        model: which the endpoint says answered.
    """

    reply: Any
    text: str = ""
    cached: bool = False
    model: str = ""


@dataclass
class Ledger:
    """What judging took and how much of it came to something.

    Attributes:
        asked: items.
        judged: items with a verdict.
        hits: items that the cache, or an equal item beside them, answered.
        calls: requests sent, repeated ones too.
        tokens_in: of the prompts of these calls, as far as the endpoint says.
        tokens_out: of the replies.
        seconds: from the first question to the last reply.
        missing: reason -> items without a verdict.
        served: model that the endpoint says answered -> items; several are a judge that changed.
        spread: score -> standard deviation of its figure over the repeats, on the items that all of them judged.
    """

    asked: int = 0
    judged: int = 0
    hits: int = 0
    calls: int = 0
    tokens_in: int = 0
    tokens_out: int = 0
    seconds: float = 0.0
    missing: dict[str, int] = field(default_factory=dict)
    served: dict[str, int] = field(default_factory=dict)
    spread: dict[str, float] = field(default_factory=dict)

    @property
    def coverage(self) -> float:
        """The share of the items that have a verdict."""
        return self.judged / max(1, self.asked)

    def count(self, verdicts: Sequence[Verdict | None]) -> None:
        """Enter the outcome of a few questions."""
        self.asked += len(verdicts)
        for verdict in verdicts:
            if verdict is not None:
                self.judged += 1
                self.served[verdict.model] = self.served.get(verdict.model, 0) + 1

    def miss(self, reason: str, items: int = 1) -> None:
        """Enter why items have no verdict."""
        self.missing[reason] = self.missing.get(reason, 0) + items


class Judge(ABC):
    """Scores, splits, compares and groups texts, where rules alone cannot.

    Attributes:
        id: who judges and how, for the heads of tables; figures of two judges never stand in one column.
        offline: whether it only plays a judge, so that tables of papers leave its figures out.
        repeats: how often scores ask, to mean over.
        ledger: of everything asked so far.
    """

    offline: ClassVar[bool] = False
    id: str
    repeats: int = 1

    def __init__(self) -> None:
        self.ledger = Ledger()

    @property
    def dollars(self) -> float | None:
        """What everything asked so far cost; ``None`` where the price is not known."""
        return 0.0

    @abstractmethod
    def ask(self, protocol: Protocol, items: Sequence[Item], repeat: int = 0) -> list[Verdict | None]:
        """A verdict on each item, in order; ``None`` where the judge failed: missing, which is never a score of 0.

        Args:
            protocol: the question.
            items: what to ask about.
            repeat: which time; another one is asked anew.
        """


def _bare(node: Any) -> Any:
    if isinstance(node, dict):
        # below `properties` keys are names of fields, not words of the schema
        kept = {k: v for k, v in node.items() if k not in LIMITS}
        return {
            key: {name: _bare(one) for name, one in value.items()} if key in ("properties", "$defs") else _bare(value)
            for key, value in kept.items()
        }
    return [_bare(one) for one in node] if isinstance(node, list) else node
