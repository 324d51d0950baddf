"""Canned replies in the place of a judge: cases worked out by hand, and examples that ship."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

from omnihuman.judge.base import Item, Judge, Protocol, Verdict
from omnihuman.judge.cache import compact


class ReplayJudge(Judge):
    """Texts -> the replies that a file gives for them.

    A line of the file is ``{"protocol": name, "item": {...}, "reply": {...} or text or null}``: null is a judge that
    failed, a text is read like any judge's. What a real judge said is replayed by its cache (``mode=cache_only``).

    Args:
        file: JSON lines.

    Raises:
        ValueError: a line is none of these, or an item is there twice; file and line are named.
    """

    offline: ClassVar[bool] = True
    id = "offline-replay"

    def __init__(self, file: str | Path) -> None:
        super().__init__()
        self.file = Path(file)
        if not self.file.is_file():
            raise ValueError(f"{file}: there is no such file of canned replies.")
        self.canned: dict[str, Any] = {}
        try:
            lines = self.file.read_text(encoding="utf-8-sig").split("\n")  # texts may hold other ends of lines
        except UnicodeDecodeError as error:
            raise ValueError(f"{file}: save the file as UTF-8 ({error}).") from error
        for number, line in enumerate(lines, start=1):
            if line.strip():
                self._add(line, f"{file}:{number}")

    def ask(self, protocol: Protocol, items: Sequence[Item], repeat: int = 0) -> list[Verdict | None]:
        """A verdict on each item, in order; ``None`` where the file says null.

        Raises:
            ValueError: the file has no reply for an item, or one that does not hold the protocol.
        """
        verdicts: list[Verdict | None] = []
        for item in items:
            key = compact([protocol.name, item])
            if key not in self.canned:
                raise ValueError(f"{self.file} has no reply of {protocol.name} for {compact(item):.200}; add the line.")
            reply = self.canned[key]
            if reply is None:
                self.ledger.miss("null in the file")
                verdicts.append(None)
                continue
            text = reply if isinstance(reply, str) else compact(reply)
            try:
                verdicts.append(Verdict(protocol.read(text, item), text, model=self.id))
            except ValueError as error:
                why = " ".join(str(error).split())
                raise ValueError(
                    f"{self.file}: the reply of {protocol.name} for {compact(item):.200}: {why}"
                ) from error
        self.ledger.count(verdicts)
        return verdicts

    def _add(self, line: str, where: str) -> None:
        try:
            raw = json.loads(line)
            key, reply = compact([raw["protocol"], raw["item"]]), raw["reply"]
        except (ValueError, TypeError, KeyError) as error:
            raise ValueError(f"{where}: a line has the keys protocol, item and reply ({error}).") from error
        if key in self.canned:
            raise ValueError(f"{where}: this item is there twice; keep one line.")
        self.canned[key] = reply
