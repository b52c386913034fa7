"""What the service counts, in a registry of its own, for ``GET /metrics``."""

from collections import Counter as Tally
from collections.abc import Callable

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    generate_latest,
)

from ragpack.report import PackReport

__all__ = ["Metrics"]

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_POWERS = tuple(2.0**power for power in range(13))


class Metrics:
    """Counters and histograms; no label ever holds what a client sent."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        self.requests = Counter(
            "ragpack_http_requests", "Requests", ["route", "method", "status"], registry=registry
        )
        self.seconds = Histogram(
            "ragpack_http_request_seconds",
            "Whole requests",
            ["route"],
            buckets=_SECONDS,
            registry=registry,
        )
        self.stages = Histogram(
            "ragpack_stage_seconds",
            "Stages of packing",
            ["stage", "method"],
            buckets=_SECONDS,
            registry=registry,
        )
        self.tokens = Counter("ragpack_tokens", "Tokens", ["direction"], registry=registry)
        self.cache = Counter(
            "ragpack_cache_requests", "Passages looked up", ["method", "result"], registry=registry
        )
        self.failures = Counter(
            "ragpack_failures",
            "Refusals and faults of requests, passages passed on uncompressed",
            ["reason"],
            registry=registry,
        )
        self.in_progress = Gauge(
            "ragpack_requests_in_progress", "Requests under way", registry=registry
        )
        self.batch_requests = Histogram(
            "ragpack_batch_requests",
            "Requests that one run of the encoder served",
            buckets=_POWERS,
            registry=registry,
        )
        self.batch_texts = Histogram(
            "ragpack_batch_texts",
            "Texts in one run of the encoder",
            buckets=_POWERS,
            registry=registry,
        )
        self.store_up = Gauge("ragpack_store_up", "1: the store answers", registry=registry)

    def watch_encoders(self, pid: Callable[[], int]) -> None:
        """Also tell the memory and CPU time of the process that runs the encoders."""
        ProcessCollector("ragpack_encoder", pid, registry=self.registry)

    def packed(self, report: PackReport) -> None:
        """Count what a request did."""
        for stage, ms in report.ms.items():
            self.stages.labels(stage, report.method).observe(ms / 1000)
        self.tokens.labels("in").inc(report.tokens_in)
        self.tokens.labels("out").inc(report.tokens_out)
        for result, count in Tally(row.cache for row in report.passages).items():
            self.cache.labels(report.method, result).inc(count)
        for reason, count in report.fallbacks.items():
            self.failures.labels(reason or "unknown").inc(count)

    def answered(self, route: str, method: str, status: int, seconds: float) -> None:
        """Count a finished request."""
        self.requests.labels(route, method, str(status)).inc()
        self.seconds.labels(route).observe(seconds)

    def render(self) -> bytes:
        """The text that Prometheus reads."""
        return generate_latest(self.registry)
