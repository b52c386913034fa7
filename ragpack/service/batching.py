"""Merges what concurrent requests ask of an encoder into one run.

A query is some ten tokens, and a run over one of them costs nearly what a run over thirty does.
While one run is under way the next one's texts gather. Nobody waits for company: a lone query is
encoded where it is asked, beside what else runs and without a word to another thread or process.
Nor for a crowd: of the many texts of a new index each run takes a share, and queries go with it.
(Libraries for this batch by count and wait for a time window.)
"""

import queue
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ragpack.protocols import TextEncoder
from ragpack.service.metrics import Metrics
from ragpack.types import Fingerprint

__all__ = ["MergingEncoder"]

_SHARE_SECONDS = 0.2
_LEAST_SHARE = 2000
"""Characters: so few that an encoder on a CPU takes a moment, and enough to fill its matrices."""

Run = Callable[[Sequence[str]], NDArray[np.float32]]


@dataclass(slots=True)
class _Job:
    """Texts that somebody waits for; ``vectors`` [len(texts), d] to come, some with each run."""

    texts: Sequence[str]
    vectors: Future[NDArray[np.float32]] = field(default_factory=Future)
    parts: list[NDArray[np.float32]] = field(default_factory=list)

    def share(self, characters: int) -> Sequence[str]:
        """The next texts, of at most so many characters together, or the next one alone."""
        start = end = sum(map(len, self.parts))
        while end < len(self.texts):
            characters -= len(self.texts[end])
            if characters < 0 and end > start:
                break
            end += 1
        return self.texts[start:end]

    def add(self, part: NDArray[np.float32]) -> bool:
        """Take the vectors of the last share; whether those of all texts are there now."""
        self.parts.append(part)
        whole = sum(map(len, self.parts)) == len(self.texts)
        if whole:
            self.vectors.set_result(np.concatenate(self.parts))
        return whole


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
        self._queries = 0
        self._share = _LEAST_SHARE
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
        if len(texts) != 1:
            return self._merged(texts)
        with self._lock:
            lone = self._queries == 0
            self._queries += 1
        try:
            return self._alone(texts) if lone else self._merged(texts)
        finally:
            with self._lock:
                self._queries -= 1

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
        jobs: list[_Job] = []
        more = True
        while more or jobs:
            more = more and self._gather(jobs)
            jobs = self._run(jobs) if jobs else []

    def _gather(self, jobs: list[_Job]) -> bool:
        """Add what was asked meanwhile, or what is asked next if there is nothing to do.

        False once nothing more will be asked.
        """
        while not jobs or not self._jobs.empty():
            if (job := self._jobs.get()) is None:
                return False
            jobs.append(job)
        return True

    def _run(self, jobs: Sequence[_Job]) -> list[_Job]:
        """Encode a share of each job; those that are not done yet."""
        shares = [job.share(self._share) for job in jobs]
        texts = [text for share in shares for text in share]
        self._count(len(jobs), len(texts))
        start = time.perf_counter()
        try:
            vectors = self._encode(texts)
        except Exception as error:  # theirs to handle, each in its own request
            for job in jobs:
                job.vectors.set_exception(error)
            return []
        speed = sum(map(len, texts)) / (time.perf_counter() - start)
        self._share = max(_LEAST_SHARE, int(_SHARE_SECONDS * speed))
        parts = np.split(vectors, np.cumsum([len(share) for share in shares])[:-1])
        return [job for job, part in zip(jobs, parts, strict=True) if not job.add(part)]
