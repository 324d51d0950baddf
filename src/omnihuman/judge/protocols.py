"""The questions that judges are asked, in our words: what each wants, and the form of its reply.

Change a word and raise its version: old judgements then stay in the cache, and new ones are asked for.
"""

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from omnihuman.judge.base import Item, Protocol


def _whole(value: Any) -> Any:
    if isinstance(value, bool) or value in (math.inf, -math.inf):
        raise ValueError("a score is a finite number")
    return int(float(value)) if isinstance(value, str | float) else value  # as the official code's int(): 4.8 is 4


def _first_number(value: Any) -> Any:
    """The official reading of a score in words: `8-9` and `8/10` are 8."""
    if isinstance(value, bool):
        raise ValueError("a score is a number")
    number = re.search(r"\d+(\.\d+)?", value) if isinstance(value, str) else None
    return float(number[0]) if number else value


class Reply(BaseModel):
    """What every reply has in common: no keys but its own are asked for, as strict schemas want it; others are left."""

    model_config = ConfigDict(extra="ignore", json_schema_extra={"additionalProperties": False})


class Points(Reply):
    """0 to 5."""

    score: Annotated[Literal[0, 1, 2, 3, 4, 5], BeforeValidator(_whole)]


class Events(Reply):
    """What happens in a text, at most ten things."""

    events: list[str] = Field(max_length=10)


class Relation(Reply):
    """Whether a description says that an event happens."""

    event: str
    relationship: Literal["entailment", "neutral", "contradiction"]
    reason: str


class Relations(Reply):
    """One relation for each event."""

    events: list[Relation]


class Overlap(Reply):
    """1 to 10, and why."""

    reason: str
    score: Annotated[float, Field(ge=1, le=10), BeforeValidator(_first_number)]


class Labels(Reply):
    """Words for emotions."""

    labels: list[str]


class Groups(Reply):
    """Labels of one meaning, side by side."""

    groups: list[list[str]]


_ASPECTS = {
    "correctness": """how far the facts in it are right.
- Compare persons, actions, objects and expressions with the reference.
- Other words for the same fact are right; a fact that the reference contradicts, or that is made up, is wrong.
- What it leaves out does not matter here unless the rest misleads without it.""",
    "detail": """how much of the reference it covers, and how precisely.
- Look for every main point of the reference: what is missing costs points.
- Precise statements earn more than general ones that fit any video.
- Further details count only if the reference bears them out.""",
    "context": """whether it grasps what the video is about.
- Its topic, mood and overall sense have to agree with those of the reference.
- Single facts matter less than whether somebody would come away with the same idea of the scene.
- A faithful summary in other words is fine; one that misses the point is not.""",
    "temporal": """whether it keeps the order of time.
- What happens first, next and last has to come in the order of the reference.
- Changes (of an expression, of an action) have to go in the same direction.
- Where the reference has only one moment, ask whether the answer puts it right.""",
    "consistency": """whether the model says the same thing twice.
- It was asked about the same video in two different wordings; its two answers should agree with each other.
- Both should also agree with the reference; two answers that share one mistake do not deserve full points.
- Differences in wording are fine, differences in fact are not.""",
}
_POINTS = """
Give whole points from 0 (not at all) to 5 (fully).
Reply with nothing but JSON of this form: {"score": 3}"""
_ANSWERED = "Question: {question}\nReference answer: {truth}\nAnswer of the model: {answer}"
_ANSWERED_TWICE = (
    "First question: {question}\nSecond question: {other_question}\nReference answer: {truth}\n"
    "Answer to the first: {answer}\nAnswer to the second: {other_answer}"
)

VIDEO_CHATGPT = {
    aspect: Protocol(
        f"video_chatgpt_{aspect}",
        "1",
        f"You grade what a model answered to a question about a video that you cannot see. Judge one thing only: {what}"
        + _POINTS,
        _ANSWERED_TWICE if aspect == "consistency" else _ANSWERED,
        Points,
    )
    for aspect, what in _ASPECTS.items()
}
"""Aspect -> how much of it an answer has, 0 to 5. Items: question, truth, answer (consistency: two of each).

Reference: Video-ChatGPT's five scores (arXiv 2306.05424, section 4.1): one call an aspect, on the texts alone.
"""

EVENTS = Protocol(
    "autodq_events",
    "1",
    """You take a description of a video apart into the events that happen in it.
- An event is one action, movement or change; split what joins several.
- Leave out how things look or stand still, moods that nothing shows, and the camera.
- Write each in at most ten words, with the person or thing itself in the place of he, she, it or they.
- Keep the order of the description, at most ten events: the main ones if there are more, none if nothing happens.
Reply with nothing but JSON of this form: {"events": ["a man opens the door", "the man frowns"]}""",
    "Description: {text}",
    Events,
)
"""A text -> what happens in it. Items: text. Reference: AutoDQ (Tarsier, arXiv 2407.00634, section 4)."""


def _one_each(reply: Relations, item: Item) -> Relations:
    if len(reply.events) != len(item["events"]):
        raise ValueError(f"{len(reply.events)} relations for {len(item['events'])} events")
    return reply


