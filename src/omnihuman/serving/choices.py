"""``response_format``: the answers that a request allows, and the answer as its client expects it."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from omnihuman.serving.uploads import RequestError

MAX_CHOICES, MAX_LENGTH = 64, 200
"""Largest number of choices, each of which costs a forward pass, and of characters of one."""

DEFINITIONS = "#/$defs/"


@dataclass(frozen=True, slots=True)
class Choices:
    """The answers that a request allows.

    Attributes:
        labels: the answers.
        is_json: the answer is JSON, as of a schema, and not a plain label.
        key: of the object that holds the label; ``None`` for a label alone.
    """

    labels: tuple[str, ...]
    is_json: bool = False
    key: str | None = None

    def encode(self, label: str) -> str:
        """Return an answer as the content of a message.

        >>> Choices(("happy", "sad"), True, "emotion").encode("sad")
        '{"emotion": "sad"}'
        """
        if not self.is_json:
            return label
        return json.dumps(label if self.key is None else {self.key: label}, ensure_ascii=False)


def parse_response_format(value: Mapping[str, Any] | None) -> Choices | None:
    """Return the choices of a ``response_format``, ``None`` for free text.

    Reference: OpenAI's ``json_schema``, whose schema must be an ``enum`` or an object with one property that is one;
    ``choice`` is the plain form of it, as in vLLM's ``structured_outputs``.

    Raises:
        RequestError: the format is of another kind, or has no valid choices; the message names the field.

    >>> parse_response_format({"type": "choice", "choices": ["happy", "sad"]})
    Choices(labels=('happy', 'sad'), is_json=False, key=None)
    """
    path = "response_format"
    if value is None:
        return None
    kind = value.get("type")
    if kind == "text":
        return None
    if kind == "choice":
        return Choices(parse_labels(value.get("choices"), f"{path}.choices"))
    if kind == "json_schema":
        path = f"{path}.json_schema"
        outer = _expect_object(value.get("json_schema"), path)
        return _parse_schema(_expect_object(outer.get("schema"), f"{path}.schema"), f"{path}.schema")
    message = f"{path}.type: {str(kind)[:80]!r} is not supported; expected text, choice or json_schema."
    raise RequestError("unsupported_option", message)


def _parse_schema(schema: Mapping[str, Any], path: str) -> Choices:
    definitions = schema.get("$defs", {})
    schema, path = _resolve(schema, definitions, path)
    if schema.get("type") != "object":
        return Choices(_parse_enum(schema, path), is_json=True)
    properties = _expect_object(schema.get("properties"), f"{path}.properties")
    if len(properties) != 1:
        raise _build_error(f"{path}.properties", f"expected one property with an enum, got {len(properties)}.")
    ((key, inner),) = properties.items()
    inner, path = _resolve(_expect_object(inner, f"{path}.properties.{key}"), definitions, f"{path}.properties.{key}")
    return Choices(_parse_enum(inner, path), is_json=True, key=key)


def _resolve(schema: Mapping[str, Any], definitions: Any, path: str) -> tuple[Mapping[str, Any], str]:
    """Return the schema that a ``$ref`` names, as Pydantic writes it for an ``Enum``, and its path."""
    reference = schema.get("$ref")
    if reference is None:
        return schema, path
    name = str(reference).removeprefix(DEFINITIONS)
    if not isinstance(definitions, Mapping) or name not in definitions:
        raise _build_error(f"{path}.$ref", f"{str(reference)[:80]!r} is none of the schema's $defs.")
    return _expect_object(definitions[name], f"{path}.$ref"), f"{path}.$ref"


def _parse_enum(schema: Mapping[str, Any], path: str) -> tuple[str, ...]:
    if schema.get("type", "string") != "string" or "enum" not in schema:
        raise _build_error(path, "only schemas with an enum of strings are supported.")
    return parse_labels(schema["enum"], f"{path}.enum")


def parse_labels(labels: Any, path: str) -> tuple[str, ...]:
    """Return checked choices.

    Raises:
        RequestError: they are no list of different texts.
    """
    if not isinstance(labels, Sequence) or isinstance(labels, str) or not 2 <= len(labels) <= MAX_CHOICES:
        raise _build_error(path, f"expected a list of 2 to {MAX_CHOICES} strings.")
    for index, label in enumerate(labels):
        if not isinstance(label, str) or not label.strip() or len(label) > MAX_LENGTH:
            raise _build_error(f"{path}.{index}", f"expected a string of 1 to {MAX_LENGTH} characters.")
    if len(set(labels)) != len(labels):
        raise _build_error(path, "the strings must differ.")
    return tuple(labels)


def _expect_object(value: Any, path: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise _build_error(path, "expected an object.")
    return value


def _build_error(path: str, problem: str) -> RequestError:
    return RequestError("bad_request", f"{path}: {problem}")
