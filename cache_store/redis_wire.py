"""Large values over a Redis connection: sent without a copy, received where they belong.

Through redis-py alone a chunk is copied three times on its way in (socket, parser, value) and,
where hiredis is installed, twice on its way out.
"""

import re
import socket
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import zip_longest
from typing import Any, NamedTuple, TypeVar

import redis
from redis.backoff import NoBackoff
from redis.connection import PythonRespSerializer
from redis.retry import Retry

__all__ = ["Slot", "open_pool", "receive"]

_WINDOW = 2
"""Requests under way on a connection; with more, the server has to buffer replies."""
_CUTOFF = 6000  # redis-py's own: longer arguments are sent as they are, not joined
_BULK = re.compile(rb"\$(-1|\d{1,9})")
_MAX_LINE = 512
_Received = TypeVar("_Received", bytes, int)


class Slot(NamedTuple):
    """The name of a stored chunk, and the memory it goes to, which has exactly its length."""

    name: str
    memory: memoryview


def open_pool(url: str, timeout: float, **settings: Any) -> redis.ConnectionPool:
    """Connections that wait ``timeout`` seconds at most and try a second time only if cut off.

    Protocol 2: version 3 may put messages of the server's own between two replies.

    Raises:
        ValueError: the URL is malformed.
    """
    pool: redis.ConnectionPool = redis.ConnectionPool.from_url(
        url,
        protocol=2,
        socket_timeout=timeout,
        socket_connect_timeout=timeout,
        retry=Retry(NoBackoff(), 1, supported_errors=(redis.ConnectionError,)),
        **settings,
    )
    encoder = pool.get_encoder()
    pool.connection_kwargs["command_packer"] = PythonRespSerializer(_CUTOFF, encoder.encode)
    return pool


def receive(pool: redis.ConnectionPool, slots: Sequence[Slot], connections: int) -> list[bool]:
    """Fill every slot, over several connections; False for a chunk that is missing or odd."""
    lanes = min(connections, -(-len(slots) // _WINDOW))
    if lanes < 2:
        return _receive(pool, slots)
    filled = [False] * len(slots)
    with ThreadPoolExecutor(lanes) as threads:
        parts = [slots[lane::lanes] for lane in range(lanes)]
        for lane, result in enumerate(threads.map(lambda part: _receive(pool, part), parts)):
            filled[lane::lanes] = result
    return filled


def _receive(pool: redis.ConnectionPool, slots: Sequence[Slot]) -> list[bool]:
    connection: Any = pool.get_connection()
    try:
        filled = []
        for slot in slots[:_WINDOW]:
            connection.send_command("GET", slot.name)
        for slot, later in zip_longest(slots, slots[_WINDOW:]):
            filled.append(_fill(connection._sock, slot.memory))
            if later is not None:
                connection.send_command("GET", later.name)
        return filled
    except BaseException:
        connection.disconnect()  # replies may still be under way
        raise
    finally:
        pool.release(connection)


def _fill(sock: socket.socket, memory: memoryview) -> bool:
    """Read the reply to one GET into ``memory``; False where the value is not of its length."""
    line = _read_line(sock)
    if line.startswith(b"-"):
        raise redis.ResponseError(line[1:].decode("utf-8", "replace"))
    size = _BULK.fullmatch(line)
    if size is None:
        raise redis.InvalidResponse(f"a reply of {line!r}")
    if int(size[1]) != len(memory):
        _skip(sock, int(size[1]) + 2 if int(size[1]) >= 0 else 0)
        return False
    _read_into(sock, memory)
    _skip(sock, 2)
    return True


def _read_line(sock: socket.socket) -> bytes:
    """A short line without its end, byte by byte so as not to touch what follows."""
    line = b""
    while not line.endswith(b"\r\n") and len(line) < _MAX_LINE:
        line += _some(sock.recv(1))
    return line.removesuffix(b"\r\n")


def _read_into(sock: socket.socket, memory: memoryview) -> None:
    while memory:
        memory = memory[_some(sock.recv_into(memory)) :]


def _skip(sock: socket.socket, count: int) -> None:
    while count:
        count -= len(_some(sock.recv(min(count, _CUTOFF))))


def _some(received: _Received) -> _Received:
    if not received:
        raise redis.ConnectionError("the server closed the connection")
    return received
