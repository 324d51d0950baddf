"""Requests to an OpenAI-compatible endpoint: response formats, retries and fatal errors."""

import itertools
import logging
import os
import re
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from time import perf_counter
from typing import TYPE_CHECKING, Any

from tenacity import (
    RetryCallState,
    Retrying,
    retry_if_exception_type,
    sleep_using_event,
    stop_after_attempt,
    wait_random_exponential,
)

from omnihuman.judge.base import Missing
from omnihuman.judge.cache import Judgement

if TYPE_CHECKING:
    import openai
    from openai.types.chat import ChatCompletion

logger = logging.getLogger(__name__)
RESPONSE_FORMATS = ("json_schema", "json_object", "text")
"""From strict to lax."""
RETRYABLE = (408, 409, 429)
"""HTTP statuses of temporary errors, in addition to 5xx."""
FATAL = (401, 403, 404)
"""HTTP statuses that every other request would get too."""
REASONING = re.compile(r"(^|/)(gpt-5|o[134](-|$))")
"""Reasoning models: they reject a temperature and count the reasoning as reply tokens."""
MAX_SAMPLE = 80
"""Characters of an invalid reply in its error."""


class RetryableError(Exception):
    """A temporary error.

    Attributes:
        missing: the reason.
        retry_after: seconds to wait, as the endpoint requests.
    """

    def __init__(self, missing: Missing, retry_after: float = 0.0) -> None:
        super().__init__(str(missing))
        self.missing, self.retry_after = missing, retry_after


class NoReplyError(Exception):
    """The retries of an item are exhausted; other items may succeed.

    Attributes:
        missing: the reason.
    """

    def __init__(self, missing: Missing) -> None:
        super().__init__(str(missing))
        self.missing = missing


@dataclass
class Usage:
    """Cost of an item, failed requests included."""

    calls: int = 0
    tokens_in: int = 0
    tokens_out: int = 0


