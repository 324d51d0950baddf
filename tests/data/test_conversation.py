"""Turns and the system prompt of a record."""

from typing import Any

import pytest

from omnihuman.data.bad_sample import BadSample
from omnihuman.data.conversation import parse_conversation

HUMAN = {"from": "human", "value": "Who?"}
GPT = {"from": "gpt", "value": "A man."}
SYSTEM = {"from": "system", "value": "Be brief."}
OPENAI = [{"role": "user", "content": "Who?"}, {"role": "assistant", "content": "A man."}]


def parse(turns: Any, **fields: Any) -> tuple[str | None, tuple[tuple[str, str], ...]]:
    return parse_conversation({"conversations": turns, **fields}, "train.json[3]")


def test_a_system_turn_is_the_system_prompt() -> None:
    messages = (("user", "Who?"), ("assistant", "A man."))
    assert parse([SYSTEM, HUMAN, GPT]) == ("Be brief.", messages)
    assert parse([HUMAN, GPT], system="Be kind.") == ("Be kind.", messages)
    assert parse([HUMAN, GPT]) == (None, messages)


@pytest.mark.parametrize(
    ("raw", "reason", "message"),
    [
        ({"messages": OPENAI}, "missing_conversations", "messages.*conversations"),
        ({"instruction": "Who?", "output": "A man."}, "missing_conversations", "the keys are 'instruction, output'"),
        ({"conversations": {"from": "human"}}, "missing_conversations", "conversations.* list"),
        ({"conversations": []}, "missing_conversations", "conversations.* list"),
        ({"conversations": OPENAI}, "unknown_role", "role.* from"),
        ({"conversations": ["Who?"]}, "malformed_record", "turn 0.* object"),
        ({"conversations": [{"from": "user", "value": "x"}]}, "unknown_role", "write human"),
        ({"conversations": [HUMAN, {"from": "assistant", "value": "x"}]}, "unknown_role", "turn 1.*write gpt"),
        ({"conversations": [{"from": ["human"], "value": "x"}]}, "unknown_role", r"\['human'\]"),
        ({"conversations": [HUMAN, SYSTEM]}, "unknown_role", "turn 1.*system"),
        ({"conversations": [SYSTEM]}, "odd_turns", "0 turns"),
        ({"conversations": [SYSTEM, HUMAN, GPT], "system": "x"}, "malformed_record", "key system"),
        ({"conversations": [{"from": "system", "value": "<audio>"}, HUMAN, GPT]}, "placeholder_in_system", "<audio>"),
        ({"conversations": [{"from": "system"}, HUMAN, GPT]}, "malformed_record", "system turn.* text"),
        ({"conversations": [HUMAN, {"from": "gpt", "value": "\udc00"}]}, "malformed_record", "half a character"),
    ],
)
def test_an_invalid_conversation_raises(raw: dict[str, Any], reason: str, message: str) -> None:
    with pytest.raises(BadSample, match=message) as caught:
        parse_conversation(raw, "train.json[3]")
    assert caught.value.reason == reason and str(caught.value).startswith("train.json[3]: ")
