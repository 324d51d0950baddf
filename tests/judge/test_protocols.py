"""Prompts and schemas of protocols: replies that are accepted, repaired and rejected."""

import hashlib
from typing import Any

import pytest

from omnihuman.judge.base import Protocol
from omnihuman.judge.cache import canonical_json
from omnihuman.judge.protocols import (
    CLUES,
    ENTAILMENT,
    EVENTS,
    GROUPING,
    GROUPING_LAST_WINS,
    PROTOCOLS,
    VIDEO_CHATGPT,
    partition,
)

DIGESTS = {
    "video_chatgpt_correctness": ("1", "ad7a3c9f"),
    "video_chatgpt_detail": ("1", "9c4ea203"),
    "video_chatgpt_context": ("1", "9972e4b4"),
    "video_chatgpt_temporal": ("1", "4722771d"),
    "video_chatgpt_consistency": ("1", "7691c2b3"),
    "autodq_events": ("1", "180459bd"),
    "autodq_entailment": ("1", "ace727ba"),
    "emer_clue": ("1", "e3b09a4f"),
    "emer_label_words": ("1", "c439b7b0"),
    "emer_label_overlap": ("1", "0c354332"),
    "emer_ov_labels": ("1", "c767a285"),
    "emer_ov_groups": ("1", "925159bd"),
    "same_person": ("1", "f0c57936"),
}
STRICT = {"type", "properties", "required", "additionalProperties", "items", "enum", "$defs", "$ref"}

every_protocol = pytest.mark.parametrize("protocol", PROTOCOLS.values(), ids=list(PROTOCOLS))


@every_protocol
def test_prompts_change_only_with_their_version(protocol: Protocol) -> None:
    """A change here invalidates cached judgements: increase the version, then correct the digest."""
    content = canonical_json([protocol.system, protocol.user, protocol.json_schema()])
    assert (protocol.version, hashlib.sha256(content.encode()).hexdigest()[:8]) == DIGESTS[protocol.name]


@every_protocol
def test_system_prompt_and_strict_schema_state_the_form(protocol: Protocol) -> None:
    assert "JSON" in protocol.system
    for node in list_nodes(protocol.json_schema()):
        assert node.keys() <= STRICT, node
        if node.get("type") == "object":
            assert node["additionalProperties"] is False
            assert set(node["required"]) == set(node["properties"])


def list_nodes(schema: dict[str, Any]) -> list[dict[str, Any]]:
    children = [*schema.get("properties", {}).values(), *schema.get("$defs", {}).values()]
    if "items" in schema:
        children.append(schema["items"])
    nodes = [schema]
    for child in children:
        nodes += list_nodes(child)
    return nodes


def test_braces_in_a_text_are_not_placeholders() -> None:
    prompt = CLUES.build_messages({"reference": "{reference} {0} %s", "answer": "}{"})[1]["content"]
    assert prompt == "True description: {reference} {0} %s\nPredicted description: }{"
    assert ENTAILMENT.build_messages({"text": "t", "events": ["é", 'a "b"']})[1]["content"].endswith(
        '["é", "a \\"b\\""]'
    )


@pytest.mark.parametrize(
    ("text", "score"),
    [
        ('{"score": 4}', 4),
        ("{'score': 4.8}", 4),  # an example in the official prompt; its code calls int()
        ('{"score": "5"}', 5),
        ('{"score": 3, "reason": "in part"}', 3),  # additional keys, where the endpoint ignores the schema
        ('```json\n{"score": 0,}\n```', 0),
        ('<think>{"score": 1}</think>{"score": 2}', 2),
    ],
)
def test_valid_points_are_parsed(text: str, score: int) -> None:
    assert VIDEO_CHATGPT["detail"].parse_reply(text, {}).score == score


@pytest.mark.parametrize(
    "text",
    [
        "",
        "4",
        "four",
        '{"score": 6}',
        '{"score": -1}',
        '{"score": true}',
        '{"score": null}',
        '{"score": Infinity}',
        '{"score": NaN}',
        '{"points": 3}',
        "[" * 100_000,
        '{"score":',
    ],
)
def test_invalid_points_raise(text: str) -> None:
    with pytest.raises(ValueError):
        VIDEO_CHATGPT["detail"].parse_reply(text, {})


@pytest.mark.parametrize(("raw", "score"), [('"8-9"', 8), ('"7/10"', 7), ("6.5", 6.5), ('"about 7.5 points"', 7.5)])
def test_overlap_is_the_first_number(raw: str, score: float) -> None:
    assert CLUES.parse_reply(f'{{"reason": "r", "score": {raw}}}', {}).score == score


@pytest.mark.parametrize("raw", ["0", "11", '"none"', "true", '"12"'])
def test_overlap_outside_1_to_10_raises(raw: str) -> None:
    with pytest.raises(ValueError):
        CLUES.parse_reply(f'{{"reason": "r", "score": {raw}}}', {})


def test_more_than_ten_events_raise() -> None:
    assert EVENTS.parse_reply(canonical_json({"events": ["e"] * 10}), {}).events == ["e"] * 10
    with pytest.raises(ValueError, match="at most 10"):
        EVENTS.parse_reply(canonical_json({"events": ["e"] * 11}), {})


def test_each_event_needs_one_relation() -> None:
    relation = {"event": "e", "relationship": "neutral", "reason": ""}
    assert len(ENTAILMENT.parse_reply(canonical_json({"events": [relation] * 2}), {"events": ["e", "f"]}).events) == 2
    with pytest.raises(ValueError, match=r"\b1 relations.*\b2 events"):
        ENTAILMENT.parse_reply(canonical_json({"events": [relation]}), {"events": ["e", "f"]})
    with pytest.raises(ValueError, match="relationship"):
        ENTAILMENT.parse_reply(canonical_json({"events": [relation | {"relationship": "maybe"}]}), {"events": ["e"]})


def test_groups_are_corrected_to_a_partition() -> None:
    labels = ["angry", "furious", "mad", "sad", "shy"]
    groups = [["Angry", "furious", "angry"], ["sad", "angry ", "gloomy"], [], ["mad"]]
    assert partition(groups, labels) == [["angry", "furious"], ["sad"], ["mad"], ["shy"]]
    assert partition(groups, labels, last_wins=True) == [["angry", "sad"], ["furious"], ["mad"], ["shy"]]
    assert partition([], ["a", "b"]) == [["a"], ["b"]]
    # as in MERTools: b is mapped to a, the first of its group, although a itself is mapped to c
    assert partition([["a", "b"], ["a", "c"]], ["a", "b", "c"], last_wins=True) == [["a", "b", "c"]]
    assert partition([["a", "b"], ["c", "a"]], ["a", "b", "c"], last_wins=True) == [["a", "c"], ["b"]]
    assert partition([["mood", "b", "c"], ["a"]], ["a", "b", "c"], last_wins=True) == [["b", "c"], ["a"]]
    text, item = canonical_json({"groups": groups}), {"labels": labels}
    assert GROUPING.parse_reply(text, item).groups == partition(groups, labels)
    assert GROUPING_LAST_WINS.parse_reply(text, item).groups == partition(groups, labels, last_wins=True)
    assert GROUPING.build_messages(item) == GROUPING_LAST_WINS.build_messages(item)
