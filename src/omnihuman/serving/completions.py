"""Chat completions: the body of a request -> a question for the worker; what the worker said -> bodies of answers."""

import json
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, Field, ValidationError

from omnihuman.data.messages import options_of, record_of
from omnihuman.data.record import MODALS, Record
from omnihuman.serving.uploads import Refused, Uploads

MEDIA = {"image_url": "image", "video_url": "video", "audio_url": "audio", "input_audio": "audio"}
"""Part of a message -> the medium that it holds."""

NOTHING: dict[str, tuple[Any, ...]] = {
    "n": (1,),
    "logprobs": (False,),
    "top_logprobs": (0,),
    "logit_bias": ({},),
    "presence_penalty": (0,),
    "frequency_penalty": (0,),
    "tools": ([],),
    "functions": ([],),
    "response_format": ({"type": "text"},),
    "modalities": (["text"],),
}
"""What the interface has and a model of ours has not -> the values that ask for nothing, beside none."""


class Address(BaseModel):
    """Where a medium is: a ``data:`` URL, or a file that the server may read."""

    url: str


class Sound(BaseModel):
    """Sound in base64, or as a ``data:`` URL; of what format it is, its content says."""

    data: str

    @property
    def url(self) -> str:
        """As a ``data:`` URL."""
        return self.data if self.data.startswith("data:") else f"data:;base64,{self.data}"


class Part(BaseModel):
    """A piece of a message."""

    type: str
    text: str = ""
    image_url: Address | str | None = None
    video_url: Address | str | None = None
    audio_url: Address | str | None = None
    input_audio: Sound | None = None


class Turn(BaseModel):
    """A message."""

    role: str
    content: str | list[Part] | None = None


class Asked(BaseModel, extra="allow"):
    """The body of a request; ``modal``, ``top_k``, ``repetition_penalty`` are ours (``extra_body`` of the client)."""

    messages: list[Turn] = Field(min_length=1)
    model: str = ""
    max_tokens: int | None = Field(None, ge=1)
    max_completion_tokens: int | None = Field(None, ge=1)
    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float | None = Field(None, ge=0, le=1)
    top_k: int | None = Field(None, ge=1)
    repetition_penalty: float | None = Field(None, gt=0)
    stop: str | list[str] | None = None
    seed: int | None = Field(None, ge=0, lt=2**63)
    stream: bool | None = None
    stream_options: dict[str, Any] | None = None
    modal: str | None = None


@dataclass(frozen=True, slots=True)
class Question:
    """What goes to the worker.

    Attributes:
        folder: private; there for as long as somebody waits for the answer.
        record: the conversation and its files.
        modal: what of its media is used.
        how: options of transformers' ``generate``.
        seed: of sampling.
        stops: where the answer ends, too.
        stream: it is wanted piece by piece.
        notes: what of the request is not heeded.
    """

    folder: Path
    record: Record
    modal: str | None
    how: Mapping[str, Any]
    seed: int | None
    stops: tuple[str, ...]
    stream: bool
    notes: tuple[str, ...]


def read_request(body: bytes | bytearray, name: str) -> Asked:
    """The checked body of a request.

    Args:
        body: JSON.
        name: of the model that is served.

    Raises:
        Refused: something in it does not hold, or asks for what there is not.
    """
    try:
        asked = Asked.model_validate_json(body)
    except ValidationError as error:
        wrong = [f"{'.'.join(map(str, one['loc'])) or 'the body'}: {one['msg']}" for one in error.errors()[:3]]
        raise Refused("bad_request", "; ".join(wrong)[:1000]) from None
    if asked.model not in ("", name):
        raise Refused("model_not_found", f"model: {asked.model[:80]!r} is not served here; {name!r} is.", 404)
    extra = asked.model_extra or {}
    for key, nothing in NOTHING.items():
        if extra.get(key) is not None and extra[key] not in nothing:
            raise Refused(
                "unsupported_option", f"{key}: {str(extra[key])[:80]} asks for what this server has not; leave it out."
            )
    if asked.modal is not None and asked.modal not in MODALS:
        raise Refused("bad_request", f"modal: {asked.modal[:80]!r}; choose from {', '.join(MODALS)}, or leave it out.")
    return asked


def question_of(
    asked: Asked, uploads: Uploads, folder: Path, tokens: int, most_tokens: int, most_characters: int
) -> Question:
    """A request -> the question, its media in files that were looked at.

    Args:
        asked: the request.
        uploads: takes the media.
        folder: private, for them.
        tokens: of an answer whose request says no number.
        most_tokens: that a request may ask for.
        most_characters: of the whole conversation.

    Raises:
        Refused: it is no conversation that the model can have, or asks for too much.
    """
    wanted = asked.max_completion_tokens or asked.max_tokens or tokens
    if wanted > most_tokens:
        raise Refused("bad_request", f"max_tokens: {wanted}; at most {most_tokens} are given (most_tokens=).")
    until = [asked.stop] if isinstance(asked.stop, str) else asked.stop or []
    if len(until) > 16 or not all(0 < len(stop) <= 100 for stop in until):
        raise Refused("bad_request", "stop: give at most 16 texts of 1 to 100 characters.")
    given = asked.model_dump(include={"temperature", "top_p", "top_k", "repetition_penalty"})
    how, stops, _ = options_of({**given, "max_new_tokens": wanted, "until": until})
    system, turns = _without_system(asked.messages)
    if (characters := sum(_characters(turn) for turn in asked.messages)) > most_characters:
        raise Refused(
            "context_length_exceeded", f"messages: {characters} characters; at most {most_characters} are read."
        )
    first = len(asked.messages) - len(turns)
    media = [_files(turn, number, uploads, folder) for number, turn in enumerate(turns, first)]
    try:
        record = record_of(media, "request", "messages", folder, {"system": system} if system else None)
    except ValueError as error:
        raise Refused(getattr(error, "reason", "bad_request"), str(error)) from None
    if record.kind == "text" and not record.messages[-2][1].strip():
        raise Refused("bad_request", "messages: the last one has neither text nor a medium.")
    ignored = sorted(set(asked.model_extra or {}) - set(NOTHING))
    notes = (f"not heeded: {', '.join(ignored)}"[:300],) if ignored else ()
    return Question(folder, record, asked.modal, how, asked.seed, stops, bool(asked.stream), notes)