class Client:
    """Messages -> a judgement that the caller can parse.

    Reference: the ``openai`` client, which supports OpenAI, Azure's ``/openai/v1``, vLLM, SGLang and Ollama. vLLM has
    removed its own ``guided_json`` in 0.12; the standard ``response_format`` works there, too.

    Args:
        model: name at the endpoint.
        base_url: of the endpoint, or of several that take the requests in turn; ``None``: OpenAI's. One that cannot be
            connected to leaves, as long as another is left.
        api_key_env: environment variable of the API key; ``None``: the endpoint requires none.
        timeout: seconds per request.
        max_retries: after 408, 409, 429, 5xx, broken connections and invalid replies.
        backoff: seconds of the first and of the longest wait; it doubles in between, with jitter.
        sampling: arguments of the request that determine the reply.
        extra_body: further arguments that are not part of OpenAI's interface.
        note_call: called before every request.
    """

    def __init__(
        self,
        model: str,
        base_url: str | Sequence[str] | None,
        api_key_env: str | None,
        timeout: float,
        max_retries: int,
        backoff: Sequence[float],
        sampling: Mapping[str, Any],
        extra_body: Mapping[str, Any],
        note_call: Callable[[], None] = lambda: None,
    ) -> None:
        self.note_call = note_call
        self.model, self.base_url, self.timeout = model, base_url, timeout
        self.sampling, self.extra_body = dict(sampling), dict(extra_body)
        self.max_retries, self.max_wait = max_retries, backoff[1]
        self.format_index = 0  # of the strictest format that the endpoint has not rejected
        self.stopped = threading.Event()  # when set, requests that wait for a retry fail at once
        self._backoff = wait_random_exponential(multiplier=backoff[0], max=backoff[1], min=backoff[0] / 2)
        self._key = ""
        if api_key_env:
            self._key = os.environ.get(api_key_env, "").strip()
            if not self._key:
                raise ValueError(
                    f"judge {model}: the environment variable {api_key_env} is empty; set it to the endpoint's key, or "
                    "set api_key_env=null if the endpoint requires none."
                )
        addresses: list[str | None] = [*list_addresses(base_url)]
        self._apis = [self._connect(address) for address in addresses or [None]]
        self._turn = itertools.count()

    def request(
        self,
        messages: Sequence[Mapping[str, Any]],
        name: str,
        schema: Mapping[str, Any],
        seed: int | None,
        parse: Callable[[str], Any],
        usage: Usage,
    ) -> Judgement:
        """Send a request until a reply is valid.

        Args:
            messages: the chat.
            name: of the schema.
            schema: of the reply.
            seed: of the sampling.
            parse: text -> validated reply; its ``ValueError`` marks an invalid reply.
            usage: updated with every request.

        Raises:
            NoReplyError: all retries failed.
            ValueError: the endpoint rejects every request: the key, the model or the address is wrong.
        """
        retrying = Retrying(
            retry=retry_if_exception_type(RetryableError),
            stop=stop_after_attempt(self.max_retries + 1),
            wait=self._wait_seconds,
            sleep=sleep_using_event(self.stopped),
            reraise=True,
        )
        body = {"model": self.model, "messages": list(messages), **self.sampling, "extra_body": self.extra_body}
        if seed is not None:
            body["seed"] = seed
        try:
            judgement: Judgement = retrying(self._try_formats, body, name, schema, parse, usage)
        except RetryableError as error:
            raise NoReplyError(error.missing) from None
        return judgement

    def _connect(self, address: str | None) -> "openai.OpenAI":
        import openai

        logging.getLogger("httpx").setLevel(logging.WARNING)  # a line per request would hide our warnings
        # Retries are counted here, because the library does not check the form of a reply.
        return openai.OpenAI(api_key=self._key or "none", base_url=address, timeout=self.timeout, max_retries=0)

    def _wait_seconds(self, state: RetryCallState) -> float:
        error = state.outcome.exception() if state.outcome else None
        retry_after = error.retry_after if isinstance(error, RetryableError) else 0.0
        return max(self._backoff(state), min(retry_after, self.max_wait))

    def _try_formats(
        self,
        body: Mapping[str, Any],
        name: str,
        schema: Mapping[str, Any],
        parse: Callable[[str], Any],
        usage: Usage,
    ) -> Judgement:
        if self.stopped.is_set():
            raise NoReplyError(Missing("skipped", "not sent: another request failed for good"))
        first = self.format_index
        for index in range(first, len(RESPONSE_FORMATS)):
            response_format = RESPONSE_FORMATS[index]
            start = perf_counter()
            is_last = index == len(RESPONSE_FORMATS) - 1
            completion = self._send({**body, **_format_arguments(response_format, name, schema)}, usage, is_last)
            if completion is None:
                continue
            # Only a success proves that the endpoint rejected the format: a 400 may also reject this one text.
            if index > self.format_index:
                logger.info(
                    "judge %s: the endpoint rejects %s; using %s", self.model, RESPONSE_FORMATS[first], response_format
                )
                self.format_index = index
            return self._build_judgement(completion, parse, usage, perf_counter() - start, response_format)
        raise AssertionError

    def _send(self, body: Mapping[str, Any], usage: Usage, is_last: bool) -> "ChatCompletion | None":
        """Return the endpoint's completion; ``None`` if it rejects the request and a laxer format is left."""
        import openai

        self.note_call()
        usage.calls += 1
        apis = self._apis
        api = apis[next(self._turn) % len(apis)]
        try:
            completion: ChatCompletion = api.chat.completions.create(**body)
        except openai.APITimeoutError:
            raise RetryableError(Missing("timeout", f"no reply in {self.timeout:g} s")) from None
        except openai.APIConnectionError as error:
            self._leave(api)
            missing = Missing("no_connection", f"no connection ({type(error.__cause__).__name__})")
            raise RetryableError(missing) from None
        except openai.APIStatusError as error:
            self._raise_for_status(error)
            if is_last:
                reason = f"rejected: {self._hide_key(str(error.message))[:300]}"
                raise NoReplyError(Missing("rejected", reason)) from None
            return None
        except (openai.APIError, ValueError) as error:
            raise RetryableError(Missing("invalid_reply", f"no chat completion ({type(error).__name__})")) from None
        return completion

    def _leave(self, api: "openai.OpenAI") -> None:
        """Send no more requests to an endpoint that cannot be connected to, unless it is the last one."""
        remaining = [other for other in self._apis if other is not api]
        if remaining and len(remaining) < len(self._apis):
            logger.warning("judge %s: %s cannot be connected to; it gets no more requests", self.model, api.base_url)
            self._apis = remaining

    def _raise_for_status(self, error: "openai.APIStatusError") -> None:
        """Raise if the error is fatal or retryable; other errors may concern the response format or the text."""
        status = error.status_code
        if status in FATAL or error.code == "insufficient_quota":
            reason = self._hide_key(str(error.message))[:300]
            endpoint = self.base_url or "OpenAI"
            raise ValueError(f"judge {self.model} at {endpoint}: {reason}; correct model, base_url or key.") from None
        if status in RETRYABLE or status >= 500:
            retry_after = _parse_seconds(error.response.headers.get("retry-after"))
            raise RetryableError(Missing("server_error", f"status {status}"), retry_after) from None

    def _build_judgement(
        self, completion: Any, parse: Callable[[str], Any], usage: Usage, seconds: float, response_format: str
    ) -> Judgement:
        reported = getattr(completion, "usage", None)
        tokens_in, tokens_out = 0, 0
        if reported:
            tokens_in, tokens_out = reported.prompt_tokens, reported.completion_tokens
        usage.tokens_in += tokens_in or 0
        usage.tokens_out += tokens_out or 0
        text = _read_text(completion)
        try:
            text.encode()  # a lone surrogate can neither be stored nor sent in a later prompt
            parsed = parse(text).model_dump_json()
        except ValueError as error:
            logger.debug("judge %s: invalid reply (%s): %.200s", self.model, error, text)
            sample = " ".join(text.encode(errors="replace").decode().split())[:MAX_SAMPLE]
            raise RetryableError(Missing("invalid_reply", "the reply is invalid", sample)) from None
        return Judgement(
            text=text,
            parsed=parsed,
            tokens_in=tokens_in,
            tokens_out=tokens_out,
            model=completion.model or self.model,
            fingerprint=completion.system_fingerprint or "",
            time=datetime.now(UTC).isoformat(timespec="seconds"),
            seconds=round(seconds, 3),
            response_format=response_format,
        )

    def _hide_key(self, text: str) -> str:
        return text.replace(self._key, "***") if self._key else text


