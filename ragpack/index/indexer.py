"""The indexing job: every passage's vector and artifacts computed once, kept in the store.

What the store already has is not computed again, so a job that was stopped goes on where it was
when it is simply started again. The vector index is saved at the end, whole or not at all.
"""

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ragpack.cache import ArtifactCache
from ragpack.corpus import BadRecord, Record
from ragpack.errors import CacheUnavailable
from ragpack.types import EmbedsArtifact, Passage

__all__ = ["Failed", "IndexSummary", "Indexer", "Progress", "VectorIndex"]

_BATCH = 512
_LISTED = 100


class VectorIndex(Protocol):
    """What the job needs of a retriever that searches by vector."""

    def add(self, passages: Sequence[Passage], vectors: NDArray[np.float32] | None = None) -> int:
        """Add passages with their vectors [n, d]; returns how many were new."""
        ...


@dataclass(slots=True)
class IndexSummary:
    """What a job did so far.

    ``computed`` and ``hits`` count artifacts by method; ``failed`` lists the first hundred of
    ``failures``. ``offset`` is in bytes of the corpus, ``characters`` counts texts computed,
    ``bytes`` what was stored.
    """

    passages: int = 0
    added: int = 0
    computed: Counter[str] = field(default_factory=Counter)
    hits: Counter[str] = field(default_factory=Counter)
    failures: int = 0
    failed: list[BadRecord] = field(default_factory=list)
    seconds: float = 0.0
    offset: int = 0
    characters: int = 0
    bytes: int = 0

    def to_dict(self) -> dict[str, Any]:
        """A JSON-ready summary."""
        return {
            "passages": self.passages,
            "added": self.added,
            "computed": dict(self.computed),
            "hits": dict(self.hits),
            "failures": self.failures,
            "failed": [
                {"source": bad.source, "line": bad.line, "reason": bad.reason}
                for bad in self.failed
            ],
            "seconds": round(self.seconds, 3),
        }


Progress = Callable[[IndexSummary], None]
"""Called with the job's account so far, after each batch."""
Failed = Callable[[BadRecord], None]
"""Called with each record or passage that could not be indexed."""


class Indexer:
    """Fills a vector index and the store from corpus records.

    Args:
        index: takes the passages and their vectors.
        vectors: the cache of the encoder whose vectors the index holds.
        caches: one cache for each method to precompute.
        batch: passages held in memory at once.
    """

    def __init__(
        self,
        index: VectorIndex,
        vectors: ArtifactCache,
        caches: Sequence[ArtifactCache] = (),
        *,
        batch: int = _BATCH,
    ) -> None:
        self._index = index
        self._vectors = vectors
        self._caches = caches
        self._batch = batch

    def run(
        self,
        records: Iterable[Record | BadRecord],
        progress: Progress | None = None,
        failed: Failed | None = None,
    ) -> IndexSummary:
        """Index every usable record; bad ones are counted and handed to ``failed``.

        Raises:
            CacheUnavailable: the store cannot be written; start again to go on from there.
        """
        start = time.perf_counter()
        summary = IndexSummary()

        def fail(bad: BadRecord) -> None:
            summary.failures += 1
            if len(summary.failed) < _LISTED:
                summary.failed.append(bad)
            if failed is not None:
                failed(bad)

        unique = _without_clashes(records, fail)
        while batch := list(islice(unique, self._batch)):
            self._one(batch, summary, fail)
            summary.seconds, summary.offset = time.perf_counter() - start, batch[-1].offset
            if progress is not None:
                progress(summary)
        summary.seconds = time.perf_counter() - start
        return summary

    def _one(self, batch: Sequence[Record], summary: IndexSummary, fail: Failed) -> None:
        ready, rows = [], []
        for record, artifact in self._artifacts(self._vectors, batch, summary, fail):
            if isinstance(artifact, EmbedsArtifact):
                ready.append(record)
                rows.append(artifact.vectors[0])
        for cache in self._caches:
            list(self._artifacts(cache, ready, summary, fail))
        for cache in (self._vectors, *self._caches):
            _require_stored(cache)
        if ready:
            vectors = np.asarray(rows, dtype=np.float32)
            summary.added += self._index.add([record.passage for record in ready], vectors)
        summary.passages += len(ready)

    def _artifacts(
        self, cache: ArtifactCache, batch: Sequence[Record], summary: IndexSummary, fail: Failed
    ) -> Iterator[tuple[Record, object]]:
        name = cache.compressor.name
        passages = [record.passage for record in batch]
        for record, look in zip(batch, cache.fetch(passages, None), strict=True):
            if look.artifact is None:
                fail(record.failed(f"{name}: {look.error}"))
                continue
            (summary.hits if look.result == "hit" else summary.computed)[name] += 1
            if look.result != "hit":
                summary.characters += len(record.passage.full_text)
            yield record, look.artifact


def _require_stored(cache: ArtifactCache) -> None:
    """Wait for the batch to be stored, so that what was reported done is done."""
    cache.flush()
    lost = cache.counts["write failed"]
    if lost:
        raise CacheUnavailable(
            f"{lost} artifacts of {cache.compressor.name} could not be stored (see the log); "
            "make room or mend the store and run the same command again: it goes on from here"
        )


def _without_clashes(records: Iterable[Record | BadRecord], fail: Failed) -> Iterator[Record]:
    """Usable records; an id that comes again with another text fails."""
    seen: dict[str, tuple[str, str]] = {}
    for record in records:
        if isinstance(record, BadRecord):
            fail(record)
            continue
        passage = record.passage
        digest, where = seen.setdefault(passage.id, (passage.digest, record.where))
        if digest == passage.digest:
            yield record
        else:
            fail(record.failed(f"id {passage.id!r} was used in {where} for another text"))