def completion(name: str, said: Mapping[str, Any]) -> dict[str, Any]:
    """The body of a whole answer."""
    message = {"role": "assistant", "content": said["text"]}
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": said["end"]["reason"]}
    end = said["end"]
    return {**_head(name, "chat.completion"), "choices": [choice], "usage": end["usage"], "omnihuman": end["more"]}


def chunks(name: str, asked: Asked) -> "Chunks":
    """What writes the events of a streamed answer."""
    return Chunks(_head(name, "chat.completion.chunk"), bool((asked.stream_options or {}).get("include_usage")))


@dataclass
class Chunks:
    """Events of one streamed answer.

    Attributes:
        head: what all have in common.
        with_usage: one more at the end counts the tokens.
        begun: the first says whose message it is.
    """

    head: Mapping[str, Any]
    with_usage: bool
    begun: bool = False

    def of(self, said: Mapping[str, Any]) -> str:
        """A piece of the answer, or its end, as events."""
        events, delta = list[dict[str, Any]](), {"content": said["text"]}
        if not self.begun:
            delta, self.begun = {"role": "assistant", **delta}, True
        if said["text"] or "role" in delta:
            events.append(self._choice(delta, None))
        if end := said.get("end"):
            events.append({**self._choice({}, end["reason"]), "omnihuman": end["more"]})
            if self.with_usage:
                events.append({**self.head, "choices": [], "usage": end["usage"]})
        return "".join(event(one) for one in events) + ("data: [DONE]\n\n" if end else "")

    def _choice(self, delta: Mapping[str, Any], reason: str | None) -> dict[str, Any]:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason}
        return {**self.head, "choices": [choice]}


def event(body: Mapping[str, Any]) -> str:
    r"""A server-sent event.

    >>> event({"text": "a\nb"})
    'data: {"text": "a\\nb"}\n\n'
    """
    return f"data: {json.dumps(body)}\n\n"


def error_body(error: Refused) -> dict[str, Any]:
    """A refusal as OpenAI's clients read it.

    >>> error_body(Refused("bad_request", "stop: give texts."))["error"]["type"]
    'invalid_request_error'
    """
    kind = "server_error" if error.status >= 500 else "invalid_request_error"
    place, colon, _ = str(error).partition(":")
    param = place if colon and " " not in place else None
    return {"error": {"message": str(error), "type": kind, "param": param, "code": error.code}}


def _head(name: str, kind: str) -> dict[str, Any]:
    return {"id": f"chatcmpl-{uuid.uuid4().hex}", "object": kind, "created": int(time.time()), "model": name}


def _without_system(messages: Sequence[Turn]) -> tuple[str, Sequence[Turn]]:
    """The text of the system message and the turns behind it."""
    if messages[0].role not in ("system", "developer"):
        return "", messages
    content = messages[0].content or ""
    if not isinstance(content, str) and any(part.type != "text" for part in content):
        raise Refused("bad_request", "messages.0: a system message is text.")
    text = content if isinstance(content, str) else "\n".join(part.text for part in content)
    return text.strip(), messages[1:]


def _characters(turn: Turn) -> int:
    return len(turn.content or "") if isinstance(turn.content, str | None) else sum(len(p.text) for p in turn.content)


def _files(turn: Turn, number: int, uploads: Uploads, folder: Path) -> dict[str, Any]:
    """A turn whose media are files."""
    if isinstance(turn.content, str | None):
        return {"role": turn.role, "content": turn.content or ""}
    parts, seen = list[dict[str, Any]](), set[str]()
    for place, part in enumerate(turn.content):
        what = f"messages.{number}.content.{place}"
        if part.type == "text":
            parts.append({"type": "text", "text": part.text})
            continue
        medium = getattr(part, part.type) if part.type in MEDIA else None
        if medium is None:
            raise Refused(
                "bad_request", f"{what}: a part is text, {', '.join(MEDIA)}, with its content under its type's name."
            )
        kind = MEDIA[part.type]
        if kind in seen:  # before more is kept and looked at
            raise Refused("bad_request", f"{what}: the model takes one {kind}; this message has more.")
        seen.add(kind)
        url = medium if isinstance(medium, str) else medium.url
        parts.append({"type": kind, "url": str(uploads.take(url, folder, what))})
    return {"role": turn.role, "content": parts}
