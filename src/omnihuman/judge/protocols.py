"""Protocols of judges: prompts (our wording) and schemas of replies.

Increase the version of a protocol with every change of its prompt: cached judgements of the old prompt are not used
then.
"""

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from omnihuman.judge.base import Item, Protocol


def _truncate(value: Any) -> Any:
    """Truncate a number to an integer as the official code's int() does: 4.8 is 4."""
    if isinstance(value, bool) or value in (math.inf, -math.inf):
        raise ValueError("a score must be a finite number")
    return int(float(value)) if isinstance(value, str | float) else value


def _parse_number(value: Any) -> Any:
    """Parse a score from text as the official code does: `8-9` and `8/10` are 8."""
    if isinstance(value, bool):
        raise ValueError("a score must be a number")
    number = re.search(r"\d+(\.\d+)?", value) if isinstance(value, str) else None
    return float(number[0]) if number else value


class Reply(BaseModel):
    """Base of all replies: the schema forbids additional keys, as strict endpoints require; parsing ignores them."""

    model_config = ConfigDict(extra="ignore", json_schema_extra={"additionalProperties": False})


class Points(Reply):
    """A score from 0 to 5."""

    score: Annotated[Literal[0, 1, 2, 3, 4, 5], BeforeValidator(_truncate)]


class Events(Reply):
    """Events of a text, at most ten."""

    events: list[str] = Field(max_length=10)


class Relation(Reply):
    """Relation of a description to an event."""

    event: str
    relationship: Literal["entailment", "neutral", "contradiction"]
    reason: str


class Relations(Reply):
    """One relation for each event."""

    events: list[Relation]


class Overlap(Reply):
    """A score from 1 to 10 and its reason."""

    reason: str
    score: Annotated[float, Field(ge=1, le=10), BeforeValidator(_parse_number)]


class Labels(Reply):
    """Emotion labels."""

    labels: list[str]


class Sameness(Reply):
    """True if two descriptions are of one person, and the reason."""

    reason: str
    same: bool


class Groups(Reply):
    """Groups of synonymous labels."""

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
_ANSWERED = "Question: {question}\nReference answer: {reference}\nAnswer of the model: {answer}"
_ANSWERED_TWICE = (
    "First question: {question}\nSecond question: {other_question}\nReference answer: {reference}\n"
    "Answer to the first: {answer}\nAnswer to the second: {other_answer}"
)

VIDEO_CHATGPT = {
    aspect: Protocol(
        f"video_chatgpt_{aspect}",
        "1",
        "You grade what a model answered to a question about a video that you cannot see. Judge one thing only: "
        + description
        + _POINTS,
        _ANSWERED_TWICE if aspect == "consistency" else _ANSWERED,
        Points,
    )
    for aspect, description in _ASPECTS.items()
}
"""Aspect -> protocol of its score, 0 to 5. Items: question, reference, answer (consistency: two questions and answers).

Reference: Video-ChatGPT's five scores (arXiv 2306.05424, section 4.1): one call per aspect, on the texts alone.
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
"""A text -> its events. Items: text. Reference: AutoDQ (Tarsier, arXiv 2407.00634, section 4)."""


def _check_count(reply: Relations, item: Item) -> Relations:
    if len(reply.events) != len(item["events"]):
        raise ValueError(
            f"the reply has {len(reply.events)} relations, expected one for each of {len(item['events'])} events"
        )
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
    _check_count,
)
"""A text and events -> the relation of the text to each event. Items: text, events. Reference: AutoDQ."""

CLUES = Protocol(
    "emer_clue",
    "1",
    """You compare what two people noticed about the emotional state of the person in a video.
For yourself, first sum up of each description only what bears on that state: expressions, voice, words, gestures,
situation. Then say how far the two agree, from 1 (nothing in common) to 10 (the same clues to the same state).
Reply with nothing but JSON of this form: {"reason": "both name the trembling voice", "score": 6}""",
    "True description: {reference}\nPredicted description: {answer}",
    Overlap,
)
"""Two descriptions -> agreement of their clues to an emotion, 1 to 10. Items: reference, answer.