def list_addresses(base_url: str | Sequence[str] | None) -> list[str]:
    """Return the addresses of endpoints: several, one, or none for OpenAI's.

    >>> list_addresses("http://localhost:8000/v1"), list_addresses(None)
    (['http://localhost:8000/v1'], [])
    """
    if base_url is None:
        return []
    return [base_url] if isinstance(base_url, str) else list(base_url)


def build_sampling(
    model: str, temperature: float | None, max_tokens: int | None, reasoning: bool | None = None
) -> dict[str, Any]:
    """Build the sampling arguments of a model: reasoning models reject a temperature and rename the token limit.

    Args:
        model: its name.
        temperature: ``None``: the endpoint's default.
        max_tokens: of a reply; ``None``: the endpoint's default.
        reasoning: True for a reasoning model; ``None``: derived from its name.

    >>> build_sampling("o3-mini", 0.0, 100), build_sampling("gpt-4o", 0.0, 100)
    ({'max_completion_tokens': 100}, {'max_tokens': 100, 'temperature': 0.0})
    """
    if reasoning is None:
        reasoning = bool(REASONING.search(model))
    sampling: dict[str, Any] = {}
    if max_tokens is not None:
        sampling["max_completion_tokens" if reasoning else "max_tokens"] = max_tokens
    if temperature is not None and not reasoning:
        sampling["temperature"] = float(temperature)  # 0 and 0.0 must give the same cache key
    return sampling


def _format_arguments(response_format: str, name: str, schema: Mapping[str, Any]) -> dict[str, Any]:
    if response_format == "json_schema":
        strict_schema = {"name": name, "schema": dict(schema), "strict": True}
        return {"response_format": {"type": response_format, "json_schema": strict_schema}}
    if response_format == "json_object":
        return {"response_format": {"type": response_format}}
    return {}


def _read_text(completion: Any) -> str:
    choices = getattr(completion, "choices", None)  # a proxy may reply with a text or a page of HTML, parsed as str
    if not choices or not choices[0].message.content:
        raise RetryableError(Missing("invalid_reply", "no text in the reply"))
    if choices[0].finish_reason == "length":  # a truncated list could still be repaired to a valid list
        raise RetryableError(Missing("invalid_reply", "the reply is truncated (max_tokens)"))
    return str(choices[0].message.content)


def _parse_seconds(header: str | None) -> float:
    try:
        return max(0.0, float(header or 0))
    except ValueError:  # a date: valid HTTP, but no known endpoint sends one
        return 0.0
