"""Words and forms of the questions: what is accepted, mended and refused."""

import hashlib
from typing import Any

import pytest

from omnihuman.judge.base import Protocol
from omnihuman.judge.cache import compact
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
    "video_chatgpt_correctness": ("1", "03998866"),
    "video_chatgpt_detail": ("1", "73c8bcf9"),
    "video_chatgpt_context": ("1", "521f658f"),
    "video_chatgpt_temporal": ("1", "27ec41a0"),
    "video_chatgpt_consistency": ("1", "8476119a"),
    "autodq_events": ("1", "180459bd"),
    "autodq_entailment": ("1", "ace727ba"),
    "emer_clue": ("1", "49ccad33"),
    "emer_label_words": ("1", "c439b7b0"),
    "emer_label_overlap": ("1", "70e71b38"),
    "emer_ov_labels": ("1", "c767a285"),
    "emer_ov_groups": ("1", "925159bd"),
}
STRICT = {"type", "properties", "required", "additionalProperties", "items", "enum", "$defs", "$ref"}

every_protocol = pytest.mark.parametrize("protocol", PROTOCOLS.values(), ids=list(PROTOCOLS))


@every_protocol
def test_words_change_only_with_their_version(protocol: Protocol) -> None:
    """A change here makes every kept judgement worthless: raise the version, then correct the digest."""
    said = compact([protocol.system, protocol.user, protocol.json_schema()])
    assert (protocol.version, hashlib.sha256(said.encode()).hexdigest()[:8]) == DIGESTS[protocol.name]


@every_protocol
def test_the_form_is_said_in_words_and_as_a_strict_schema(protocol: Protocol) -> None:
    assert "JSON" in protocol.system
    for node in nodes(protocol.json_schema()):
        assert node.keys() <= STRICT, node
        if node.get("type") == "object":
            assert node["additionalProperties"] is False
            assert set(node["required"]) == set(node["properties"])


def nodes(schema: dict[str, Any]) -> list[dict[str, Any]]:
    inner = [*schema.get("properties", {}).values(), *schema.get("$defs", {}).values()]
    inner += [schema["items"]] if "items" in schema else []
    return [schema, *(one for node in inner for one in nodes(node))]


def test_braces_in_a_text_are_only_text() -> None:
    asked = CLUES.messages({"truth": "{truth} {0} %s", "answer": "}{"})[1]["content"]
    assert asked == "True description: {truth} {0} %s\nPredicted description: }{"
    assert ENTAILMENT.messages({"text": "t", "events": ["é", 'a "b"']})[1]["content"].endswith('["é", "a \\"b\\""]')


@pytest.mark.parametrize(
    ("text", "score"),
    [
        ('{"score": 4}', 4),
        ("{'score': 4.8}", 4),  # the official prompt's own example; its code takes int()
        ('{"score": "5"}', 5),
        ('{"score": 3, "reason": "in part"}', 3),  # where no schema holds it, a judge may say more
        ('```json\n{"score": 0,}\n```', 0),
        ('<think>{"score": 1}</think>{"score": 2}', 2),
    ],
)
def test_points_that_are_read(text: str, score: int) -> None:
    assert VIDEO_CHATGPT["detail"].read(text, {}).score == score


@pytest.mark.parametrize(
    "text",
    ["", "4", "four", '{"score": 6}', '{"score": -1}', '{"score": true}', '{"score": null}', '{"score": Infinity}',
     '{"score": NaN}', '{"points": 3}', "[" * 100_000, '{"score": 4'[:9]],
)  # fmt: skip
def test_points_that_are_not(text: str) -> None:
    with pytest.raises(ValueError):
        VIDEO_CHATGPT["detail"].read(text, {})


@pytest.mark.parametrize(("said", "score"), [('"8-9"', 8), ('"7/10"', 7), ("6.5", 6.5), ('"about 7.5 points"', 7.5)])
def test_overlaps_take_the_first_number(said: str, score: float) -> None:
    assert CLUES.read(f'{{"reason": "r", "score": {said}}}', {}).score == score


@pytest.mark.parametrize("said", ["0", "11", '"none"', "true", '"12"'])
def test_overlaps_lie_between_1_and_10(said: str) -> None:
    with pytest.raises(ValueError):
        CLUES.read(f'{{"reason": "r", "score": {said}}}', {})


def test_events_are_ten_at_most() -> None:
    assert EVENTS.read(compact({"events": ["e"] * 10}), {}).events == ["e"] * 10
    with pytest.raises(ValueError, match="at most 10"):
        EVENTS.read(compact({"events": ["e"] * 11}), {})


def test_every_event_gets_one_relation() -> None:
    relation = {"event": "e", "relationship": "neutral", "reason": ""}
    assert len(ENTAILMENT.read(compact({"events": [relation] * 2}), {"events": ["e", "f"]}).events) == 2
    with pytest.raises(ValueError, match="1 relations for 2 events"):
        ENTAILMENT.read(compact({"events": [relation]}), {"events": ["e", "f"]})
    with pytest.raises(ValueError, match="relationship"):
        ENTAILMENT.read(compact({"events": [relation | {"relationship": "maybe"}]}), {"events": ["e"]})


def test_groups_are_mended_to_a_partition() -> None:
    labels = ["angry", "furious", "mad", "sad", "shy"]
    said = [["Angry", "furious", "angry"], ["sad", "angry ", "gloomy"], [], ["mad"]]
    assert partition(said, labels) == [["angry", "furious"], ["sad"], ["mad"], ["shy"]]
    assert partition(said, labels, last_wins=True) == [["angry", "sad"], ["furious"], ["mad"], ["shy"]]
    assert partition([], ["a", "b"]) == [["a"], ["b"]]
    # as MERTools' map: b counts for a, the first of its group, although a itself went on to the second
    assert partition([["a", "b"], ["a", "c"]], ["a", "b", "c"], last_wins=True) == [["a", "b", "c"]]
    assert partition([["a", "b"], ["c", "a"]], ["a", "b", "c"], last_wins=True) == [["a", "c"], ["b"]]
    assert partition([["mood", "b", "c"], ["a"]], ["a", "b", "c"], last_wins=True) == [["b", "c"], ["a"]]
    text, item = compact({"groups": said}), {"labels": labels}
    assert GROUPING.read(text, item).groups == partition(said, labels)
    assert GROUPING_LAST_WINS.read(text, item).groups == partition(said, labels, last_wins=True)
    assert GROUPING.messages(item) == GROUPING_LAST_WINS.messages(item)
