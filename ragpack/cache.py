"""Artifacts by passage: from the store where they are, computed once where they are not.

Nothing here makes a request fail: a store that is away, an entry that fails a check or a method
that breaks on one passage is reported for that passage, with its reason.
"""

import logging
import threading
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeout
from functools import partial

from ragpack.codec import encode_frame
from ragpack.deadline import Deadline
from ragpack.errors import CompressionError, CompressionTimeout, CorruptEntry
from ragpack.flight import SingleFlight
from ragpack.keys import CacheKey, make_keys
from ragpack.protocols import CacheStore, Compressor
from ragpack.reader import EntryReader, Lookup, Recent
from ragpack.report import CacheResult
from ragpack.tracing import span
from ragpack.types import Artifact, Passage

__all__ = ["ArtifactCache"]

_log = logging.getLogger(__name__)


class ArtifactCache:
    """One method's artifacts in one namespace of a store.

    Equal passages asked for at the same time are computed once. What is computed is stored by a
    background thread; :meth:`flush` waits for it. ``counts`` adds up every result, and every reason
    of a failure, over the life of the object. What does not depend on a query is also looked for
    in ``recent``, before the store.
    """

    def __init__(
        self,
        compressor: Compressor,
        store: CacheStore,
        *,
        namespace: str,
        secret: bytes | None = None,
        ttl: float | None = None,
        recent: Recent | None = None,
    ) -> None:
        self.compressor = compressor
        self.store = store
        self.namespace = namespace
        self.counts: Counter[str] = Counter()
        self._secret = secret
        self._ttl = ttl
        kept = None if compressor.query_aware else recent
        self._reader = EntryReader(store, secret, kept, self.warn_once)
        self._flights: SingleFlight[CacheKey, Artifact] = SingleFlight()
        self._warned: set[str] = set()
        self._lock = threading.Lock()
        self._workers = ThreadPoolExecutor(1, thread_name_prefix="ragpack-compress")
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="ragpack-write")
        self._writes: set[Future[None]] = set()

    def keys(self, passages: Sequence[Passage], query: str | None = None) -> list[CacheKey]:
        """The key of each passage's artifact; the query counts only for query-aware methods."""
        method = self.compressor
        asked = query if method.query_aware else None
        return make_keys(self.namespace, method.kind, method.fingerprint, passages, asked)

    def fetch(
        self, passages: Sequence[Passage], query: str | None, deadline: Deadline | None = None
    ) -> list[Lookup]:
        """One lookup for each passage, in order; never raises for a passage or the store."""
        if not passages:
            return []  # without asking for a fingerprint, which may load a model
        deadline = deadline or Deadline(None)
        find = self._cached if self.compressor.cached else self._uncached
        looked = find(passages, query, deadline)
        with self._lock:
            self.counts.update(look.result for look in looked)
            self.counts.update(look.reason for look in looked if look.reason)
        return looked

    def contains(self, passages: Sequence[Passage], query: str | None = None) -> list[bool]:
        """Whether each artifact is in the store, unchecked.

        Raises:
            CacheUnavailable: the store does not answer.
        """
        return self.store.contains_many([str(key) for key in self.keys(passages, query)])

    def compute(
        self, passages: Sequence[Passage], query: str | None = None
    ) -> list[Artifact | Exception]:
        """Each passage's artifact or failure, by the method alone: no store is asked or filled.

        A batch that fails is halved, so that one passage spoils no other.
        """
        try:
            made = self.compressor.compress(passages, query)
            return [artifact for _, artifact in zip(passages, made, strict=True)]
        except Exception as error:  # a method may break in any way; the request must not
            if len(passages) == 1:
                return [error]
            middle = len(passages) // 2
            halves = passages[:middle], passages[middle:]
            return [one for half in halves for one in self.compute(half, query)]

    def put(self, made: Mapping[CacheKey, Artifact]) -> dict[CacheKey, int | CorruptEntry]:
        """Store artifacts; the bytes of each, or why it makes no sound entry.

        Raises:
            CacheUnavailable: the store does not answer, or is full.
        """
        frames = {key: self._frame(key, artifact) for key, artifact in made.items()}
        sound = {str(key): frame for key, frame in frames.items() if isinstance(frame, bytes)}
        self.store.put_many(sound, self._ttl)
        return {key: len(f) if isinstance(f, bytes) else f for key, f in frames.items()}

    def forget(self, passages: Sequence[Passage]) -> int:
        """Delete these passages' artifacts from the store; returns how many there were.

        Raises:
            CacheUnavailable: the store does not answer.
        """
        keys = self.keys(passages)
        self._reader.forget(keys)
        names = [str(key) for key in keys]
        held = [name for name, there in zip(names, self.contains(passages), strict=True) if there]
        self.store.delete_many(held)
        return len(held)

    def flush(self) -> None:
        """Wait until everything computed so far is stored, or has failed to be."""
        with self._lock:
            writes = list(self._writes)
        for write in writes:
            write.result()

    def warn_once(self, reason: str, error: Exception) -> None:
        """Log a kind of failure the first time it happens."""
        with self._lock:
            first = reason not in self._warned
            self._warned.add(reason)
        if first:
            _log.warning("%s (said once, then only counted): %s", reason, error)

    def close(self) -> None:
        """Finish what is under way and stop the threads; the store stays open."""
        self._workers.shutdown()
        self._writer.shutdown()
        self._reader.close()

    # Reading

    def _cached(
        self, passages: Sequence[Passage], query: str | None, deadline: Deadline
    ) -> list[Lookup]:
        keys = self.keys(passages, query)
        looked = self._reader.read(keys, deadline)
        missing = [i for i, look in enumerate(looked) if look.artifact is None]
        wanted = {keys[i]: passages[i] for i in missing}
        computed = self._compute(wanted, query, deadline)
        for i in missing:
            made, result, reason = computed[keys[i]], looked[i].result, looked[i].reason
            looked[i] = Lookup(made.artifact, result, made.reason or reason, made.error)
        return looked

    # Computing

    def _compute(
        self, wanted: Mapping[CacheKey, Passage], query: str | None, deadline: Deadline
    ) -> dict[CacheKey, Lookup]:
        """Compute what no other thread is computing, and wait for the rest."""
        if not wanted:
            return {}
        with span("compress", method=self.compressor.name, passages=len(wanted)):
            return self._computed(wanted, query, deadline)

    def _computed(
        self, wanted: Mapping[CacheKey, Passage], query: str | None, deadline: Deadline
    ) -> dict[CacheKey, Lookup]:
        flights, own = self._flights.join(list(wanted))
        work = {key: wanted[key] for key in own}
        if work and deadline.endless:
            self._fly(work, query)
        elif work:  # goes on behind the deadline, so that the next request finds it
            self._workers.submit(self._fly, work, query)
        landed = [self._await(flight, deadline) for flight in flights]
        return dict(zip(wanted, landed, strict=True))

    def _fly(self, work: Mapping[CacheKey, Passage], query: str | None) -> None:
        """Compute ``work`` and land every flight of it, whatever happens."""
        try:
            made = dict(zip(work, self.compute(list(work.values()), query), strict=True))
            for key, outcome in made.items():
                self._flights.land(key, outcome)
            if fresh := {k: a for k, a in made.items() if not isinstance(a, Exception)}:
                self._write_behind(fresh)
        except BaseException as error:  # Ctrl-C here must not leave other threads waiting
            for key in work:
                self._flights.land(key, CompressionError(f"interrupted by {type(error).__name__}"))
            raise

    def _await(self, flight: Future[Artifact], deadline: Deadline) -> Lookup:
        try:
            return Lookup(flight.result(deadline.left()), "miss")
        except FutureTimeout:
            late = CompressionTimeout(f"not compressed within {deadline.milliseconds:g} ms")
            return Lookup(None, "miss", "deadline", late)
        except Exception as error:  # reported with its passage; raised only in strict mode
            return self._failed("miss", error)

    def _uncached(
        self, passages: Sequence[Passage], query: str | None, deadline: Deadline
    ) -> list[Lookup]:
        """What is too cheap to be stored needs no keys, and is not shared between threads."""
        with span("compress", method=self.compressor.name, passages=len(passages)):
            attempt = partial(self.compute, passages)
            try:
                made = deadline.run(self._workers, attempt, query) if passages else []
            except CompressionTimeout as late:
                return [Lookup(None, "uncached", "deadline", late)] * len(passages)
        return [
            self._failed("uncached", one) if isinstance(one, Exception) else Lookup(one, "uncached")
            for one in made
        ]

    def _failed(self, result: CacheResult, error: Exception) -> Lookup:
        reason = type(error).__name__
        self.warn_once(reason, error)
        return Lookup(None, result, reason, error)

    # Writing

    def _write_behind(self, fresh: Mapping[CacheKey, Artifact]) -> None:
        with self._lock:
            write = self._writer.submit(self._write, fresh)
            self._writes.add(write)
        write.add_done_callback(self._written)

    def _written(self, write: Future[None]) -> None:
        with self._lock:
            self._writes.discard(write)

    def _write(self, fresh: Mapping[CacheKey, Artifact]) -> None:
        try:
            put = self.put(fresh).values()
            failed: list[Exception] = [one for one in put if isinstance(one, CorruptEntry)]
        except Exception as error:  # in the background: counted and said, never raised
            failed = [error] * len(fresh)
        for one in failed:
            self.warn_once("write failed", one)
        with self._lock:
            self.counts["write failed"] += len(failed)

    def _frame(self, key: CacheKey, artifact: Artifact) -> bytes | CorruptEntry:
        try:
            return encode_frame(key, artifact, self._secret)
        except CorruptEntry as error:
            return error
