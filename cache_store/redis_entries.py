"""How entries lie in Redis, in one server or a cluster of them.

An entry ``<namespace>:<digest>`` is ``rp:<namespace>:{<digest>}:m`` (its manifest) and ``…:0``,
``…:1`` and so on (its chunks): one hash slot for each entry. The server may evict any of these by
itself; an entry that lacks a part is a miss.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, ClassVar, Self, TypeVar

import redis
from redis.exceptions import ClusterCrossSlotError, MovedError, RedisClusterException

from ragpack.errors import CacheUnavailable
from ragpack.keys import namespace_prefix
from ragpack.protocols import Buffer, StoreStats

from . import chunks
from .breaker import Breaker
from .options import Parsers, parse_count, parse_seconds, split_url

__all__ = ["PAGE", "WINDOW", "RedisEntries", "part_name"]

_IN_FLIGHT = 2 << 20
"""Bytes under way on a connection: beyond, the server needs about three times the CPU per byte."""
WINDOW = _IN_FLIGHT // chunks.CHUNK_BYTES
_MANIFESTS = _IN_FLIGHT // chunks.INLINE_BYTES
PAGE = 1000
_PAUSE_S = 2.0
Command = tuple[Any, ...]
Item = TypeVar("Item")


class RedisEntries(ABC):
    """The calls of a store, made of Redis commands; where these go is the subclass's business.

    A server that is away costs one call its timeout; for the next seconds every other call is
    refused at once.

    Args:
        name: of the server, for messages.
        connections: how many one call uses at a time for large values.
    """

    _client: Any
    parsers: ClassVar[Parsers] = {
        "connections": parse_count,
        "timeout": parse_seconds,
        "ssl_ca_certs": str,
    }

    def __init__(self, name: str, connections: int) -> None:
        self._name = name
        self._connections = connections
        self._breaker = Breaker(_PAUSE_S)

    @classmethod
    def from_url(cls, url: str) -> Self:
        """Open a URL with the settings of the constructor in its query.

        Raises:
            ConfigError: the URL is malformed, a setting is unknown or cannot be read.
        """
        address, settings = split_url(url, cls.parsers)
        return cls(address, **settings)

    @abstractmethod
    def _mget(self, names: Sequence[str]) -> list[Any]:
        """The values of these names, in order; None for what is not there."""

    @abstractmethod
    def _receive(self, sizes: Mapping[str, int]) -> dict[str, Buffer | None]:
        """Large values from their chunks, None where one is missing or odd."""

    @abstractmethod
    def _scan(self, match: str) -> Iterator[list[str]]:
        """Pages of names."""

    @abstractmethod
    def _info(self) -> list[dict[str, Any]]:
        """What each server says of itself."""

    @abstractmethod
    def close(self) -> None:
        """Close the connections."""

    def get_many(self, keys: Sequence[str]) -> list[Buffer | None]:
        """The values, in order; None for what is not there, or is there only in part."""
        with self._guarded():
            names = [part_name(key, "m") for key in keys]
            pages = [self._mget(page) for page in _pages(names, _MANIFESTS)]
            manifests = [chunks.read_manifest(record) for page in pages for record in page]
            values: dict[str, Buffer | None] = {
                key: None if manifest is None else manifest.inline
                for key, manifest in zip(keys, manifests, strict=True)
            }
            large = {
                key: manifest.size
                for key, manifest in zip(keys, manifests, strict=True)
                if manifest is not None and manifest.inline is None
            }
            values |= self._receive(large)
        return [values[key] for key in keys]

    def put_many(self, entries: Mapping[str, Buffer], ttl: float | None = None) -> None:
        """Store every entry; ``ttl`` in seconds.

        Raises:
            CacheUnavailable: the server does not answer or is full.
        """
        expiry = () if ttl is None else ("PX", max(1, int(ttl * 1000)))
        parts: list[Command] = []
        manifests: list[Command] = []
        for key, value in entries.items():
            manifest, pieces = chunks.split(value)
            manifests.append(("SET", part_name(key, "m"), manifest, *expiry))
            parts += [("SET", part_name(key, i), piece, *expiry) for i, piece in enumerate(pieces)]
        with self._guarded():
            try:
                self._run(parts, WINDOW, self._connections)
                self._run(manifests, _MANIFESTS)
            except redis.OutOfMemoryError:
                self._run([("UNLINK", part[1]) for part in parts])  # useless without a manifest
                raise

    def contains_many(self, keys: Sequence[str]) -> list[bool]:
        """Whether each key is there with all its parts, without reading its value."""
        with self._guarded():
            sizes = self._sizes(keys)
            counts = {key: chunks.count(size) for key, size in sizes.items() if size is not None}
            large = [key for key, count in counts.items() if count]
            found = self._run([("EXISTS", *_parts(key, counts[key])) for key in large])
        whole = {key: count == counts[key] for key, count in zip(large, found, strict=True)}
        return [key in counts and whole.get(key, True) for key in keys]

    def delete_many(self, keys: Sequence[str]) -> None:
        """Remove the keys that are there."""
        with self._guarded():
            sizes = self._sizes(keys).items()
            self._run(
                [
                    ("UNLINK", part_name(key, "m"), *_parts(key, chunks.count(size or 0)))
                    for key, size in sizes
                ]
            )

    def scan(self, namespace: str) -> Iterator[str]:
        """Every key of a namespace; one may come twice while the server resizes its table."""
        for page in self._scan(f"rp:{namespace_prefix(namespace)}*:m"):
            yield from map(_key, page)

    def drop(self, namespace: str) -> int:
        """Remove a namespace; returns how many entries went."""
        dropped = 0
        for page in self._scan(f"rp:{namespace_prefix(namespace)}*"):
            with self._guarded():
                gone = self._run([("UNLINK", name) for name in page])
            dropped += sum(n for name, n in zip(page, gone, strict=True) if name.endswith(":m"))
        return dropped

    def stats(self) -> StoreStats:
        """What the store holds, all namespaces together; reads the size of every entry."""
        sizes: dict[str, int | None] = {}
        for page in self._scan("rp:*:m"):
            with self._guarded():
                sizes |= self._sizes([_key(name) for name in page])
        known = [size for size in sizes.values() if size is not None]
        with self._guarded():
            told = self._info()
        limit, evictions = (
            sum(info.get(name, 0) for info in told) for name in ("maxmemory", "evicted_keys")
        )
        return StoreStats(len(known), sum(known), limit or None, evictions)

    @contextmanager
    def _guarded(self) -> Iterator[None]:
        """Turn failures into CacheUnavailable, and callers away while the server is known away."""
        self._breaker.admit()
        try:
            yield
        except redis.OutOfMemoryError as error:
            self._breaker.answered()
            advice = "it is full: raise maxmemory, or let it evict (maxmemory-policy allkeys-lfu)"
            raise CacheUnavailable(f"{self._name}: {advice}") from error
        except (MovedError, ClusterCrossSlotError) as error:
            self._breaker.answered()
            advice = "is a node of a Redis Cluster: open it as redis+cluster://"
            raise CacheUnavailable(f"{self._name} {advice}") from error
        except redis.ResponseError as error:
            self._breaker.answered()
            raise CacheUnavailable(f"{self._name} refuses: {error}") from error
        except (redis.RedisError, RedisClusterException, OSError) as error:
            failure = f"{self._name} does not answer: {error}"
            self._breaker.failed(failure)
            raise CacheUnavailable(failure) from error
        self._breaker.answered()

    def _sizes(self, keys: Sequence[str]) -> dict[str, int | None]:
        """The size of each value, from the head of its manifest; None where there is none."""
        last = chunks.HEAD_BYTES - 1
        heads = self._run([("GETRANGE", part_name(key, "m"), 0, last) for key in keys])
        return {key: chunks.read_size(head) for key, head in zip(keys, heads, strict=True)}

    def _run(self, commands: Sequence[Command], at_once: int = PAGE, lanes: int = 1) -> list[Any]:
        """Pipeline the commands, ``at_once`` under way on each of ``lanes`` connections."""
        pages = list(_pages(commands, at_once))
        if lanes == 1 or len(pages) < 2:
            results = map(self._execute, pages)
            return [reply for replies in results for reply in replies]
        with ThreadPoolExecutor(min(lanes, len(pages))) as threads:
            return [reply for replies in threads.map(self._execute, pages) for reply in replies]

    def _execute(self, commands: Sequence[Command]) -> list[Any]:
        with self._client.pipeline(transaction=False) as pipeline:
            for command in commands:
                pipeline.execute_command(*command)
            replies: list[Any] = pipeline.execute()
        return replies


def part_name(key: str, part: str | int) -> str:
    """The name in Redis of one part of an entry; the braces make the digest its hash tag."""
    namespace, _, digest = key.rpartition(":")
    return f"rp:{namespace}:{{{digest}}}:{part}"


def _parts(key: str, count: int) -> list[str]:
    return [part_name(key, number) for number in range(count)]


def _key(manifest: str) -> str:
    """The entry's key, from the name of its manifest."""
    return manifest.removeprefix("rp:").removesuffix(":m").replace("{", "").replace("}", "")


def _pages(items: Sequence[Item], size: int) -> Iterator[Sequence[Item]]:
    return (items[start : start + size] for start in range(0, len(items), size))
