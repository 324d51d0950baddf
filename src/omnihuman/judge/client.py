"""One question to an OpenAI-compatible endpoint: the form of the reply, patience, and when to give up."""

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

from omnihuman.judge.cache import Judgement

if TYPE_CHECKING:
    from openai import OpenAI
    from openai.types.chat import ChatCompletion

logger = logging.getLogger(__name__)
FORMS = ("json_schema", "json_object", "text")
"""How a reply's form can be asked for, the strictest first."""
PASSING = (408, 409, 429)
"""Refusals that pass, besides the server's own errors (5xx)."""
FATAL = (401, 403, 404)
"""Refusals that all other questions would meet, too."""
REASONING = re.compile(r"(^|/)(gpt-5|o[134](-|$))")
"""Models that think: they take no temperature and count the thinking as tokens."""


class Passing(Exception):
    """What may go well another time.

    Attributes:
        after: seconds that the endpoint asks to wait.
    """

    def __init__(self, reason: str, after: float = 0.0) -> None:
        super().__init__(reason)
        self.after = after


class GivenUp(Exception):
    """This question has no reply; others may have one."""


@dataclass
class Spent:
    """What a question took, tries without success included."""

    calls: int = 0
    tokens_in: int = 0
    tokens_out: int = 0


class Client:
    """Messages in, a judgement out that the caller could read.

    Reference: the ``openai`` client, which speaks to OpenAI, Azure's ``/openai/v1``, vLLM, SGLang and Ollama alike.
    vLLM's own ``guided_json`` is gone since 0.12; the standard ``response_format`` works there, too.

    Args:
        model: as the endpoint calls it.
        base_url: of the endpoint; ``None``: OpenAI's.
        api_key_env: environment variable that holds the key; ``None``: the endpoint wants none.
        timeout: seconds for one reply.
        max_retries: after the first try: for 408, 409, 429, 5xx, broken connections and replies of the wrong form.
        backoff: seconds of the first wait and of the longest; between them it doubles, with jitter.
        sampling: arguments of the request that decide the reply.
        extra_body: further ones that are not in OpenAI's interface.
    """

    def __init__(
        self,
        model: str,
        base_url: str | None,
        api_key_env: str | None,
        timeout: float,
        max_retries: int,
        backoff: Sequence[float],
        sampling: Mapping[str, Any],
        extra_body: Mapping[str, Any],
    ) -> None:
        self.model, self.base_url, self.timeout = model, base_url, timeout
        self.sampling, self.extra_body = dict(sampling), dict(extra_body)
        self.max_retries, self.longest = max_retries, backoff[1]
        self.form = 0  # the strictest that the endpoint has not refused yet
        self.halted = threading.Event()  # set: whoever waits for another try gives up
        self._backoff = wait_random_exponential(multiplier=backoff[0], max=backoff[1], min=backoff[0] / 2)
        self._key = ""
        if api_key_env:
            self._key = os.environ.get(api_key_env, "").strip()
            if not self._key:
                raise ValueError(
                    f"judge {model}: the environment variable {api_key_env} is empty; put the endpoint's key there, or "
                    "set api_key_env=null where it wants none."
                )
        self._api = self._connect()

    def ask(
        self,
        messages: Sequence[Mapping[str, str]],
        name: str,
        schema: Mapping[str, Any],
        seed: int | None,
        read: Callable[[str], Any],
        spent: Spent,
    ) -> Judgement:
        """The first reply that can be read.

        Args:
            messages: the chat.
            name: of the schema.
            schema: of the reply.
            seed: of the sampling.
            read: text -> the checked reply; its ``ValueError`` is a reply of the wrong form.
            spent: grows with every request.

        Raises:
            GivenUp: no try led to a reply that can be read.
            ValueError: the endpoint refuses all questions: the key, the model or the address is wrong.
        """
        tries = Retrying(
            retry=retry_if_exception_type(Passing),
            stop=stop_after_attempt(self.max_retries + 1),
            wait=self._wait,
            sleep=sleep_using_event(self.halted),
            reraise=True,
        )
        request = {"model": self.model, "messages": list(messages), **self.sampling, "extra_body": self.extra_body}
        if seed is not None:
            request["seed"] = seed
        try:
            judgement: Judgement = tries(self._try, request, name, schema, read, spent)
        except Passing as error:
            raise GivenUp(str(error)) from None
        return judgement

    def _connect(self) -> "OpenAI":
        from openai import OpenAI

        logging.getLogger("httpx").setLevel(logging.WARNING)  # a line for each call would hide what is missing
        # retries are counted here, not in the library, which knows nothing of the reply's form
        return OpenAI(api_key=self._key or "none", base_url=self.base_url, timeout=self.timeout, max_retries=0)

    def _wait(self, state: RetryCallState) -> float:
        error = state.outcome.exception() if state.outcome else None
        asked = error.after if isinstance(error, Passing) else 0.0
        return max(self._backoff(state), min(asked, self.longest))

    def _try(
        self,
        request: Mapping[str, Any],
        name: str,
        schema: Mapping[str, Any],
        read: Callable[[str], Any],
        spent: Spent,
    ) -> Judgement:
        if self.halted.is_set():
            raise GivenUp("not asked again")
        first = self.form
        for form in range(first, len(FORMS)):
            started = perf_counter()
            completion = self._send({**request, **_form(FORMS[form], name, schema)}, spent, last=form == len(FORMS) - 1)
            if completion is None:
                continue
            if form > self.form:  # only now: a 400 may also mean that this one text is refused
                logger.info(
                    "judge %s: the endpoint takes no %s; going on with %s", self.model, FORMS[first], FORMS[form]
                )
                self.form = form
            return self._read(completion, read, spent, perf_counter() - started, FORMS[form])
        raise AssertionError

    def _send(self, request: Mapping[str, Any], spent: Spent, last: bool) -> "ChatCompletion | None":
        """The endpoint's reply; ``None`` where it refuses the request and a laxer form is left."""
        import openai

        spent.calls += 1
        try:
            completion: ChatCompletion = self._api.chat.completions.create(**request)
        except openai.APITimeoutError:
            raise Passing(f"no reply in {self.timeout:g} s") from None
        except openai.APIConnectionError as error:
            raise Passing(f"no connection ({type(error.__cause__).__name__})") from None
        except openai.APIStatusError as error:
            status, why = error.status_code, self._hide(str(error.message))[:300]
            if status in FATAL or error.code == "insufficient_quota":
                where = self.base_url or "OpenAI"
                raise ValueError(f"judge {self.model} at {where}: {why}; correct model, base_url or key.") from None
            if status in PASSING or status >= 500:
                raise Passing(f"status {status}", _seconds(error.response.headers.get("retry-after"))) from None
            if last:
                raise GivenUp(f"refused: {why}") from None
            return None
        except (openai.APIError, ValueError) as error:
            raise Passing(f"no chat completion ({type(error).__name__})") from None
        return completion

    def _read(self, completion: Any, read: Callable[[str], Any], spent: Spent, seconds: float, form: str) -> Judgement:
        if usage := getattr(completion, "usage", None):
            spent.tokens_in += usage.prompt_tokens or 0
            spent.tokens_out += usage.completion_tokens or 0
        choices = getattr(completion, "choices", None)  # a text or a page of HTML comes as a str
        if not choices or not choices[0].message.content:
            raise Passing("no text in the reply")
        if choices[0].finish_reason == "length":  # half a list could still be mended to a list
            raise Passing("the reply is cut short (max_tokens)")
        text = choices[0].message.content
        try:
            text.encode()  # half a surrogate pair could neither be kept nor asked about
            parsed = read(text).model_dump_json()
        except ValueError as error:
            logger.debug("judge %s: a reply of the wrong form (%s): %.200s", self.model, error, text)
            raise Passing("a reply of the wrong form") from None
        return Judgement(
            text=text,
            parsed=parsed,
            tokens_in=usage.prompt_tokens if usage else 0,
            tokens_out=usage.completion_tokens if usage else 0,
            model=completion.model or self.model,
            fingerprint=completion.system_fingerprint or "",
            time=datetime.now(UTC).isoformat(timespec="seconds"),
            seconds=round(seconds, 3),
            form=form,
        )

    def _hide(self, text: str) -> str:
        return text.replace(self._key, "***") if self._key else text