Reference: EMER's clue overlap (AffectGPT, arXiv 2306.15401). Differs from the official prompts, which are Chinese even
for English texts: scores are only comparable with others of this judge.
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
"""A description -> its most likely emotions. Items: text. Reference: EMER's label overlap."""

LABEL_OVERLAP = Protocol(
    "emer_label_overlap",
    "1",
    """You compare two lists of words for the emotional state of one person. Say how far they mean the same, from 1
(nothing in common) to 10 (the same states). Words of one meaning count as equal; the order does not matter.
Reply with nothing but JSON of this form: {"reason": "angry and furious are one", "score": 7}""",
    "True words: {reference}\nPredicted words: {answer}",
    Overlap,
)
"""Two lists of emotions -> their agreement, 1 to 10. Items: reference, answer. Reference: EMER's label overlap."""

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
"""A free-form answer -> its emotion labels. Items: text. Reference: EMER-OV (MERTools, MER2024 track 3)."""


def partition(groups: Iterable[Iterable[str]], labels: Sequence[str], last_wins: bool = False) -> list[list[str]]:
    """Turn a judge's groups into a partition of the labels: unknown labels are dropped, missing ones form own groups.

    A label of several groups stays in the first. With ``last_wins`` groups are merged as MERTools does: each group
    stands for its first label, and a label is mapped to the first label of the last group that contains it. Labels with
    the same target form a group, whatever the target itself is mapped to.

    >>> partition([["sad", "down"], ["down", "low"]], ["down", "low", "sad", "shy"])
    [['sad', 'down'], ['low'], ['shy']]
    """
    group_of_label: dict[str, str] = {}
    for number, group in enumerate(groups):
        names = [label.strip().lower() for label in group]
        for label in names:
            if last_wins:
                group_of_label[label] = names[0]
            else:
                group_of_label.setdefault(label, f"group {number}")
    # labels in the order of the judge's reply, then the missing ones
    order = [label for label in group_of_label if label in labels]
    order += [label for label in labels if label not in group_of_label]
    parts: dict[str, list[str]] = {}
    for label in order:
        parts.setdefault(group_of_label.get(label, f"alone {label}"), []).append(label)
    return list(parts.values())


def _check_groups(reply: Groups, item: Item) -> Groups:
    return Groups(groups=partition(reply.groups, item["labels"]))


def _check_groups_last_wins(reply: Groups, item: Item) -> Groups:
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
    _check_groups,
)
"""Sorted labels -> groups of synonyms. Items: labels. Reference: EMER-OV (MERTools)."""

GROUPING_LAST_WINS = replace(GROUPING, check=_check_groups_last_wins)
"""The same prompt, the reply parsed as in MERTools; both use the same cached judgements."""

SAME_PERSON = Protocol(
    "same_person",
    "1",
    """You decide whether two videos show the same person, from a description of the face in each. The two were written
independently, by someone who saw one video only. Weigh what a person keeps, such as the shape of the face and of its
parts, skin, age and gender, more than what changes from video to video: expression, hairstyle, glasses or light.
Reply with nothing but JSON of this form: {"reason": "both have a scar on the chin", "same": true}""",
    "First video: {first}\nSecond video: {second}",
    Sameness,
)
"""Two descriptions of faces -> whether they are of one person. Items: first, second. Reference: FaVChat, table 5."""

PROTOCOLS = {
    protocol.name: protocol
    for protocol in (
        *VIDEO_CHATGPT.values(),
        EVENTS,
        ENTAILMENT,
        CLUES,
        STATES,
        LABEL_OVERLAP,
        EXTRACTION,
        GROUPING,
        SAME_PERSON,
    )
}
"""Name -> protocol."""
