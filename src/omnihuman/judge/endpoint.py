"""A language model behind an OpenAI-compatible endpoint as the judge."""

import hashlib
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any, Literal

from omnihuman.judge.base import Item, Judge, Protocol, Verdict
from omnihuman.judge.cache import Cache, Judgement, compact
from omnihuman.judge.client import Client, GivenUp, Spent, sampling
from omnihuman.judge.rule import RuleJudge

logger = logging.getLogger(__name__)
Prices = Mapping[str, Sequence[float]]


class EndpointJudge(Judge):
    """Texts -> verdicts of a language model, each asked for once and kept.

    Reference: the official scripts of Video-ChatGPT, Tarsier and AffectGPT each ask gpt-3.5 snapshots that are retired.
    Differs from them: replies are held to a schema, tries are counted, a reply that never comes is missing (lmms-eval
    counts it as 0, Video-ChatGPT asks for ever), and nothing is asked twice.

    Args:
        model: as the endpoint calls it; a snapshot rather than an alias.
        base_url: of the endpoint; ``None``: OpenAI's.
        api_key_env: environment variable that holds the key; ``None``: the endpoint wants none.
        mode: ``live`` asks what the cache lacks; ``cache_only`` leaves it missing; ``offline`` makes it an error.
        cache: file of the judgements; ``None``: none is kept.
        timeout: seconds for one reply.
        max_concurrency: questions under way at a time.
        max_retries: of one question, after which it is missing.
        give_up_after: so many failures in a row, the rest is missing unasked: the endpoint is down, or talks nonsense.
        backoff: seconds of the first wait and of the longest.
        temperature: of the sampling; models that think take none.
        seed: of the sampling; repeat k has ``seed + k``.
        repeats: how often scores ask.
        max_tokens: of one reply, the thinking included.
        reasoning: whether the model thinks; ``None``: as its name says.
        extra_body: further arguments that the endpoint takes.
        prices: model -> dollars for a million tokens [in, out].

    >>> EndpointJudge("gpt-4o-2024-11-20", mode="offline", cache=None).id
    'gpt-4o-2024-11-20, T=0, seed 0'
    """

    def __init__(
        self,
        model: str,
        base_url: str | None = None,
        api_key_env: str | None = "OPENAI_API_KEY",
        mode: Literal["live", "cache_only", "offline"] = "live",
        cache: str | None = "judgements.sqlite",
        timeout: float = 120.0,
        max_concurrency: int = 8,
        max_retries: int = 5,
        give_up_after: int = 20,
        backoff: Sequence[float] = (1.0, 60.0),
        temperature: float | None = 0.0,
        seed: int | None = 0,
        repeats: int = 1,
        max_tokens: int | None = 4096,
        reasoning: bool | None = None,
        extra_body: Mapping[str, Any] | None = None,
        prices: Prices | None = None,
    ) -> None:
        super().__init__()
        if mode == "cache_only" and cache is None:
            raise ValueError("judge mode=cache_only reads judgements from a cache, but cache is null; name the file.")
        if min(max_concurrency, repeats) < 1 or max_retries < 0 or len(backoff) != 2:
            raise ValueError(
                f"judge {model}: max_concurrency={max_concurrency} and repeats={repeats} are at least 1, max_retries="
                f"{max_retries} at least 0, and backoff={list(backoff)} two numbers of seconds."
            )
        if base_url is not None and not base_url.startswith(("http://", "https://")):
            raise ValueError(
                f"judge {model}: base_url={base_url} begins with http:// or https://, as http://localhost:8000/v1."
            )
        self.model, self.mode, self.repeats, self.seed = model, mode, repeats, seed
        self.max_concurrency, self.give_up_after, self.prices = max_concurrency, give_up_after, prices or {}
        self._failures = 0  # in a row
        self.sampling = sampling(model, temperature, max_tokens, reasoning)
        self.extra_body = dict(extra_body or {})
        heat = f", T={self.sampling['temperature']:g}" if "temperature" in self.sampling else ""
        times = f", mean of {repeats}" if repeats > 1 else ""
        self.id = f"{model}{heat}{'' if seed is None else f', seed {seed}'}{times}"
        read_only = mode == "cache_only" or (mode == "offline" and cache is not None and Path(cache).is_file())
        self.cache = None if cache is None else Cache(cache, read_only)
        self._client: Client | None = None  # made with the first call: scoring again needs no key
        self._client_args = (base_url, api_key_env, timeout, max_retries, tuple(backoff))

    def key(self, protocol: Protocol, item: Item, repeat: int = 0) -> str:
        """What a judgement is kept under: the digest of all that decides it."""
        asked = {
            "protocol": [protocol.name, protocol.version],
            "model": self.model,
            "sampling": self.sampling | self.extra_body,
            "seed": self._seed(repeat) if self.seed is not None else f"none, repeat {repeat}",
            "messages": protocol.messages(item),
            "schema": protocol.json_schema(),
        }
        return hashlib.sha256(compact(asked).encode(errors="surrogatepass")).hexdigest()

    def recall(self, protocol: Protocol, wanted: Mapping[str, Item]) -> dict[str, Verdict]:
        """The verdicts that the cache has, by key."""
        found = {} if self.cache is None else self.cache.get(wanted)
        verdicts = {}
        for key, kept in found.items():
            try:
                reply = protocol.read(kept.text, wanted[key])
            except ValueError:  # the check has become stricter since
                continue
            verdicts[key] = Verdict(reply, kept.text, True, kept.model)
        return verdicts

    def ask(self, protocol: Protocol, items: Sequence[Item], repeat: int = 0) -> list[Verdict | None]:
        """A verdict on each item, in order; ``None`` where there is none.

        Raises:
            ValueError: the endpoint refuses every question, or ``mode=offline`` and the cache lacks one.
        """
        started = perf_counter()
        keys = [self.key(protocol, item, repeat) for item in items]
        wanted = dict(zip(keys, items, strict=True))  # equal questions are asked once
        verdicts = self.recall(protocol, wanted)
        lacking = {key: item for key, item in wanted.items() if key not in verdicts}
        if lacking and self.mode == "offline":
            where = f"cache={self.cache.path}" if self.cache else "there is no cache, which"
            raise ValueError(
                f"judge mode=offline asks nobody, and {where} lacks {len(lacking)} of {len(wanted)} judgements of "
                f"{protocol.name}; ask for them with mode=live, or leave them missing with mode=cache_only."
            )
        failed = dict.fromkeys(lacking, "not in the cache")
        if lacking and self.mode == "live":
            verdicts |= self._call(protocol, lacking, repeat, failed)
        for key in keys:
            if key not in verdicts:
                self.ledger.miss(failed[key])
        outcome = [verdicts.get(key) for key in keys]
        self.ledger.count(outcome)
        self.ledger.hits += sum(key in verdicts for key in keys) - sum(key in verdicts for key in lacking)
        self.ledger.seconds += perf_counter() - started
        if missing := outcome.count(None):
            logger.warning("judge %s: %d of %d %s missing: %s", self.id, missing, len(outcome), protocol.name,
                           sorted({failed[key] for key in keys if key not in verdicts})[:3])  # fmt: skip
        return outcome

    @property
    def dollars(self) -> float | None:
        return _dollars(self.prices, self.model, self.ledger.tokens_in, self.ledger.tokens_out)

    def _call(
        self, protocol: Protocol, lacking: Mapping[str, Item], repeat: int, failed: dict[str, str]
    ) -> dict[str, Verdict]:
        if self._client is None:
            self._client = Client(self.model, *self._client_args, self.sampling, self.extra_body)
        client, schema, seed = self._client, protocol.json_schema(), self._seed(repeat)
        verdicts, self._failures = {}, 0
        client.halted.clear()

        def one(key: str, item: Item, spent: Spent) -> Judgement:
            def read(text: str) -> Any:
                return protocol.read(text, item)

            if self._failures >= self.give_up_after:
                raise GivenUp(f"not asked after {self.give_up_after} failures in a row")
            try:
                judgement = client.ask(protocol.messages(item), protocol.name, schema, seed, read, spent)
            except GivenUp:
                self._failures += 1
                raise
            self._failures = 0
            if self.cache is not None:
                self.cache.put(key, protocol.name, judgement)  # at once: what is paid for survives a kill
            return judgement

        pool = ThreadPoolExecutor(self.max_concurrency, thread_name_prefix="judge")
        try:
            spent = {key: Spent() for key in lacking}
            under_way = {pool.submit(one, key, item, spent[key]): key for key, item in lacking.items()}
            for done in as_completed(under_way):
                key = under_way[done]
                self._enter(spent[key])
                try:
                    judgement = done.result()
                except GivenUp as error:
                    failed[key] = str(error)
                else:
                    verdicts[key] = Verdict(protocol.read(judgement.text, lacking[key]), judgement.text, False,
                                            judgement.model)  # fmt: skip
        except BaseException:  # refused for good, or Ctrl-C: nothing more is asked, nobody waits any longer
            client.halted.set()
            raise
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
        return verdicts

    def _enter(self, spent: Spent) -> None:
        self.ledger.calls += spent.calls
        self.ledger.tokens_in += spent.tokens_in
        self.ledger.tokens_out += spent.tokens_out

    def _seed(self, repeat: int) -> int | None:
        return None if self.seed is None else self.seed + repeat


