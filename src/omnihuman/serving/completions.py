"""Chat completions: request bodies -> questions for the worker; the worker's replies -> response bodies."""

import json
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from omnihuman.data.messages import build_record, parse_generation_options
from omnihuman.data.record import Record
from omnihuman.modality import View
from omnihuman.serving.choices import Choices, parse_labels, parse_response_format
from omnihuman.serving.schema import ChatRequest, Message
from omnihuman.serving.uploads import RequestError, Uploads

MEDIA = {"image_url": "image", "video_url": "video", "audio_url": "audio", "input_audio": "audio"}
"""Type of a content part -> kind of its medium."""

NEUTRAL_VALUES: dict[str, tuple[Any, ...]] = {
    "n": (1,),
    "logprobs": (False,),
    "top_logprobs": (0,),
    "logit_bias": ({},),
    "presence_penalty": (0,),
    "frequency_penalty": (0,),
    "tools": ([],),
    "functions": ([],),
    "modalities": (["text"],),
    "guided_choice": (),  # of vLLM before structured_outputs, as the next three
    "guided_json": (),
    "guided_regex": (),
    "guided_grammar": (),
}
"""Options of OpenAI's interface that this server does not support -> the values without effect, beside null."""


GENERATION_OPTIONS = {
    "max_completion_tokens",
    "max_tokens",
    "repetition_penalty",
    "seed",
    "stop",
    "temperature",
    "top_k",
    "top_p",
}
"""Options without effect on an answer that is one of the choices."""


@dataclass(frozen=True, slots=True)
class Question:
    """A question for the worker.

    Attributes:
        folder: private folder of the request; it exists while the client waits.
        record: the conversation and its files.
        view: the part of the media that the model gets; ``None`` for all.
        generation_kwargs: arguments of transformers' ``generate``.
        seed: of sampling.
        stops: texts that end the answer.
        stream: send the answer in pieces.
        notes: options of the request that are ignored.
        choices: the answers that the request allows; ``None`` for free text.
    """

    folder: Path
    record: Record
    view: View | None
    generation_kwargs: Mapping[str, Any]
    seed: int | None
    stops: tuple[str, ...]
    stream: bool
    notes: tuple[str, ...]
    choices: Choices | None = None


def parse_request(body: bytes | bytearray, name: str) -> ChatRequest:
    """Parse and check the body of a request.

    Args:
        body: JSON.
        name: of the served model.

    Raises:
        RequestError: the body is invalid, or an option is not supported.
    """
    try:
        request = ChatRequest.model_validate_json(body)
    except ValidationError as error:
        problems = [f"{'.'.join(map(str, item['loc'])) or 'the body'}: {item['msg']}" for item in error.errors()[:3]]
        raise RequestError("bad_request", "; ".join(problems)[:1000]) from None
    check_model_name(request.model or name, name)
    extra = request.model_extra or {}
    for key, neutral in NEUTRAL_VALUES.items():
        value = extra.get(key)
        if value is not None and value not in neutral:
            raise RequestError("unsupported_option", f"{key}: {str(value)[:80]} is not supported; omit the option.")
    _parse_view(request)
    _parse_choices(request)
    return request


def _parse_choices(request: ChatRequest) -> Choices | None:
    """Return the choices of ``response_format``, or of vLLM's ``structured_outputs``."""
    outputs = request.structured_outputs
    if outputs is None:
        return parse_response_format(request.response_format)
    if {*outputs} != {"choice"} or request.response_format is not None:
        message = "structured_outputs: only choice is supported, without a response_format."
        raise RequestError("unsupported_option", message)
    return Choices(parse_labels(outputs["choice"], "structured_outputs.choice"))


def _parse_view(request: ChatRequest) -> View | None:
    if request.view is None:
        return None
    try:
        return View.parse(request.view)
    except ValueError as error:
        # clients read the name of the parameter before the colon
        raise RequestError("bad_request", str(error).replace("view=", "view: ", 1)) from None


