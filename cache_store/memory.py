"""A store in this process: least recently used entries go first when it is full."""

import threading
import time
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from ragpack.errors import CacheUnavailable
from ragpack.keys import namespace_prefix
from ragpack.protocols import Buffer, StoreStats

from .options import parse_bytes, split_url

__all__ = ["MemoryStore"]

_DEFAULT_BYTES = 1 << 30


class _Entry(NamedTuple):
    value: bytes
    expires: float


class MemoryStore:
    """Keeps entries in a dictionary, ``memory://?max_bytes=2GB``.

    Args:
        max_bytes: of all values together; keys and Python's own objects come on top.
    """

    def __init__(self, max_bytes: int = _DEFAULT_BYTES) -> None:
        self._max_bytes = max_bytes
        self._entries: OrderedDict[str, _Entry] = OrderedDict()  # least recently used first
        self._bytes = 0
        self._evictions = 0
        self._lock = threading.Lock()

    @classmethod
    def from_url(cls, url: str) -> "MemoryStore":
        """Open ``memory://`` with the settings of the constructor.

        Raises:
            ConfigError: a setting is unknown or cannot be read.
        """
        return cls(**split_url(url, {"max_bytes": parse_bytes})[1])

    def get_many(self, keys: Sequence[str]) -> list[Buffer | None]:
        """The values, in order; None for what is not there."""
        with self._lock:
            return [self._get(key) for key in keys]

    def put_many(self, entries: Mapping[str, Buffer], ttl: float | None = None) -> None:
        """Store every entry; ``ttl`` in seconds.

        Raises:
            CacheUnavailable: a value is larger than the whole store may be; nothing is stored.
        """
        expires = float("inf") if ttl is None else time.monotonic() + ttl
        fresh = {key: _Entry(bytes(value), expires) for key, value in entries.items()}
        largest = max((len(entry.value) for entry in fresh.values()), default=0)
        if largest > self._max_bytes:
            raise CacheUnavailable(
                f"a value of {largest} bytes does not fit into the memory store: "
                f"raise max_bytes above {self._max_bytes}"
            )
        with self._lock:
            for key, entry in fresh.items():
                self._remove(key)
                self._entries[key] = entry
                self._bytes += len(entry.value)
            self._evict()

    def contains_many(self, keys: Sequence[str]) -> list[bool]:
        """Whether each key is there."""
        with self._lock:
            return [self._live(key) is not None for key in keys]

    def delete_many(self, keys: Sequence[str]) -> None:
        """Remove the keys that are there."""
        with self._lock:
            for key in keys:
                self._remove(key)

    def scan(self, namespace: str) -> Iterator[str]:
        """Every key of a namespace, as it is now."""
        prefix = namespace_prefix(namespace)
        with self._lock:
            found = [key for key in self._entries if key.startswith(prefix)]
            live = [key for key in found if self._live(key)]
        return iter(live)

    def drop(self, namespace: str) -> int:
        """Remove a namespace; returns how many entries went."""
        keys = list(self.scan(namespace))
        self.delete_many(keys)
        return len(keys)

    def stats(self) -> StoreStats:
        """What the store holds, all namespaces together."""
        with self._lock:
            return StoreStats(len(self._entries), self._bytes, self._max_bytes, self._evictions)

    def close(self) -> None:
        """Forget everything."""
        with self._lock:
            self._entries.clear()
            self._bytes = 0

    def _get(self, key: str) -> bytes | None:
        entry = self._live(key)
        if entry is None:
            return None
        self._entries.move_to_end(key)
        return entry.value

    def _live(self, key: str) -> _Entry | None:
        entry = self._entries.get(key)
        if entry is not None and time.monotonic() >= entry.expires:
            self._remove(key)
            return None
        return entry

    def _remove(self, key: str) -> None:
        entry = self._entries.pop(key, None)
        if entry is not None:
            self._bytes -= len(entry.value)

    def _evict(self) -> None:
        while self._bytes > self._max_bytes:
            self._remove(next(iter(self._entries)))
            self._evictions += 1
