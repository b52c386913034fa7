"""Reads stored artifacts: every entry checked, what is no good deleted, nothing ever raised."""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol

from ragpack.codec import decode_frame
from ragpack.deadline import Deadline
from ragpack.errors import CacheUnavailable, CompressionTimeout, CorruptEntry
from ragpack.keys import CacheKey
from ragpack.protocols import Buffer, CacheStore
from ragpack.report import CacheResult
from ragpack.tracing import span
from ragpack.types import Artifact

__all__ = ["EntryReader", "Lookup", "Recent"]

_THREADS = 4


@dataclass(frozen=True, slots=True)
class Lookup:
    """An artifact and where it came from; ``artifact`` is None where ``error`` says why."""

    artifact: Artifact | None
    result: CacheResult
    reason: str = ""
    error: Exception | None = None


class Recent(Protocol):
    """Artifacts read lately, kept in this process; may be used from several threads."""

    def get_many(self, keys: Sequence[CacheKey]) -> list[Artifact | None]:
        """The artifacts, in order; None for what is not there."""

    def put_many(self, read: Mapping[CacheKey, Artifact]) -> None:
        """Keep what was read and found sound."""

    def forget(self, keys: Sequence[CacheKey]) -> None:
        """Remove the keys that are there."""


class EntryReader:
    """Reads entries of a store, or has them from ``recent`` where that is given.

    Args:
        store: where entries lie.
        secret: key of the entries' authentication tag; None for a checksum.
        recent: spares what comes again the store, the checks and the decoding.
        warn: told the reason of a failure, and the error.
    """

    def __init__(
        self,
        store: CacheStore,
        secret: bytes | None,
        recent: Recent | None,
        warn: Callable[[str, Exception], None],
    ) -> None:
        self._store = store
        self._secret = secret
        self._recent = recent
        self._warn = warn
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="ragpack-read")

    def read(self, keys: Sequence[CacheKey], deadline: Deadline) -> list[Lookup]:
        """One lookup for each key, in order."""
        if self._recent is None:
            return self._stored(keys, deadline)
        found = {
            key: Lookup(artifact, "hit")
            for key, artifact in zip(keys, self._recent.get_many(keys), strict=True)
            if artifact is not None
        }
        if absent := [key for key in keys if key not in found]:
            looked = dict(zip(absent, self._stored(absent, deadline), strict=True))
            read = {key: look.artifact for key, look in looked.items() if look.artifact is not None}
            self._recent.put_many(read)
            found |= looked
        return [found[key] for key in keys]

    def forget(self, keys: Sequence[CacheKey]) -> None:
        """Remove entries that were read lately; the store is not asked."""
        if self._recent is not None:
            self._recent.forget(keys)

    def close(self) -> None:
        """Stop the threads; the store stays open."""
        self._threads.shutdown(wait=False)

    def _stored(self, keys: Sequence[CacheKey], deadline: Deadline) -> list[Lookup]:
        try:
            with span("store", passages=len(keys)):
                names = [str(key) for key in keys]
                values = deadline.run(self._threads, self._store.get_many, names)
        except (CacheUnavailable, CompressionTimeout) as error:
            self._warn("store unavailable", error)
            return [Lookup(None, "unavailable", "store unavailable")] * len(keys)
        return [self._decode(key, value) for key, value in zip(keys, values, strict=True)]

    def _decode(self, key: CacheKey, value: Buffer | None) -> Lookup:
        if value is None:
            return Lookup(None, "miss")
        try:
            return Lookup(decode_frame(key, value, self._secret), "hit")
        except CorruptEntry as error:
            reason = f"entry rejected: {error.reason}"
            self._warn(reason, error)
            self._delete(key)
            return Lookup(None, "rejected", reason)

    def _delete(self, key: CacheKey) -> None:
        try:
            self._store.delete_many([str(key)])
        except CacheUnavailable as error:
            self._warn("store unavailable", error)
