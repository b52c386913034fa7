"""The step of every indexing job: what the store lacks of a batch is computed and stored.

The job on one machine and a worker of a cluster take it alike.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Literal

from ragpack.cache import ArtifactCache
from ragpack.errors import CacheUnavailable, CorruptEntry
from ragpack.keys import CacheKey
from ragpack.types import Artifact, Kind, Passage

__all__ = ["CHARACTERS", "Filled", "Filler", "fillers_of"]

CHARACTERS: dict[Kind, int] = {"text": 65_536, "embeds": 65_536, "kv": 8_192}
"""Of the texts computed between two writes; KV takes thousands of bytes for each."""
_WRITES = 2
"""Under way at most, so that memory holds a few slices however slow the store is."""
_KEPT = 64

Tick = Callable[[int], None]
"""Called after each slice with the characters of its texts."""
Stored = Mapping[CacheKey, int | CorruptEntry]


@dataclass(frozen=True, slots=True)
class Filled:
    """What became of one passage under one method: ``bytes`` stored, or the ``reason`` why not."""

    status: Literal["hit", "computed", "failed"]
    bytes: int = 0
    reason: str = ""


_HIT = Filled("hit")


class Filler:
    """Completes one method's artifacts in the store; a thread writes behind the computing."""

    def __init__(self, cache: ArtifactCache) -> None:
        self.cache = cache
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="ragpack-store")
        self._first: list[str] = []

    def fill(self, passages: Sequence[Passage], tick: Tick = lambda _: None) -> list[Filled]:
        """One result for each passage, in order; whatever it says is done is in the store.

        Equal passages are computed once: the first is ``computed``, the others are hits.

        Raises:
            CacheUnavailable: the store does not answer, is full, or pushes out what it was given.
        """
        keys = self.cache.keys(passages)
        wanted: dict[CacheKey, Passage] = {}
        for key, passage in zip(keys, passages, strict=True):
            wanted.setdefault(key, passage)
        there = self.cache.contains(list(wanted.values()))
        missing = {key: wanted[key] for key, held in zip(wanted, there, strict=True) if not held}
        filled = dict.fromkeys(wanted, _HIT) | self._filled(missing, tick)
        self._require_kept([key for key in wanted if filled[key].status != "failed"])
        results = []
        for key in keys:
            results.append(filled[key])
            if filled[key].status == "computed":
                filled[key] = _HIT
        return results

    def close(self) -> None:
        """Finish the writing that is under way."""
        self._writer.shutdown()

    def _filled(self, missing: Mapping[CacheKey, Passage], tick: Tick) -> dict[CacheKey, Filled]:
        """Compute and store, similar lengths together so that batches are even."""
        results: dict[CacheKey, Filled] = {}
        writes: deque[Future[Stored]] = deque()
        for part in _slices(missing, CHARACTERS[self.cache.compressor.kind]):
            made = dict(zip(part, self.cache.compute([missing[key] for key in part]), strict=True))
            results |= {key: _failed(e) for key, e in made.items() if isinstance(e, Exception)}
            fresh = {key: a for key, a in made.items() if not isinstance(a, Exception)}
            writes.append(self._writer.submit(self._put, fresh))
            tick(sum(len(missing[key].full_text) for key in part))
            while len(writes) > _WRITES:
                results |= _written(writes.popleft())
        for write in writes:
            results |= _written(write)
        return results

    def _put(self, fresh: Mapping[CacheKey, Artifact]) -> Stored:
        try:
            return self.cache.put(fresh)
        except CacheUnavailable as error:
            raise CacheUnavailable(
                f"artifacts of {self.cache.compressor.name} cannot be stored: {error}; make room "
                "or mend the store and run the same job again: it goes on from here"
            ) from error

    def _require_kept(self, keys: Sequence[CacheKey]) -> None:
        """A store that is full may push out the oldest entries, and then nothing is ever done."""
        if len(self._first) < _KEPT:
            self._first += map(str, keys[:_KEPT])
        lost = self.cache.store.contains_many(self._first).count(False)
        if lost:
            raise CacheUnavailable(
                f"the store no longer has {lost} of the {len(self._first)} artifacts of "
                f"{self.cache.compressor.name} that this job found or stored first: it is too "
                "small and pushes them out; give it more room (max_bytes, maxmemory)"
            )


def fillers_of(caches: Iterable[ArtifactCache]) -> dict[Filler, list[str]]:
    """A filler for each thing to store, with the methods that read it, in the caches' order."""
    fillers: dict[str, Filler] = {}
    methods: dict[Filler, list[str]] = {}
    for cache in caches:
        filler = fillers.setdefault(cache.compressor.fingerprint.digest, Filler(cache))
        methods.setdefault(filler, []).append(cache.compressor.name)
    return methods


def _slices(missing: Mapping[CacheKey, Passage], characters: int) -> Iterator[list[CacheKey]]:
    """Keys by the length of their texts, longest first, in slices of so many characters."""
    part: list[CacheKey] = []
    size = 0
    for key in sorted(missing, key=lambda key: len(missing[key].full_text), reverse=True):
        size += len(missing[key].full_text)
        if part and size > characters:
            yield part
            part, size = [], len(missing[key].full_text)
        part.append(key)
    if part:
        yield part


def _written(write: Future[Stored]) -> dict[CacheKey, Filled]:
    return {
        key: _failed(stored) if isinstance(stored, CorruptEntry) else Filled("computed", stored)
        for key, stored in write.result().items()
    }


def _failed(error: Exception) -> Filled:
    return Filled("failed", reason=str(error) or type(error).__name__)
