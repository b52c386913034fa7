"""A store in a Redis Cluster, for more memory than one server has."""

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any

from redis.backoff import NoBackoff
from redis.cluster import RedisCluster
from redis.connection import parse_url
from redis.retry import Retry

from ragpack.errors import ConfigError
from ragpack.protocols import Buffer

from . import chunks
from .redis_entries import PAGE, WINDOW, RedisEntries, part_name

__all__ = ["RedisClusterStore"]


class RedisClusterStore(RedisEntries):
    """Keeps entries in a Redis Cluster, ``redis+cluster://:password@host:6379?timeout=1``.

    The host is any node of it; the others are asked for at the first call. All parts of an entry
    are on one node, and redis-py follows them when the cluster is resharded. While a node is away
    and no replica has taken its place, calls that need it fail, and the store counts as away.

    Args:
        url: of a node; ``rediss+cluster://`` for TLS.
        connections: how many one call uses at a time, on each node, for large values.
        timeout: seconds that connecting, sending and each receiving may take.
        ssl_ca_certs: file with the authority that signed the servers' certificates.

    Raises:
        ConfigError: the URL is malformed.
    """

    def __init__(
        self, url: str, connections: int = 2, timeout: float = 1.0, ssl_ca_certs: str | None = None
    ) -> None:
        self._url = url.replace("+cluster://", "://", 1)
        try:
            place: dict[str, Any] = parse_url(self._url)  # type: ignore[no-untyped-call]
        except ValueError as error:
            raise ConfigError(f"the store URL cannot be read: {error}") from error
        if place.get("db"):
            raise ConfigError(f"a Redis Cluster has database 0 only, not {place['db']}")
        where = f"{place.get('host', 'localhost')}:{place.get('port', 6379)}"
        super().__init__(f"the Redis Cluster at {where}", connections)
        self._settings: dict[str, Any] = {
            "protocol": 2,  # version 3 may put messages of the server's own between two replies
            "socket_timeout": timeout,
            "socket_connect_timeout": timeout,
            "retry": Retry(NoBackoff(), 1),
        }
        if ssl_ca_certs:
            self._settings["ssl_ca_certs"] = ssl_ca_certs

    @cached_property
    def _client(self) -> Any:
        """Connects, and learns the other nodes."""
        return RedisCluster.from_url(self._url, **self._settings)

    def close(self) -> None:
        """Close the connections."""
        if "_client" in vars(self):
            self._client.close()

    def _mget(self, names: Sequence[str]) -> list[Any]:
        return self._run([("GET", name) for name in names])

    def _receive(self, sizes: Mapping[str, int]) -> dict[str, Buffer | None]:
        commands = [
            ("GET", part_name(key, number))
            for key, size in sizes.items()
            for number in range(chunks.count(size))
        ]
        found = iter(self._run(commands, WINDOW, self._connections))
        return {key: _joined(found, size) for key, size in sizes.items()}

    def _scan(self, match: str) -> Iterator[list[str]]:
        with self._guarded():
            nodes = self._client.get_primaries()
        for node in nodes:
            cursor = None
            while cursor != 0:
                with self._guarded():
                    cursors, names = self._client.scan(
                        cursor or 0, match=match, count=PAGE, target_nodes=node
                    )
                cursor = cursors[node.name]
                yield [name.decode() for name in names]

    def _info(self) -> list[dict[str, Any]]:
        told: dict[str, dict[str, Any]] = self._client.info(target_nodes=RedisCluster.PRIMARIES)
        return list(told.values())


def _joined(found: Iterator[bytes | None], size: int) -> bytes | None:
    """A value from its next chunks; None where one is missing or of another length."""
    parts = [(next(found), piece.stop - piece.start) for piece in chunks.pieces(size)]
    if any(part is None or len(part) != length for part, length in parts):
        return None
    return b"".join(part for part, _ in parts if part is not None)
