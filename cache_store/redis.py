"""A store in one Redis or Valkey server, for many machines."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import redis

from ragpack.errors import ConfigError
from ragpack.protocols import Buffer

from . import chunks
from .redis_entries import PAGE, RedisEntries, part_name
from .redis_wire import Slot, open_pool, receive

__all__ = ["RedisStore"]


class RedisStore(RedisEntries):
    """Keeps entries in Redis, ``redis://:password@host:6379/0?connections=2&timeout=1``.

    Nothing is connected before the first call.

    Args:
        url: as redis-py reads it; ``rediss://`` for TLS.
        connections: how many one call uses at a time for large values.
        timeout: seconds that connecting, sending and each receiving may take.
        ssl_ca_certs: file with the authority that signed the server's certificate.

    Raises:
        ConfigError: the URL is malformed.
    """

    def __init__(
        self, url: str, connections: int = 2, timeout: float = 1.0, ssl_ca_certs: str | None = None
    ) -> None:
        tls = {"ssl_ca_certs": ssl_ca_certs} if ssl_ca_certs else {}
        try:
            self._pool = open_pool(url, timeout, **tls)
        except ValueError as error:
            raise ConfigError(f"the store URL cannot be read: {error}") from error
        place = self._pool.connection_kwargs
        where = f"{place.get('host', 'localhost')}:{place.get('port', 6379)}"
        super().__init__(f"Redis at {where}", connections)
        self._client: Any = redis.Redis(connection_pool=self._pool)

    def close(self) -> None:
        """Close the connections."""
        self._pool.disconnect()

    def _mget(self, names: Sequence[str]) -> list[Any]:
        values: list[Any] = self._client.mget(names)
        return values

    def _receive(self, sizes: Mapping[str, int]) -> dict[str, Buffer | None]:
        """Memory is taken as bytes arrive, whatever a manifest says."""
        values: dict[str, Buffer | None] = {}
        slots: list[Slot] = []
        owners: list[str] = []
        for key, size in sizes.items():
            memory = values[key] = np.empty(size, np.uint8).data
            parts = enumerate(chunks.pieces(size))
            slots += [Slot(part_name(key, number), memory[piece]) for number, piece in parts]
            owners += [key] * chunks.count(size)
        filled = receive(self._pool, slots, self._connections)
        return values | {key: None for key, ok in zip(owners, filled, strict=True) if not ok}

    def _scan(self, match: str) -> Iterator[list[str]]:
        cursor = None
        while cursor != 0:
            with self._guarded():
                cursor, names = self._client.scan(cursor or 0, match=match, count=PAGE)
            yield [name.decode() for name in names]

    def _info(self) -> list[dict[str, Any]]:
        return [self._client.info()]
