"""Replies that are known: from the records of the clips that a judge is asked about."""

import json
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from omnihuman.judge.base import Item, Judge, Missing, Protocol, Verdict

Script = Mapping[str, Mapping[str, Mapping[str, Any]]]


class ScriptedJudge(Judge):
    """Items with the records of their clip -> replies whose fields are answers of these records, or constants.

    Args:
        replies: protocol -> field -> ``{tasks: [...]}``, the answer of the first record of the first task that the clip
            has, or ``{value: ...}``.
    """

    offline: ClassVar[bool] = True
    id = "scripted"

    def __init__(self, replies: Script) -> None:
        super().__init__()
        self.replies = replies

    def query(self, protocol: Protocol, items: Sequence[Item], repeat: int = 0) -> list[Verdict | None]:
        if protocol.name not in self.replies:
            raise ValueError(f"judge scripted: replies has no {protocol.name}; it has {', '.join(self.replies)}.")
        verdicts = [self._reply(protocol, item) for item in items]
        self.ledger.add(verdicts)
        missing = Missing("no_reply", "no record of the clip has an answer")
        self.absences = [missing if verdict is None else None for verdict in verdicts]
        for _ in filter(None, self.absences):
            self.ledger.add_missing(missing.reason)
        return verdicts

    def _reply(self, protocol: Protocol, item: Item) -> Verdict | None:
        answers: dict[str, str] = {}
        for text in item["records"]:
            record = json.loads(text)
            answers.setdefault(record.get("task"), record["conversations"][-1]["value"])
        reply: dict[str, Any] = {}
        for field, rule in self.replies[protocol.name].items():
            tasks = [task for task in rule.get("tasks", ()) if task in answers]
            if "value" in rule:
                reply[field] = rule["value"]
            elif tasks:
                reply[field] = answers[tasks[0]]
            else:
                return None
        text = json.dumps(reply, ensure_ascii=False)
        return Verdict(protocol.parse_reply(text, item), text, model=self.id)