@dataclass(frozen=True)
class Estimate:
    """What judging would take.

    Attributes:
        calls: questions that would be asked, without retries.
        cached: questions that are answered already.
        tokens_in: of the prompts, roughly: four characters a token.
        tokens_out: of the replies, roughly, by those of the rule judge; no thinking.
        dollars: by the price table; ``None`` where it does not name the model.
    """

    calls: int
    cached: int
    tokens_in: int
    tokens_out: int
    dollars: float | None

    def __str__(self) -> str:
        price = "price not known" if self.dollars is None else f"about ${self.dollars:.2f}"
        return (
            f"{self.calls:,} calls ({self.cached:,} more are in the cache), roughly {self.tokens_in:,} tokens in and "
            f"{self.tokens_out:,} out, {price}"
        )


def estimate(judge: Judge, *scores: Callable[[Judge], Any]) -> Estimate:
    """What a few scores would take, without a call.

    Where a question needs the reply to an earlier one (the events of a text), a rule stands in for the reply.

    Args:
        judge: who would be asked.
        scores: each computes one with the judge that it is given: ``lambda judge: autodq(judge, truths, answers)``.

    >>> str(estimate(RuleJudge(), lambda judge: None))
    '0 calls (0 more are in the cache), roughly 0 tokens in and 0 out, about $0.00'
    """
    if not isinstance(judge, EndpointJudge):
        return Estimate(0, 0, 0, 0, 0.0)
    dry = _DryRun(judge)
    for score in scores:
        score(dry)
    tokens = -(-dry.characters_in // 4), -(-dry.characters_out // 4)
    return Estimate(len(dry.asked), len(dry.known), *tokens, _dollars(judge.prices, judge.model, *tokens))


class _DryRun(RuleJudge):
    """Counts the questions that another judge would ask, and answers from its cache or by rule."""

    def __init__(self, judge: EndpointJudge) -> None:
        super().__init__()
        self.judge, self.repeats = judge, judge.repeats
        self.asked: set[str] = set()
        self.known: set[str] = set()
        self.characters_in = self.characters_out = 0

    def ask(self, protocol: Protocol, items: Sequence[Item], repeat: int = 0) -> list[Verdict | None]:
        keys = [self.judge.key(protocol, item, repeat) for item in items]
        found = self.judge.recall(protocol, dict(zip(keys, items, strict=True)))
        self.known |= found.keys()
        ruled = super().ask(protocol, items, repeat)
        schema = compact(protocol.json_schema())
        for key, item, verdict in zip(keys, items, ruled, strict=True):
            if key not in found and key not in self.asked:
                self.asked.add(key)
                self.characters_in += len(schema) + sum(len(turn["content"]) for turn in protocol.messages(item))
                self.characters_out += len(verdict.text) if verdict else 0
        return [found.get(key, verdict) for key, verdict in zip(keys, ruled, strict=True)]


def _dollars(prices: Prices, model: str, tokens_in: int, tokens_out: int) -> float | None:
    price: Iterable[float] | None = prices.get(model)
    return None if price is None else sum(a * b for a, b in zip(price, (tokens_in, tokens_out), strict=True)) / 1e6