def check_model_name(requested: str, name: str) -> None:
    """Check that a request names the served model.

    Raises:
        RequestError: it names another model.
    """
    if requested != name:
        raise RequestError("model_not_found", f"model: {requested[:80]!r} is not served here; {name!r} is.", 404)


def build_question(
    request: ChatRequest,
    uploads: Uploads,
    folder: Path,
    *,
    max_new_tokens: int,
    max_request_tokens: int,
    max_characters: int,
) -> Question:
    """Build the question of a request, with its media as checked files.

    Args:
        request: a checked request.
        uploads: fetches the media.
        folder: private folder for the media.
        max_new_tokens: for a request without a number.
        max_request_tokens: largest number that a request may set.
        max_characters: largest length of the conversation.

    Raises:
        RequestError: the conversation is invalid, or a limit is exceeded.
    """
    max_tokens = request.max_completion_tokens or request.max_tokens or max_new_tokens
    if max_tokens > max_request_tokens:
        message = f"max_tokens: {max_tokens} exceeds the limit of {max_request_tokens} (max_request_tokens=)."
        raise RequestError("bad_request", message)
    options = request.model_dump(include={"temperature", "top_p", "top_k", "repetition_penalty"})
    options |= {"max_new_tokens": max_tokens, "until": _list_stops(request)}
    try:
        generation_kwargs, stops, _ = parse_generation_options(options)
    except ValueError as error:
        raise RequestError("bad_request", str(error)) from None
    num_characters = sum(_count_characters(message) for message in request.messages)
    if num_characters > max_characters:
        message = f"messages: {num_characters} characters exceed the limit of {max_characters}."
        raise RequestError("context_length_exceeded", message)
    choices = _parse_choices(request)
    ignored = sorted(set(request.model_extra or {}) - set(NEUTRAL_VALUES))
    if choices:  # the most probable one is the answer
        ignored += sorted(request.model_dump(include=set(GENERATION_OPTIONS), exclude_none=True))
        stops = ()
    notes: tuple[str, ...] = ()
    if ignored:
        notes = (f"ignored: {', '.join(ignored)}"[:300],)
    return Question(
        folder=folder,
        record=_build_record(request, uploads, folder),
        view=_parse_view(request),
        generation_kwargs=generation_kwargs,
        seed=request.seed,
        stops=stops,
        stream=bool(request.stream),
        notes=notes,
        choices=choices,
    )


def _list_stops(request: ChatRequest) -> list[str]:
    stops = [request.stop] if isinstance(request.stop, str) else request.stop or []
    if len(stops) > 16 or not all(0 < len(stop) <= 100 for stop in stops):
        raise RequestError("bad_request", "stop: expected at most 16 texts of 1 to 100 characters.")
    return stops


def _build_record(request: ChatRequest, uploads: Uploads, folder: Path) -> Record:
    """Build the record of a conversation; its media become files in the folder."""
    system, messages = _split_system(request.messages)
    first = len(request.messages) - len(messages)
    turns = [_fetch_media(message, number, uploads, folder) for number, message in enumerate(messages, first)]
    try:
        record = build_record(turns, "request", "messages", folder, {"system": system} if system else None)
    except ValueError as error:
        raise RequestError(getattr(error, "reason", "bad_request"), str(error)) from None
    if record.kind == "text" and not record.messages[-2][1].strip():
        raise RequestError("bad_request", "messages: the last one has neither text nor a medium.")
    return record


def build_completion(name: str, reply: Mapping[str, Any]) -> dict[str, Any]:
    """Build the response body of a complete answer."""
    end = reply["end"]
    message = {"role": "assistant", "content": reply["text"]}
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": end["reason"]}
    head = _build_head(name, "chat.completion")
    return {**head, "choices": [choice], "usage": end["usage"], "omnihuman": end["more"]}


