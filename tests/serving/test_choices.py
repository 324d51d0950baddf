"""Formats of answers become choices, and invalid ones name their field."""

import json
from enum import Enum
from typing import Any, Literal

import pytest
from pydantic import BaseModel

from omnihuman.serving.choices import Choices, parse_response_format
from omnihuman.serving.uploads import RequestError

LABELS = ["happy", "sad"]


class Emotion(Enum):
    """As clients write their labels."""

    happy = "happy"
    sad = "sad"


class WithEnum(BaseModel):
    """An object whose property refers to a definition."""

    emotion: Emotion


class WithLiteral(BaseModel):
    """An object whose property is an enum itself."""

    emotion: Literal["happy", "sad"]


def wrap(schema: Any) -> dict[str, Any]:
    return {"type": "json_schema", "json_schema": {"name": "emotion", "schema": schema}}


@pytest.mark.parametrize(
    ("schema", "content"),
    [
        ({"enum": LABELS}, '"sad"'),
        ({"type": "string", "enum": LABELS}, '"sad"'),
        (WithLiteral.model_json_schema(), '{"emotion": "sad"}'),
        (WithEnum.model_json_schema(), '{"emotion": "sad"}'),
    ],
)
def test_answer_has_the_form_of_the_schema(schema: Any, content: str) -> None:
    choices = parse_response_format(wrap(schema))
    assert choices is not None and choices.labels == ("happy", "sad") and choices.encode("sad") == content


def test_labels_are_encoded_as_json() -> None:
    choices = parse_response_format(wrap({"enum": ['"', "glücklich"]}))
    assert choices is not None and [json.loads(choices.encode(label)) for label in choices.labels] == ['"', "glücklich"]
    assert choices.encode("glücklich") == '"glücklich"'


def test_free_text_has_no_choices() -> None:
    assert parse_response_format(None) is None and parse_response_format({"type": "text"}) is None


def test_plain_choices() -> None:
    choices = parse_response_format({"type": "choice", "choices": LABELS})
    assert choices == Choices(("happy", "sad")) and choices.encode("sad") == "sad"


@pytest.mark.parametrize(
    ("value", "field"),
    [
        ({}, "response_format.type"),
        ({"type": "json_object"}, "response_format.type"),
        ({"type": "choice", "choices": "happy"}, "response_format.choices"),
        ({"type": "choice", "choices": ["happy"]}, "response_format.choices"),
        ({"type": "choice", "choices": ["a"] * 2}, "response_format.choices"),
        ({"type": "choice", "choices": [str(number) for number in range(65)]}, "response_format.choices"),
        ({"type": "choice", "choices": ["a", 1]}, "response_format.choices.1"),
        ({"type": "choice", "choices": [" ", "a"]}, "response_format.choices.0"),
        ({"type": "choice", "choices": ["a", "b" * 201]}, "response_format.choices.1"),
        ({"type": "json_schema"}, "response_format.json_schema"),
        ({"type": "json_schema", "json_schema": {"name": "a"}}, "response_format.json_schema.schema"),
        (wrap({"type": "integer", "enum": [1, 2]}), "response_format.json_schema.schema"),
        (wrap({"type": "string"}), "response_format.json_schema.schema"),
        (wrap({"enum": ["a", None]}), "response_format.json_schema.schema.enum.1"),
        (wrap({"type": "object"}), "response_format.json_schema.schema.properties"),
        (wrap({"type": "object", "properties": {"a": {}, "b": {}}}), "response_format.json_schema.schema.properties"),
        (wrap({"type": "object", "properties": {"a": 1}}), "response_format.json_schema.schema.properties.a"),
        (wrap({"type": "object", "properties": {"a": {}}}), "response_format.json_schema.schema.properties.a"),
        (wrap({"$ref": "#/$defs/A"}), "response_format.json_schema.schema.$ref"),
        (wrap({"$ref": "#/$defs/A", "$defs": {"A": {"$ref": "#/$defs/A"}}}), "response_format.json_schema.schema.$ref"),
        (wrap({"$ref": "#/$defs/A", "$defs": 1}), "response_format.json_schema.schema.$ref"),
    ],
)
def test_invalid_formats_name_the_field(value: Any, field: str) -> None:
    with pytest.raises(RequestError) as caught:
        parse_response_format(value)
    assert str(caught.value).partition(":")[0] == field and caught.value.status == 400
