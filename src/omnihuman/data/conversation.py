"""Conversations of records: turns and system prompt."""

from collections.abc import Mapping
from typing import Any

from omnihuman.data.bad_sample import BadSample
from omnihuman.modality import TAGS

ROLES = {"human": "user", "gpt": "assistant"}
"""Role in a data file -> role in a conversation."""

Message = tuple[str, str]
"""Role and text."""


def parse_conversation(raw: Mapping[str, Any], location: str) -> tuple[str | None, tuple[Message, ...]]:
    """Return the system prompt of a record, ``None`` without one, and the turns of user and assistant.

    Args:
        raw: the record. Its system prompt is the key ``system`` or a first turn from ``system``.
        location: its place, for messages.

    Raises:
        BadSample: a turn is invalid.
    """
    turns = raw.get("conversations")
    if not isinstance(turns, list) or not turns:
        raise BadSample("missing_conversations", f"{location}: {_describe_missing_turns(raw, turns)}")
    system, turns = _split_system(raw.get("system"), turns, location)
    messages = []
    for number, turn in enumerate(turns):
        role = _parse_role(turn, f"{location}: turn {number}")
        check_text(turn.get("value"), f"{location}: value of turn {number}")
        if role != ("user", "assistant")[number % 2]:
            message = f"{location}: turn {number} is from {turn['from']}; human and gpt must alternate."
            raise BadSample("odd_turns", message)
        messages.append((role, turn["value"]))
    if len(messages) % 2 or not messages:
        raise BadSample("odd_turns", f"{location}: {len(messages)} turns; every human turn needs an answer from gpt.")
    return system, tuple(messages)


def _describe_missing_turns(raw: Mapping[str, Any], turns: Any) -> str:
    if turns is None and "messages" in raw:
        return (
            "the record has messages; rename messages to conversations, role to from (user to human, assistant to "
            "gpt) and content to value."
        )
    keys = ", ".join(str(key) for key in list(raw)[:6])
    return f"conversations must be a list of turns with from and value, got {turns!r:.80}; the keys are {keys!r:.120}."


def _parse_role(turn: Any, place: str) -> str:
    if not isinstance(turn, dict):
        raise BadSample("malformed_record", f"{place} must be an object with from and value, got {turn!r:.80}.")
    role = turn.get("from")
    if isinstance(role, str) and role in ROLES:
        return ROLES[role]
    if role is None and "role" in turn:
        message = "has role and content; rename role to from (user to human, assistant to gpt) and content to value."
        raise BadSample("unknown_role", f"{place} {message}")
    cures = {"user": "; write human", "assistant": "; write gpt", "system": "; only the first turn can be system"}
    cure = cures.get(str(role), "")
    raise BadSample("unknown_role", f"{place}: unknown role {role!r:.80}; expected human or gpt{cure}.")


def _split_system(system: Any, turns: list[Any], location: str) -> tuple[str | None, list[Any]]:
    first = turns[0]
    if isinstance(first, dict) and first.get("from") == "system":
        if system is not None:
            raise BadSample("malformed_record", f"{location}: the key system and a system turn: keep one of them.")
        check_text(first.get("value"), f"{location}: value of the system turn")
        system, turns = first["value"], turns[1:]
    elif system is not None:
        check_text(system, f"{location}: system")
    if tags := [tag for tag in TAGS if tag in (system or "")]:
        message = f"{location}: {tags[0]} is in the system prompt; move it to a human turn."
        raise BadSample("placeholder_in_system", message)
    return system, turns


def check_text(value: Any, place: str) -> None:
    """Check that a value is a text that can be encoded.

    Raises:
        BadSample: it is not.
    """
    if not isinstance(value, str):
        raise BadSample("malformed_record", f"{place} must be text, got {value!r:.80}.")
    try:
        value.encode()
    except UnicodeEncodeError as error:  # no tokenizer takes half a character, which JSON can hold as \ud83d
        raise BadSample("malformed_record", f"{place} has half a character (a surrogate) in {value!r:.80}.") from error
