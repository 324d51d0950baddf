"""A language model behind an OpenAI-compatible endpoint as the judge."""

import hashlib
import logging
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any, Literal

from omnihuman.judge.base import Item, Judge, Missing, Protocol, Verdict
from omnihuman.judge.cache import Cache, Judgement, canonical_json
from omnihuman.judge.client import Client, NoReplyError, Usage, build_sampling, list_addresses
from omnihuman.judge.media import Delivery, Media
from omnihuman.judge.rule import RuleJudge

logger = logging.getLogger(__name__)
Prices = Mapping[str, Sequence[float]]


class EndpointJudge(Judge):
    """Items -> verdicts of a language model, each requested once and cached.

    Reference: the official scripts of Video-ChatGPT, Tarsier and AffectGPT query gpt-3.5 snapshots that are retired.
    Differs from them: replies are validated against a schema, retries are limited, a failed item is missing (lmms-eval
    counts it as 0, Video-ChatGPT retries forever), and equal items are judged once.

    Args:
        model: name at the endpoint; a snapshot rather than an alias.
        base_url: of the endpoint, or of several that share the requests; ``None``: OpenAI's.
        api_key_env: environment variable of the API key; ``None``: the endpoint requires none.
        mode: for items that are not in the cache: ``live`` requests them, ``cache_only`` leaves them missing,
            ``offline`` raises.
        cache: file of the judgements; ``None``: no cache.
        timeout: seconds per request.
        max_concurrency: number of concurrent requests.
        max_retries: per item, after which it is missing.
        max_failures: number of consecutive failed items after which the remaining ones are skipped, because the
            endpoint is down or the model does not follow the prompt.
        backoff: seconds of the first and of the longest wait.
        temperature: of the sampling; reasoning models have none.
        seed: of the sampling; repeat k has ``seed + k``.
        repeats: number of judgements per item.
        max_tokens: of a reply, reasoning included.
        reasoning: True for a reasoning model; ``None``: derived from the model's name.
        extra_body: further arguments of the request.
        prices: model -> dollars per million tokens [in, out].
        media: ``data``: images, videos and audio are in the requests; ``file``: their paths, for a server that may read
            them.

    >>> EndpointJudge("gpt-4o-2024-11-20", mode="offline", cache=None).id
    'gpt-4o-2024-11-20, T=0, seed 0'
    """

    def __init__(
        self,
        model: str,
        base_url: str | Sequence[str] | None = None,
        api_key_env: str | None = "OPENAI_API_KEY",
        mode: Literal["live", "cache_only", "offline"] = "live",
        cache: str | None = "judgements.sqlite",
        timeout: float = 120.0,
        max_concurrency: int = 8,
        max_retries: int = 5,
        max_failures: int = 20,
        backoff: Sequence[float] = (1.0, 60.0),
        temperature: float | None = 0.0,
        seed: int | None = 0,
        repeats: int = 1,
        max_tokens: int | None = 4096,
        reasoning: bool | None = None,
        extra_body: Mapping[str, Any] | None = None,
        prices: Prices | None = None,
        media: Delivery = "data",
    ) -> None:
        super().__init__()
        if mode == "cache_only" and cache is None:
            raise ValueError("judge mode=cache_only reads judgements from a cache, but cache is null; set the file.")
        if min(max_concurrency, repeats) < 1 or max_retries < 0 or len(backoff) != 2:
            raise ValueError(
                f"judge {model}: got max_concurrency={max_concurrency}, repeats={repeats}, max_retries={max_retries}, "
                f"backoff={list(backoff)}; expected at least 1, 1, 0, and two numbers of seconds."
            )
        for address in list_addresses(base_url):
            if not address.startswith(("http://", "https://")):
                raise ValueError(
                    f"judge {model}: base_url={address} must begin with http:// or https://, as in "
                    "http://localhost:8000/v1."
                )
        self.model, self.mode, self.repeats, self.seed = model, mode, repeats, seed
        self.max_concurrency, self.max_failures, self.prices = max_concurrency, max_failures, prices or {}
        self.sampling = build_sampling(model, temperature, max_tokens, reasoning)
        self.extra_body, self.media = dict(extra_body or {}), media
        self.id = self._build_id()
        read_only = mode == "cache_only" or (mode == "offline" and cache is not None and Path(cache).is_file())
        self.cache = None if cache is None else Cache(cache, read_only)
        self._num_failures = 0  # consecutive
        self._client: Client | None = None  # created with the first request: scoring from the cache needs no key
        self._client_args = (base_url, api_key_env, timeout, max_retries, tuple(backoff))

    def _build_id(self) -> str:
        parts = [self.model]
        if "temperature" in self.sampling:
            parts.append(f"T={self.sampling['temperature']:g}")
        if self.seed is not None:
            parts.append(f"seed {self.seed}")
        if self.repeats > 1:
            parts.append(f"mean of {self.repeats}")
        return ", ".join(parts)

    def cache_key(self, protocol: Protocol, item: Item, repeat: int = 0) -> str:
        """Return the cache key of a judgement: the digest of everything that determines it."""
        seed: int | str | None = self._repeat_seed(repeat)
        if seed is None:
            seed = f"none, repeat {repeat}"
        content = {
            "protocol": [protocol.name, protocol.version],
            "model": self.model,
            "sampling": self.sampling | self.extra_body,
            "seed": seed,
            "messages": protocol.build_messages(item, Media.describe),  # never their base64
            "schema": protocol.json_schema(),
        }
        return hashlib.sha256(canonical_json(content).encode(errors="surrogatepass")).hexdigest()

    def read_cache(self, protocol: Protocol, items: Mapping[str, Item]) -> dict[str, Verdict]:
        """Return the cached verdicts by cache key."""
        verdicts: dict[str, Verdict] = {}
        if self.cache is None:
            return verdicts
        for key, judgement in self.cache.get(items).items():
            try:
                reply = protocol.parse_reply(judgement.text, items[key])
            except ValueError:  # the check is stricter than when the reply was cached
                continue
            verdicts[key] = Verdict(reply, judgement.text, True, judgement.model)
        return verdicts

    def query(self, protocol: Protocol, items: Sequence[Item], repeat: int = 0) -> list[Verdict | None]:
        """Judge items in order; ``None`` where the judge failed.

        Raises:
            ValueError: the endpoint rejects every request, or ``mode=offline`` and an item is not in the cache.
        """
        start = perf_counter()
        keys = [self.cache_key(protocol, item, repeat) for item in items]
        unique_items = dict(zip(keys, items, strict=True))
        verdicts = self.read_cache(protocol, unique_items)
        uncached = {key: item for key, item in unique_items.items() if key not in verdicts}
        if uncached and self.mode == "offline":
            raise ValueError(self._offline_message(protocol, len(uncached), len(unique_items)))
        reasons = dict.fromkeys(uncached, Missing("not_cached", "not in the cache"))
        if uncached and self.mode == "live":
            verdicts |= self._judge_items(protocol, uncached, repeat, reasons)
        results = [verdicts.get(key) for key in keys]
        self.absences = [None if key in verdicts else reasons[key] for key in keys]
        missing = [absence.reason for absence in self.absences if absence]
        num_requested = sum(key in verdicts for key in uncached)
        self.ledger.add(results)
        for reason in missing:
            self.ledger.add_missing(reason)
        self.ledger.num_cached += len(keys) - len(missing) - num_requested
        self.ledger.seconds += perf_counter() - start
        if missing:
            reasons_text = sorted(set(missing))[:3]
            logger.warning(
                "judge %s: %d of %d %s missing: %s", self.id, len(missing), len(keys), protocol.name, reasons_text
            )
        return results

    @property
    def dollars(self) -> float | None:
        return _price(self.prices, self.model, self.ledger.tokens_in, self.ledger.tokens_out)

    def _judge_items(
        self, protocol: Protocol, items: Mapping[str, Item], repeat: int, reasons: dict[str, Missing]
    ) -> dict[str, Verdict]:
        """Request verdicts concurrently; ``reasons`` gets the error of each failed item."""
        if self._client is None:
            self._client = Client(self.model, *self._client_args, self.sampling, self.extra_body, self.note_call)
        self._client.stopped.clear()
        self._num_failures = 0
        verdicts = {}
        usages = {key: Usage() for key in items}
        judge_item = partial(self._judge_item, self._client, protocol, repeat)
        pool = ThreadPoolExecutor(self.max_concurrency, thread_name_prefix="judge")
        try:
            futures = {pool.submit(judge_item, key, item, usages[key]): key for key, item in items.items()}
            for future in as_completed(futures):
                key = futures[future]
                self._add_usage(usages[key])
                try:
                    judgement = future.result()
                except NoReplyError as error:
                    reasons[key] = error.missing
                    continue
                reply = protocol.parse_reply(judgement.text, items[key])
                verdicts[key] = Verdict(reply, judgement.text, False, judgement.model)
        except BaseException:  # a fatal error or Ctrl-C: wake the requests that wait for a retry
            self._client.stopped.set()
            raise
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
        return verdicts

    def _judge_item(
        self, client: Client, protocol: Protocol, repeat: int, key: str, item: Item, usage: Usage
    ) -> Judgement:
        """Request and cache one judgement; runs in a thread."""
        if self._num_failures >= self.max_failures:
            reason = f"skipped after {self.max_failures} consecutive failures"
            raise NoReplyError(Missing("skipped", reason))
        parse = partial(protocol.parse_reply, item=item)
        messages = protocol.build_messages(item, partial(Media.build_part, delivery=self.media))
        schema = protocol.json_schema()
        try:
            judgement = client.request(messages, protocol.name, schema, self._repeat_seed(repeat), parse, usage)
        except NoReplyError:
            self._num_failures += 1
            raise
        self._num_failures = 0
        if self.cache is not None:
            self.cache.put(key, protocol.name, judgement)  # at once: paid judgements survive a kill
        return judgement

    def _offline_message(self, protocol: Protocol, num_uncached: int, num_items: int) -> str:
        cache = f"cache={self.cache.path}" if self.cache else "cache=null"
        return (
            f"judge mode=offline sends no requests, and {cache} lacks {num_uncached} of {num_items} judgements of "
            f"{protocol.name}; request them with mode=live, or leave them missing with mode=cache_only."
        )

    def _add_usage(self, usage: Usage) -> None:
        self.ledger.num_calls += usage.calls
        self.ledger.tokens_in += usage.tokens_in
        self.ledger.tokens_out += usage.tokens_out

    def _repeat_seed(self, repeat: int) -> int | None:
        return None if self.seed is None else self.seed + repeat