class ChunkEncoder:
    """Encode the replies to one question as server-sent events.

    Args:
        name: of the model.
        with_usage: end with an event that counts the tokens.
    """

    def __init__(self, name: str, with_usage: bool) -> None:
        self.head = _build_head(name, "chat.completion.chunk")
        self.with_usage = with_usage
        self._is_first = True

    def encode(self, reply: Mapping[str, Any]) -> str:
        """Encode a piece of the answer, or its end."""
        chunks: list[dict[str, Any]] = []
        delta = {"content": reply["text"]}
        if self._is_first:
            delta = {"role": "assistant", **delta}
        if reply["text"] or self._is_first:
            chunks.append(self._build_chunk(delta, None))
        self._is_first = False
        end = reply.get("end")
        if end:
            chunks.append({**self._build_chunk({}, end["reason"]), "omnihuman": end["more"]})
        if end and self.with_usage:
            chunks.append({**self.head, "choices": [], "usage": end["usage"]})
        events = [encode_event(chunk) for chunk in chunks]
        if end:
            events.append("data: [DONE]\n\n")
        return "".join(events)

    def _build_chunk(self, delta: Mapping[str, Any], reason: str | None) -> dict[str, Any]:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason}
        return {**self.head, "choices": [choice]}


def encode_event(body: Mapping[str, Any]) -> str:
    r"""Encode a server-sent event.

    >>> encode_event({"text": "a\nb"})
    'data: {"text": "a\\nb"}\n\n'
    """
    return f"data: {json.dumps(body)}\n\n"


def build_error_body(error: RequestError) -> dict[str, Any]:
    """Build the response body of an error, in the form of OpenAI.

    >>> build_error_body(RequestError("bad_request", "stop: expected texts."))["error"]["type"]
    'invalid_request_error'
    """
    kind = "server_error" if error.status >= 500 else "invalid_request_error"
    prefix, colon, _ = str(error).partition(":")
    param = prefix if colon and " " not in prefix else None
    return {"error": {"message": str(error), "type": kind, "param": param, "code": error.code}}


def _build_head(name: str, kind: str) -> dict[str, Any]:
    return {"id": f"chatcmpl-{uuid.uuid4().hex}", "object": kind, "created": int(time.time()), "model": name}


def _split_system(messages: Sequence[Message]) -> tuple[str, Sequence[Message]]:
    """Return the text of the system message and the messages after it."""
    if messages[0].role not in ("system", "developer"):
        return "", messages
    content = messages[0].content or ""
    if isinstance(content, str):
        return content.strip(), messages[1:]
    if any(part.type != "text" for part in content):
        raise RequestError("bad_request", "messages.0: a system message must be text.")
    return "\n".join(part.text for part in content).strip(), messages[1:]


def _count_characters(message: Message) -> int:
    if isinstance(message.content, list):
        return sum(len(part.text) for part in message.content)
    return len(message.content or "")


def _fetch_media(message: Message, number: int, uploads: Uploads, folder: Path) -> dict[str, Any]:
    """Return a message with its media as files."""
    if not isinstance(message.content, list):
        return {"role": message.role, "content": message.content or ""}
    parts: list[dict[str, Any]] = []
    kinds: set[str] = set()
    for index, part in enumerate(message.content):
        label = f"messages.{number}.content.{index}"
        if part.type == "text":
            parts.append({"type": "text", "text": part.text})
            continue
        medium = getattr(part, part.type) if part.type in MEDIA else None
        if medium is None:
            expected = f"text, {', '.join(MEDIA)}, with its content under the name of its type"
            raise RequestError("bad_request", f"{label}: expected a part of type {expected}.")
        kind = MEDIA[part.type]
        if kind != "image" and kind in kinds:  # before another file is saved and checked
            raise RequestError("bad_request", f"{label}: a message may have one {kind}; this one has more.")
        kinds.add(kind)
        url = medium if isinstance(medium, str) else medium.url
        parts.append({"type": kind, "url": str(uploads.fetch(url, folder, label))})
    return {"role": message.role, "content": parts}
