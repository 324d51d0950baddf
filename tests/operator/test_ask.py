"""Replies become columns; an item without one is a failed row."""

import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from omnihuman.build import build, compose_part
from omnihuman.judge.endpoint import EndpointJudge
from omnihuman.judge.scripted import ScriptedJudge
from omnihuman.operator.ask import Ask, build_schema
from omnihuman.operator.base import FRAMES, Failed, Operator
from tests.operator.conftest import apply_one, build_row

REPLY = {"label": {"kind": "text", "among": ["yes", "no"]}, "score": {"kind": "number", "least": 0, "most": 10}}
PROTOCOL = {"name": "check", "version": 1, "system": "Reply as JSON.", "user": "Is it {label}?", "reply": REPLY}
RECORD = json.dumps({"task": "body", "conversations": [{"from": "gpt", "value": "yes"}]})


def script(**fields: Any) -> Any:
    replies = {"check": {"label": {"tasks": ["body"]}, "score": {"value": 7}, **fields}}
    return partial(ScriptedJudge, replies)


def test_fields_are_columns(tmp_path: Path) -> None:
    operator = Ask("a", PROTOCOL, script(), columns={"label": "emotion"})
    assert set(operator.reads) == {"emotion", "records"} and list(operator.writes) == [
        "a_label",
        "a_score",
        "a_model",
    ]
    row = build_row(tmp_path / "a.mp4", records=[RECORD], emotion="sad")
    assert apply_one(operator, tmp_path, row) == {"a_label": "yes", "a_score": 7.0, "a_model": "scripted"}
    assert operator._build_item(row) == {"records": [RECORD], "label": "sad"}


def test_rows_without_a_reply_fail(tmp_path: Path) -> None:
    outcome = apply_one(Ask("a", PROTOCOL, script()), tmp_path, build_row(tmp_path / "a.mp4", label="sad"))
    assert isinstance(outcome, Failed) and outcome.why == "no_reply" and "no record" in outcome.detail


@pytest.mark.parametrize("reply", [{"label": "maybe", "score": 1}, {"label": "yes", "score": 11}, {"label": "yes"}])
def test_replies_have_a_schema(reply: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="check"):
        build_schema("check", REPLY).model_validate(reply)


def test_the_model_decides_and_the_address_does_not() -> None:
    def identify(**options: Any) -> Any:
        return Ask("a", PROTOCOL, partial(EndpointJudge, **options)).identity()

    assert identify(model="m", base_url="http://a/v1") == identify(model="m", base_url="http://b/v1", timeout=1.0)
    assert identify(model="m") != identify(model="n")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"captioner": None}, "captioner=endpoint"),
        ({"protocol": {**PROTOCOL, "reply": {"a": {"kind": "word"}}}}, r"reply\.a\.kind=word.*texts"),
    ],
)
def test_mistakes_name_the_key(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Ask(**{"name": "a", "protocol": PROTOCOL, "captioner": script(), **options})


@pytest.mark.parametrize("name", ["brief", "detailed", "consensus", "alignment"])
def test_protocols_ask_for_json_with_their_fields(name: str) -> None:
    captioner = {"_target_": "omnihuman.judge.scripted.ScriptedJudge", "_partial_": True, "replies": {}}
    part = compose_part("operator", "ask", [f"protocol@operator.protocol={name}"])
    operator: Operator = build({"pipeline": {"operators": {"x": {**part, "captioner": captioner}}}})["pipeline"][
        "operators"
    ]["x"]
    assert isinstance(operator, Ask) and operator.name == name
    system = operator.protocol["system"]
    assert "JSON" in system and all(f'"{field}"' in system for field in operator.fields)
    assert ("frames" in operator.reads) == (operator.reads.get("frames") == FRAMES)
