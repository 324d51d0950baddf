"""Replies that are known: from the built-in corpus' truth, or from the records of the clips that a judge gets."""

import json
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from omnihuman.corpus.replies import REPLIES, reply
from omnihuman.judge.base import Item, Judge, Missing, Protocol, Verdict

Script = Mapping[str, Mapping[str, Mapping[str, Any]]]


class ScriptedJudge(Judge):
    """Items with the records of their clip -> replies, from the truth about the scenes of the built-in corpus.

    Args:
        replies: for clips that are not of the corpus: protocol -> field -> ``{tasks: [...]}``, the answer of the first
            record of the first task that the clip has, or ``{value: ...}``. These replies take precedence.
        seed: of the corpus.
    """

    offline: ClassVar[bool] = True
    id = "scripted"

    def __init__(self, replies: Script | None = None, seed: int = 0) -> None:
        super().__init__()
        self.replies, self.seed = replies or {}, seed

    def query(self, protocol: Protocol, items: Sequence[Item], repeat: int = 0) -> list[Verdict | None]:
        known = dict.fromkeys([*self.replies, *REPLIES])
        if protocol.name not in known:
            raise ValueError(f"judge scripted: replies has no {protocol.name}; it has {', '.join(known)}.")
        verdicts = [self._reply(protocol, item, repeat) for item in items]
        self.ledger.add(verdicts)
        missing = Missing("no_reply", "no record of the clip has an answer")
        self.absences = [missing if verdict is None else None for verdict in verdicts]
        for _ in filter(None, self.absences):
            self.ledger.add_missing(missing.reason)
        return verdicts

    def _reply(self, protocol: Protocol, item: Item, repeat: int) -> Verdict | None:
        if protocol.name in self.replies:
            fields = _read_records(self.replies[protocol.name], item["records"])
        else:
            fields = reply(protocol.name, item, self.seed, repeat)
        if fields is None:
            return None
        text = json.dumps(fields, ensure_ascii=False)
        return Verdict(protocol.parse_reply(text, item), text, model=self.id)


def _read_records(rules: Mapping[str, Mapping[str, Any]], records: Sequence[str]) -> dict[str, Any] | None:
    """Return the fields of a reply by their rules, ``None`` if no record has an answer for one of them."""
    answers: dict[str, str] = {}
    for text in records:
        record = json.loads(text)
        answers.setdefault(record.get("task"), record["conversations"][-1]["value"])
    fields: dict[str, Any] = {}
    for field, rule in rules.items():
        tasks = [task for task in rule.get("tasks", ()) if task in answers]
        if "value" in rule:
            fields[field] = rule["value"]
        elif tasks:
            fields[field] = answers[tasks[0]]
        else:
            return None
    return fields
