"""Word-counting rules instead of a judge: for tests and dry runs, never for a table of a paper."""

import re
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

from omnihuman.judge.base import Item, Judge, Protocol, Verdict
from omnihuman.judge.protocols import GROUPING, PROTOCOLS, SAME_PERSON

Grouping = Callable[[Sequence[str]], Sequence[Sequence[str]]]

_STOP_WORDS = """
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
STOP_WORDS = frozenset(_STOP_WORDS.split())
EMOTIONS = tuple(_EMOTIONS.split())
"""Words that are labels in free text."""


class RuleJudge(Judge):
    """Items -> verdicts by counting words; equal on every machine, and no measure of quality.

    Each sentence is an event. An event is entailed by a text that contains most of its content words. Scores are the F1
    of content words, scaled to the range of the protocol. Labels are the items of a list with commas, else the emotion
    words of the text.

    Args:
        groups: labels -> groups of synonyms; ``None``: every label is a group of its own.
        min_overlap: share of an event's content words that a text must contain to entail it, and F1 of the words of two
            descriptions from which they are of one person.

    >>> from omnihuman.judge.protocols import VIDEO_CHATGPT
    >>> item = {"question": "What happens?", "reference": "A man waves.", "answer": "The man waves!"}
    >>> RuleJudge().query(VIDEO_CHATGPT["detail"], [item])[0].reply.score
    5
    """

    offline: ClassVar[bool] = True
    id = "offline-rule"

    def __init__(self, groups: Grouping | None = None, min_overlap: float = 0.6) -> None:
        super().__init__()
        self.groups, self.min_overlap = groups, min_overlap

    def query(self, protocol: Protocol, items: Sequence[Item], repeat: int = 0) -> list[Verdict | None]:
        """Judge items in order.

        Raises:
            ValueError: there is no rule for this protocol.
        """
        if protocol.name not in PROTOCOLS:
            raise ValueError(f"{self.id} has no rule for {protocol.name!r}; expected one of {', '.join(PROTOCOLS)}.")
        verdicts: list[Verdict | None] = []
        for item in items:
            text = protocol.schema.model_validate(self._reply(protocol, item)).model_dump_json()
            verdicts.append(Verdict(protocol.parse_reply(text, item), text, model=self.id))
        self.ledger.add(verdicts)
        return verdicts

    def _reply(self, protocol: Protocol, item: Item) -> dict[str, Any]:
        if protocol.name.startswith("video_chatgpt_"):
            answer = content_words(item["answer"])
            consistency = word_f1(answer, content_words(item.get("other_answer", item["answer"])))
            return {"score": round(5 * min(consistency, word_f1(content_words(item["reference"]), answer)))}
        if protocol.name == "autodq_events":
            return {"events": split_sentences(item["text"])[:10]}
        if protocol.name == "autodq_entailment":
            return {"events": [self._relation(event, item["text"]) for event in item["events"]]}
        if protocol.name in ("emer_clue", "emer_label_overlap"):
            share = word_f1(content_words(_join(item["reference"])), content_words(_join(item["answer"])))
            return {"reason": f"F1 of words {share:.2f}", "score": 1 + round(9 * share)}
        if protocol.name == SAME_PERSON.name:
            share = word_f1(content_words(item["first"]), content_words(item["second"]))
            return {"reason": f"F1 of words {share:.2f}", "same": share >= self.min_overlap}
        if protocol.name == GROUPING.name:
            labels = list(item["labels"])
            return {"groups": self.groups(labels) if self.groups else [[label] for label in labels]}
        return {"labels": extract_labels(item["text"])}

    def _relation(self, event: str, text: str) -> dict[str, str]:
        words = set(content_words(event))
        share = len(words & set(content_words(text))) / max(1, len(words))
        relation = "entailment" if words and share >= self.min_overlap else "neutral"
        return {"event": event, "relationship": relation, "reason": f"{share:.2f} of its words"}


def content_words(text: str) -> list[str]:
    """Return the words of a text without stop words.

    >>> content_words("The man's sad.")
    ["man's", 'sad']
    """
    return [word for word in re.findall(r"\w+(?:'\w+)?", text.lower()) if word not in STOP_WORDS]


def split_sentences(text: str) -> list[str]:
    """Split a text into sentences without final punctuation; sentences without content words are dropped."""
    sentences = re.split(r"(?<=[.!?;])\s+|\n+", text)
    return [sentence.strip(" .!?;\n") for sentence in sentences if content_words(sentence)]


def extract_labels(text: str) -> list[str]:
    """Return the labels of a list with commas, or else the emotion words of a text; unique.

    >>> extract_labels("Angry, very sad"), extract_labels("She looks happy and waves.")
    (['angry', 'very sad'], ['happy'])
    """
    parts = [part.strip(" .[]'\"").lower() for part in re.split(r"[,;\n]|\band\b", text)]
    if all(len(part.split()) <= 2 for part in parts):
        return list(dict.fromkeys(filter(None, parts)))
    return list(dict.fromkeys(word for word in content_words(text) if word in EMOTIONS))


def word_f1(reference: Sequence[str], answer: Sequence[str]) -> float:
    """Return the F1 of the common words of two texts, counted with multiplicity; 1 if both are empty.

    >>> word_f1(["sad", "man"], ["sad"])
    0.6666666666666666
    """
    if not reference and not answer:
        return 1.0
    common = (Counter(reference) & Counter(answer)).total()
    return 2 * common / (len(reference) + len(answer))


def _join(texts: str | Sequence[str]) -> str:
    return texts if isinstance(texts, str) else " ".join(texts)
