"""Fixed replies instead of a judge: cases worked out by hand, and shipped examples."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

from omnihuman.judge.base import Item, Judge, Missing, Protocol, Verdict
from omnihuman.judge.cache import canonical_json


class ReplayJudge(Judge):
    """Items -> their replies in a file.

    A line of the file is ``{"protocol": name, "item": {...}, "reply": {...} or text or null}``. Null is a failed
    judgement, a text is parsed like any judge's reply. Replies of a real judge are replayed from its cache
    (``mode=cache_only``).

    Args:
        file: JSON lines.

    Raises:
        ValueError: a line is invalid, or an item is duplicated; the message names file and line.
    """

    offline: ClassVar[bool] = True
    id = "offline-replay"

    def __init__(self, file: str | Path) -> None:
        super().__init__()
        self.file = Path(file)
        if not self.file.is_file():
            raise ValueError(f"{file}: there is no such file; expected JSON lines of replies.")
        self.replies: dict[str, Any] = {}
        try:
            lines = self.file.read_text(encoding="utf-8-sig").split("\n")  # not splitlines: texts contain U+2028 etc.
        except UnicodeDecodeError as error:
            raise ValueError(f"{file}: save the file as UTF-8 ({error}).") from error
        for number, line in enumerate(lines, start=1):
            if line.strip():
                self._add(line, f"{file}:{number}")

    def query(self, protocol: Protocol, items: Sequence[Item], repeat: int = 0) -> list[Verdict | None]:
        """Judge items in order; ``None`` where the file has null.

        Raises:
            ValueError: the file has no reply for an item, or an invalid one.
        """
        verdicts = [self._judge(protocol, item) for item in items]
        self.ledger.add(verdicts)
        missing = Missing("no_reply", "null in the file")
        self.absences = [missing if verdict is None else None for verdict in verdicts]
        return verdicts

    def _judge(self, protocol: Protocol, item: Item) -> Verdict | None:
        key = canonical_json([protocol.name, item])
        text = canonical_json(item)
        if key not in self.replies:
            raise ValueError(f"{self.file} has no reply of {protocol.name} for {text:.200}; add the line.")
        reply = self.replies[key]
        if reply is None:
            self.ledger.add_missing("null in the file")
            return None
        raw = reply if isinstance(reply, str) else canonical_json(reply)
        try:
            return Verdict(protocol.parse_reply(raw, item), raw, model=self.id)
        except ValueError as error:
            reason = " ".join(str(error).split())
            raise ValueError(f"{self.file}: the reply of {protocol.name} for {text:.200}: {reason}") from error

    def _add(self, line: str, location: str) -> None:
        try:
            raw = json.loads(line)
            key, reply = canonical_json([raw["protocol"], raw["item"]]), raw["reply"]
        except (ValueError, TypeError, KeyError) as error:
            raise ValueError(f"{location}: a line must have the keys protocol, item and reply ({error}).") from error
        if key in self.replies:
            raise ValueError(f"{location}: this item is duplicated; remove one of the lines.")
        self.replies[key] = reply
