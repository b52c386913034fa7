"""Merges what concurrent requests ask of an encoder into one run.

A query is some ten tokens, and a run over one of them costs nearly what a run over thirty does.
While one run is under way the next one's texts gather. Nobody waits for company: a lone query is
encoded where it is asked, without a word to another thread or process. (Libraries for this batch by
count and wait for a time window; the encoder already cuts a large batch by tokens.)
"""

import queue
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from ragpack.protocols import TextEncoder
from ragpack.service.metrics import Metrics
from ragpack.types import Fingerprint

__all__ = ["MergingEncoder"]

_MOST_TEXTS = 4096

Run = Callable[[Sequence[str]], NDArray[np.float32]]


@dataclass(frozen=True, slots=True)
class _Job:
    """Texts that somebody waits for; ``vectors`` [len(texts), d] to come."""

    texts: Sequence[str]
    vectors: Future[NDArray[np.float32]] = field(default_factory=Future)


class MergingEncoder:
    """A :class:`~ragpack.protocols.TextEncoder` for many threads, over one that runs in its own.

    Args:
        encoder: what it stands for.
        run: what encodes for several at a time, such as the encoder itself; called by one thread.
        metrics: told how much each run served.
    """

    def __init__(self, encoder: TextEncoder, run: Run, metrics: Metrics) -> None:
        self._encoder = encoder
        self._encode = run
        self._metrics = metrics
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._under_way = 0
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._work, name="ragpack-encode", daemon=True)
        self._thread.start()

    @property
    def dim(self) -> int:
        """Width d of a vector."""
        return self._encoder.dim

    @property
    def fingerprint(self) -> Fingerprint:
        """The encoder's own: merging changes no vector beyond rounding."""
        return self._encoder.fingerprint

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Vectors [len(texts), d], in order."""
        with self._lock:
            lone = self._under_way == 0 and len(texts) == 1
            self._under_way += 1
        try:
            return self._alone(texts) if lone else self._merged(texts)
        finally:
            with self._lock:
                self._under_way -= 1

    def close(self) -> None:
        """Finish what is asked and stop."""
        self._jobs.put(None)
        self._thread.join()

    def _alone(self, texts: Sequence[str]) -> NDArray[np.float32]:
        self._count(1, len(texts))
        return self._encoder.encode(texts)

    def _merged(self, texts: Sequence[str]) -> NDArray[np.float32]:
        job = _Job(texts)
        self._jobs.put(job)
        return job.vectors.result()

    def _count(self, jobs: int, texts: int) -> None:
        self._metrics.batch_requests.observe(jobs)
        self._metrics.batch_texts.observe(texts)

    def _work(self) -> None:
        while (first := self._jobs.get()) is not None:
            jobs, texts = [first], len(first.texts)
            while texts < _MOST_TEXTS and not self._jobs.empty():
                if (job := self._jobs.get()) is None:
                    self._run(jobs)
                    return
                jobs.append(job)
                texts += len(job.texts)
            self._run(jobs)

    def _run(self, jobs: Sequence[_Job]) -> None:
        texts = [text for job in jobs for text in job.texts]
        self._count(len(jobs), len(texts))
        try:
            vectors = self._encode(texts)
        except Exception as error:  # theirs to handle, each in its own request
            for job in jobs:
                job.vectors.set_exception(error)
            return
        ends = [0]
        for job in jobs:
            ends.append(ends[-1] + len(job.texts))
        for job, (start, end) in zip(jobs, pairwise(ends), strict=True):
            job.vectors.set_result(vectors[start:end])
