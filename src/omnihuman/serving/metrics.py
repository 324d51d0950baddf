"""Numbers of a server in the text format of Prometheus."""

import time
from collections.abc import Iterable

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from omnihuman.serving.pool import Pool, Reply

SECONDS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)
SIZES = (1, 2, 4, 8, 16, 32, 64)
"""Upper bounds of the histograms: time of a request, and questions of a batch."""


class Metrics(Collector):
    """The numbers of one server.

    Args:
        pool: of the server.
    """

    def __init__(self, pool: Pool) -> None:
        self.pool, self.registry = pool, CollectorRegistry()
        self.requests = self._count("requests", "Requests that have ended.", "route", "status")
        self.errors = self._count("errors", "Errors of requests and within streams.", "code")
        self.tokens = self._count("tokens", "Tokens of prompts and of answers.", "kind")
        self.seconds = Histogram(
            "omnihuman_request_seconds",
            "From the head of a request to the last byte of its response.",
            ["route"],
            registry=self.registry,
            buckets=SECONDS,
        )
        self.batch_sizes = Histogram(
            "omnihuman_batch_size",
            "Questions answered together with an answered question.",
            registry=self.registry,
            buckets=SIZES,
        )
        self.registry.register(self)

    def _count(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(f"omnihuman_{name}", text, labels, registry=self.registry)

    def count_answer(self, reply: Reply) -> None:
        """Count the last reply to a question."""
        usage, more = reply["end"]["usage"], reply["end"]["more"]
        self.tokens.labels("prompt").inc(usage["prompt_tokens"])
        self.tokens.labels("completion").inc(usage["completion_tokens"])
        self.batch_sizes.observe(more["batch"])

    def collect(self) -> Iterable[Metric]:
        """Yield the state of the pool, as Prometheus' registry requests it."""
        pool = self.pool
        gauges = {
            "questions_waiting": ("Questions in the queue.", len(pool.waiting)),
            "questions_in_flight": ("Questions that a model is answering.", pool.num_in_flight),
            "models": ("Models, loaded or not.", len(pool.devices)),
            "models_ready": ("Models that answer.", len(pool.ready)),
            "model_load_seconds": ("Time in which the last model was loaded.", pool.load_seconds),
        }
        for name, (text, value) in gauges.items():
            yield GaugeMetricFamily(f"omnihuman_{name}", text, value)
        yield CounterMetricFamily("omnihuman_model_crashes", "Processes of models that have crashed.", pool.num_crashes)

    def render(self) -> bytes:
        """Return all numbers as text."""
        return generate_latest(self.registry)


class RequestCounter:
    """An ASGI application whose requests are counted by route and status.

    Args:
        inner: the application.
        metrics: count the requests.
    """

    def __init__(self, inner: ASGIApp, metrics: Metrics) -> None:
        self.inner, self.metrics = inner, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.inner(scope, receive, send)
            return
        start, status = time.perf_counter(), 500

        async def send_and_note(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self.inner(scope, receive, send_and_note)
        finally:
            route = getattr(scope.get("route"), "path", "other")  # paths of strangers would be labels without end
            self.metrics.requests.labels(route, status).inc()
            self.metrics.seconds.labels(route).observe(time.perf_counter() - start)
