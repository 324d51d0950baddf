"""Conversations of several turns: a sample of each answer, as a model with an encoder of the instruction needs them."""

from collections.abc import Iterator
from dataclasses import replace

from omnihuman.data.record import Record
from omnihuman.modality import TAGS


def split_turns(record: Record) -> list[Record]:
    r"""Return a conversation as a record of each answer, whose earlier turns are context.

    An encoder reads one instruction of a sample, and what it steers, such as HumanOmni's gate, holds for the whole
    sample: only the answer to that question may be supervised. The conversation stays whole if it has one answer,
    names no media, which an instruction could steer, or has an ``instruction`` of its own.

    Differs from HumanOmni's training, where BERT reads the first question of a conversation for all answers.

    >>> from pathlib import Path
    >>> turns = (("user", "<video>\nWho?"), ("assistant", "Ann."), ("user", "Why?"), ("assistant", "So."))
    >>> record = Record("1", Path("a.mp4"), "video", turns, ("video",))
    >>> [(part.id, part.num_context) for part in split_turns(record)]
    [('1#turn1', 0), ('1#turn2', 2)]
    """
    num_messages = len(record.messages)
    if num_messages <= 2 or not record.slots or "instruction" in record.meta:
        return [record]
    parts = []
    for number, end in enumerate(range(2, num_messages + 1, 2), 1):
        part = _cut(record, end)
        parts.append(replace(part, id=f"{record.id}#turn{number}", num_context=end - 2))
    return parts


def select_question(record: Record) -> Record:
    """Return the conversation up to its question: the last one if its answer is empty, else the first one."""
    is_answered = bool(record.messages[-1][1].strip())
    return _cut(record, 2) if is_answered and len(record.messages) > 2 else record


def _cut(record: Record, end: int) -> Record:
    """Return the record with the first messages only, and the slots that these name."""
    messages = record.messages[:end]
    slots = tuple(dict.fromkeys(TAGS[tag] for tag in _list_tags(messages)))
    slots = tuple(slot for slot in record.slots if slot in slots)
    kind = record.kind if slots else "text"
    num_images = sum(text.count("<image>") for role, text in messages if role == "user")
    more_images = record.more_images[: max(0, num_images - 1)]
    return replace(record, messages=messages, slots=slots, kind=kind, more_images=more_images)


def _list_tags(messages: tuple[tuple[str, str], ...]) -> Iterator[str]:
    for role, text in messages:
        if role == "user":
            yield from (tag for tag in TAGS if tag in text)