@dataclass(frozen=True)
class Estimate:
    """Forecast cost of judging.

    Attributes:
        num_calls: requests, without retries.
        num_cached: judgements in the cache.
        tokens_in: of the prompts, roughly: four characters per token.
        tokens_out: of the replies, roughly, from replies of the rule judge; without reasoning.
        dollars: from the table of prices; ``None`` if it lacks the model.
    """

    num_calls: int
    num_cached: int
    tokens_in: int
    tokens_out: int
    dollars: float | None

    def __str__(self) -> str:
        price = "price unknown" if self.dollars is None else f"about ${self.dollars:.2f}"
        return (
            f"{self.num_calls:,} calls ({self.num_cached:,} more are in the cache), roughly {self.tokens_in:,} tokens "
            f"in and {self.tokens_out:,} out, {price}"
        )


def estimate(judge: Judge, *scores: Callable[[Judge], Any]) -> Estimate:
    """Forecast the cost of scores without a request.

    Where a prompt depends on an earlier reply (the events of a text), the reply of the rule judge is used.

    Args:
        judge: that would be queried.
        scores: functions that compute scores: ``lambda judge: judge_autodq(judge, references, answers)``.

    >>> str(estimate(RuleJudge(), lambda judge: None))
    '0 calls (0 more are in the cache), roughly 0 tokens in and 0 out, about $0.00'
    """
    if not isinstance(judge, EndpointJudge):
        return Estimate(0, 0, 0, 0, 0.0)
    dry_run = _DryRunJudge(judge)
    for score in scores:
        score(dry_run)
    tokens_in, tokens_out = -(-dry_run.characters_in // 4), -(-dry_run.characters_out // 4)
    dollars = _price(judge.prices, judge.model, tokens_in, tokens_out)
    return Estimate(len(dry_run.uncached), len(dry_run.cached), tokens_in, tokens_out, dollars)


class _DryRunJudge(RuleJudge):
    """Counts the requests of another judge, and replies from its cache or by rule."""

    def __init__(self, judge: EndpointJudge) -> None:
        super().__init__()
        self.judge, self.repeats = judge, judge.repeats
        self.uncached: set[str] = set()
        self.cached: set[str] = set()
        self.characters_in = self.characters_out = 0

    def query(self, protocol: Protocol, items: Sequence[Item], repeat: int = 0) -> list[Verdict | None]:
        keys = [self.judge.cache_key(protocol, item, repeat) for item in items]
        cached = self.judge.read_cache(protocol, dict(zip(keys, items, strict=True)))
        self.cached |= cached.keys()
        schema = canonical_json(protocol.json_schema())
        verdicts = []
        for key, item, verdict in zip(keys, items, super().query(protocol, items, repeat), strict=True):
            verdicts.append(cached.get(key, verdict))
            if key in cached or key in self.uncached:
                continue
            self.uncached.add(key)
            self.characters_in += len(schema) + _count_characters(protocol, item)
            self.characters_out += len(verdict.text) if verdict else 0
        return verdicts


def _count_characters(protocol: Protocol, item: Item) -> int:
    """Return the length of a prompt's texts; media are not counted, because servers differ in their tokens."""
    num_characters = 0
    for turn in protocol.build_messages(item, Media.describe):
        content = turn["content"]
        num_characters += len(content if isinstance(content, str) else content[-1]["text"])
    return num_characters


def _price(prices: Prices, model: str, tokens_in: int, tokens_out: int) -> float | None:
    price = prices.get(model)
    if price is None:
        return None
    dollars_in, dollars_out = price
    return (dollars_in * tokens_in + dollars_out * tokens_out) / 1e6