def sampling(
    model: str, temperature: float | None, max_tokens: int | None, reasoning: bool | None = None
) -> dict[str, Any]:
    """The arguments that a model takes: those that think refuse a temperature, and call the limit otherwise.

    Args:
        model: its name.
        temperature: ``None``: the endpoint's own.
        max_tokens: of a reply; ``None``: the endpoint's own.
        reasoning: whether it thinks; ``None``: as its name says.

    >>> sampling("o3-mini", 0.0, 100), sampling("gpt-4o", 0.0, 100)
    ({'max_completion_tokens': 100}, {'max_tokens': 100, 'temperature': 0.0})
    """
    thinks = bool(REASONING.search(model)) if reasoning is None else reasoning
    chosen: dict[str, Any] = {}
    if max_tokens is not None:
        chosen["max_completion_tokens" if thinks else "max_tokens"] = max_tokens
    if temperature is not None and not thinks:
        chosen["temperature"] = float(temperature)  # 0 and 0.0 are one key
    return chosen


def _form(form: str, name: str, schema: Mapping[str, Any]) -> dict[str, Any]:
    if form == "json_schema":
        wanted = {"name": name, "schema": dict(schema), "strict": True}
        return {"response_format": {"type": form, "json_schema": wanted}}
    return {"response_format": {"type": form}} if form == "json_object" else {}


def _seconds(header: str | None) -> float:
    try:
        return max(0.0, float(header or 0))
    except ValueError:  # a date, which nobody sends
        return 0.0
