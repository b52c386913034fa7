"""Pushes what a job has done to a Prometheus Pushgateway: a job ends before anyone scrapes it."""

import logging
import time
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

from prometheus_client import CollectorRegistry, Gauge, push_to_gateway

from ragpack.errors import ConfigError
from ragpack.index.account import IndexSummary

__all__ = ["MetricsPush"]

_log = logging.getLogger(__name__)

_JOB = "ragpack_index"
_SECONDS_BETWEEN = 10.0
_TIMEOUT_S = 5.0


class MetricsPush:
    """Pushes a job's account every ten seconds and at its end, in a thread.

    A gateway that does not answer costs a warning and never the job. Use it as a context manager
    around the job, and hand it to the job as its progress.

    Args:
        gateway: such as ``http://localhost:9091``.
        index: name of the index, the group that the figures belong to.

    Raises:
        ConfigError: ``gateway`` is no HTTP address.
    """

    def __init__(self, gateway: str, index: str) -> None:
        if urlsplit(gateway).scheme not in ("http", "https"):
            raise ConfigError(f"a Pushgateway is named like http://localhost:9091, not {gateway!r}")
        self._gateway, self._group = gateway, {"index": index}
        self._registry = CollectorRegistry()
        self._artifacts = self._gauge(
            "artifacts", "Artifacts by method and result.", "method", "result"
        )
        self._passages = self._gauge("passages", "Passages indexed.")
        self._failures = self._gauge("failures", "Records and passages that failed.")
        self._bytes = self._gauge("stored_bytes", "Bytes put into the store.")
        self._seconds = self._gauge("seconds", "Time since the job began.")
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="ragpack-push")
        self._under_way: Future[None] | None = None
        self._last = 0.0

    def __call__(self, summary: IndexSummary) -> None:
        """Take over the account; push it if ten seconds have passed and the last one is through."""
        for result, counts in (("computed", summary.computed), ("hit", summary.hits)):
            for method, number in counts.items():
                self._artifacts.labels(method, result).set(number)
        self._passages.set(summary.passages)
        self._failures.set(summary.failures)
        self._bytes.set(summary.bytes)
        self._seconds.set(summary.seconds)
        busy = self._under_way is not None and not self._under_way.done()
        if not busy and time.monotonic() - self._last >= _SECONDS_BETWEEN:
            self._last = time.monotonic()
            self._under_way = self._thread.submit(self._push)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is None:
            self._gauge("finished_timestamp_seconds", "When the job ended.").set_to_current_time()
        self._thread.submit(self._push)
        self._thread.shutdown()

    def _gauge(self, name: str, meaning: str, *labels: str) -> Gauge:
        return Gauge(f"{_JOB}_{name}", meaning, labels, registry=self._registry)

    def _push(self) -> None:
        try:
            push_to_gateway(
                self._gateway, _JOB, self._registry, grouping_key=self._group, timeout=_TIMEOUT_S
            )
        except OSError as error:
            _log.warning("the Pushgateway %s does not take the metrics: %s", self._gateway, error)
