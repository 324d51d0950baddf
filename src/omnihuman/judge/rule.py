"""Plain rules in the place of a judge: for tests and dry runs, never for a paper's table."""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any, ClassVar

from pydantic import BaseModel

from omnihuman.judge.base import Item, Judge, Protocol, Verdict
from omnihuman.judge.protocols import GROUPING, PROTOCOLS

Grouping = Callable[[Sequence[str]], Sequence[Sequence[str]]]

_EMPTY = """
a an and are as at be been being but by can could did do does for from had has have he her hers him his i if in
into is it its may not of on or our she should so some such than that the their them then there they this those
to was we were what when which while who will with would you your
"""
_EMOTIONS = """
afraid amused angry anger anxious anxiety ashamed awkward bored calm confused contempt contemptuous curious
depressed disappointed disappointment disgust disgusted embarrassed excited fear fearful frightened frustrated
furious grateful happy happiness helpless helplessness hopeful impatient joy joyful lonely nervous neutral proud
relaxed sad sadness satisfied serious shocked shy surprise surprised tense tired upset worried
"""
EMPTY = frozenset(_EMPTY.split())
"""Words that tell nothing."""

EMOTIONS = tuple(_EMOTIONS.split())
"""Words that count as labels in a free text."""


class RuleJudge(Judge):
    """Texts -> verdicts by counting words; the same on every machine, and no measure of quality.

    A sentence is an event; an event is entailed where a text has most of its words that tell something; scores stretch
    the F1 of words over their scale; labels are what stands between commas, else words of a list.

    Args:
        groups: labels -> groups of one meaning; ``None``: every label stands alone.
        contained: share of an event's words that a text must have to entail it.

    >>> from omnihuman.judge.protocols import VIDEO_CHATGPT
    >>> item = {"question": "What happens?", "truth": "A man waves.", "answer": "The man waves!"}
    >>> RuleJudge().ask(VIDEO_CHATGPT["detail"], [item])[0].reply.score
    5
    """

    offline: ClassVar[bool] = True
    id = "offline-rule"

    def __init__(self, groups: Grouping | None = None, contained: float = 0.6) -> None:
        super().__init__()
        self.groups, self.contained = groups, contained

    def ask(self, protocol: Protocol, items: Sequence[Item], repeat: int = 0) -> list[Verdict | None]:
        """A verdict on each item, in order.

        Raises:
            ValueError: no rule answers this protocol.
        """
        if protocol.name not in PROTOCOLS:
            raise ValueError(f"{self.id} has no rule for {protocol.name!r}; it knows {', '.join(PROTOCOLS)}.")
        verdicts: list[Verdict | None] = []
        for item in items:
            text = protocol.schema.model_validate(self._rule(protocol, item)).model_dump_json()
            verdicts.append(Verdict(protocol.read(text, item), text, model=self.id))
        self.ledger.count(verdicts)
        return verdicts

    def _rule(self, protocol: Protocol, item: Item) -> dict[str, Any] | BaseModel:
        if protocol.name.startswith("video_chatgpt_"):
            twice = f1(words(item["answer"]), words(item.get("other_answer", item["answer"])))
            return {"score": round(5 * min(twice, f1(words(item["truth"]), words(item["answer"]))))}
        if protocol.name == "autodq_events":
            return {"events": sentences(item["text"])[:10]}
        if protocol.name == "autodq_entailment":
            return {"events": [self._relation(event, item["text"]) for event in item["events"]]}
        if protocol.name in ("emer_clue", "emer_label_overlap"):
            share = f1(*(words(item[side] if isinstance(item[side], str) else " ".join(item[side]))
                         for side in ("truth", "answer")))  # fmt: skip
            return {"reason": f"F1 of words {share:.2f}", "score": 1 + round(9 * share)}
        if protocol.name == GROUPING.name:
            labels = list(item["labels"])
            return {"groups": self.groups(labels) if self.groups else [[label] for label in labels]}
        return {"labels": labels_in(item["text"])}

    def _relation(self, event: str, text: str) -> dict[str, str]:
        told, known = set(words(event)), set(words(text))
        share = len(told & known) / max(1, len(told))
        relation = "entailment" if told and share >= self.contained else "neutral"
        return {"event": event, "relationship": relation, "reason": f"{share:.2f} of its words"}


def words(text: str) -> list[str]:
    """The words of a text that tell something.

    >>> words("The man's sad.")
    ["man's", 'sad']
    """
    return [word for word in re.findall(r"\w+(?:'\w+)?", text.lower()) if word not in EMPTY]


def sentences(text: str) -> list[str]:
    """The sentences of a text, without their stops."""
    return [one.strip(" .!?;\n") for one in re.split(r"(?<=[.!?;])\s+|\n+", text) if words(one)]


def labels_in(text: str) -> list[str]:
    """The labels of a list with commas, or the emotion words of a text, each once.

    >>> labels_in("Angry, very sad"), labels_in("She looks happy and waves.")
    (['angry', 'very sad'], ['happy'])
    """
    parts = [part.strip(" .[]'\"").lower() for part in re.split(r"[,;\n]|\band\b", text)]
    if all(len(part.split()) <= 2 for part in parts):
        return _once(part for part in parts if part)
    return _once(word for word in words(text) if word in EMOTIONS)


def f1(truth: Sequence[str], answer: Sequence[str]) -> float:
    """The F1 of words that two texts share, as often as both have them; 1 where neither has any.

    >>> f1(["sad", "man"], ["sad"])
    0.6666666666666666
    """
    shared = sum((Counter(truth) & Counter(answer)).values())
    return 2 * shared / (len(truth) + len(answer)) if truth or answer else 1.0


def _once(labels: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(labels))