ENTAILMENT = Protocol(
    "autodq_entailment",
    "1",
    """You compare a description of a video with a list of events, one by one:
- entailment: the description says so, or it follows from what it says;
- contradiction: the description says otherwise;
- neutral: neither, the description leaves it open.
Reply with nothing but JSON of this form, with every event once, in the order of the list:
{"events": [{"event": "the man frowns", "relationship": "entailment", "reason": "his brow furrows"}]}""",
    "Description: {text}\nEvents: {events}",
    Relations,
    _one_each,
)
"""A text and events -> whether it says that they happen. Items: text, events. Reference: AutoDQ."""

CLUES = Protocol(
    "emer_clue",
    "1",
    """You compare what two people noticed about the emotional state of the person in a video.
For yourself, first sum up of each description only what bears on that state: expressions, voice, words, gestures,
situation. Then say how far the two agree, from 1 (nothing in common) to 10 (the same clues to the same state).
Reply with nothing but JSON of this form: {"reason": "both name the trembling voice", "score": 6}""",
    "True description: {truth}\nPredicted description: {answer}",
    Overlap,
)
"""Two descriptions -> how far their clues to an emotion agree, 1 to 10. Items: truth, answer.

Reference: EMER's clue overlap (AffectGPT, arXiv 2306.15401). Differs from the official prompts, which are Chinese, also
for English texts: figures stand beside others of this judge only.
"""

STATES = Protocol(
    "emer_label_words",
    "1",
    """You read a description of a person in a video and name the emotional states that are most likely, in one word
each where a word will do, the most likely one first.
Example: "He slams the folder shut and raises his voice, though his hands shake." -> {"labels": ["angry", "nervous"]}
Reply with nothing but JSON of that form: {"labels": ["..."]}""",
    "Description: {text}",
    Labels,
)
"""A description -> the likely emotions, whose overlap is judged. Items: text. Reference: EMER's label overlap."""

LABEL_OVERLAP = Protocol(
    "emer_label_overlap",
    "1",
    """You compare two lists of words for the emotional state of one person. Say how far they mean the same, from 1
(nothing in common) to 10 (the same states). Words of one meaning count as equal; the order does not matter.
Reply with nothing but JSON of this form: {"reason": "angry and furious are one", "score": 7}""",
    "True words: {truth}\nPredicted words: {answer}",
    Overlap,
)
"""Two lists of words -> how far they agree, 1 to 10. Items: truth, answer. Reference: EMER's label overlap."""

EXTRACTION = Protocol(
    "emer_ov_labels",
    "1",
    """You are an expert in emotions. List the emotional states that a text clearly sees in the person in the video.
Take words of the text where it has them; name none that it denies, doubts or leaves to guesswork.
Examples:
"She smiles broadly at first, then looks away, embarrassed." -> {"labels": ["happy", "embarrassed"]}
"A man in a blue shirt sits at a table and talks about the weather." -> {"labels": []}
Reply with nothing but JSON of that form: {"labels": ["..."]}""",
    "Text: {text}",
    Labels,
)
"""A free answer -> the labels in it. Items: text. Reference: EMER-OV (MERTools, MER2024 track 3)."""


def partition(groups: Iterable[Iterable[str]], labels: Sequence[str], last_wins: bool = False) -> list[list[str]]:
    """A judge's groups -> groups in which each label stands once: foreign ones go, forgotten ones stand alone.

    A label of several groups stays in the first. ``last_wins`` reads them as MERTools does: a label counts for the last
    of its groups, and each group for the label that it names first, wherever that one went itself.

    >>> partition([["sad", "down"], ["down", "low"]], ["down", "low", "sad", "shy"])
    [['sad', 'down'], ['low'], ['shy']]
    """
    split = [list(dict.fromkeys(one.strip().lower() for one in group)) for group in groups]
    home: dict[str, str] = {}
    for number, group in enumerate(split):
        for label in group:
            if last_wins or label not in home:
                home[label] = group[0] if last_wins else f"group {number}"
    said = dict.fromkeys(label for group in split for label in group if label in labels)
    kept: dict[str, list[str]] = {}
    for label in (*said, *(label for label in labels if label not in said)):
        kept.setdefault(home.get(label, f"alone {label}"), []).append(label)
    return list(kept.values())


def _parted(reply: Groups, item: Item) -> Groups:
    return Groups(groups=partition(reply.groups, item["labels"]))


def _parted_last_wins(reply: Groups, item: Item) -> Groups:
    return Groups(groups=partition(reply.groups, item["labels"], last_wins=True))


GROUPING = Protocol(
    "emer_ov_groups",
    "1",
    """You are an expert in emotions. Put the words of a list into groups, so that words of one meaning are in one group
and words of different meanings are not. Use every word once, as it is written, and no other word.
Example: ["angry", "furious", "happy", "joyful", "shy"] ->
{"groups": [["angry", "furious"], ["happy", "joyful"], ["shy"]]}
Reply with nothing but JSON of that form: {"groups": [["..."]]}""",
    "List: {labels}",
    Groups,
    _parted,
)
"""Sorted labels -> those of one meaning side by side, each once. Items: labels. Reference: EMER-OV (MERTools)."""

GROUPING_LAST_WINS = replace(GROUPING, check=_parted_last_wins)
"""The same question, the reply read as MERTools does; both read the same judgements."""

PROTOCOLS = {
    each.name: each
    for each in (*VIDEO_CHATGPT.values(), EVENTS, ENTAILMENT, CLUES, STATES, LABEL_OVERLAP, EXTRACTION, GROUPING)
}
"""Name -> protocol."""
