"""A Redis that is not what it seems: nothing it answers takes memory it did not send."""

import socket
import struct
import threading
from contextlib import suppress

import psutil
import pytest
import redis

from ragpack.errors import CacheUnavailable
from ragpack.keys import CacheKey
from ragpack.registry import open_store

MIB = 1 << 20
KEYS = [str(CacheKey("tenant", "kv", "fingerprint", str(number))) for number in range(4)]


def name(key, part):
    namespace, digest = key.split(":")
    return f"rp:{namespace}:{{{digest}}}:{part}"


def manifest(size, magic=b"RPM1"):
    return struct.pack("<4s4xQ", magic, size)


@pytest.fixture
def client(redis_url):
    with redis.Redis.from_url(redis_url) as opened:
        yield opened


@pytest.fixture
def store(redis_url):
    opened = open_store(redis_url)
    yield opened
    opened.close()


@pytest.mark.parametrize(
    "record",
    [
        b"",
        b"RPM1",
        manifest(10),
        manifest(10) + b"nine byte",
        manifest(10) + b"eleven byte",
        manifest(1 << 20) + b"x",
        manifest((1 << 30) + 1),
        manifest((1 << 64) - 1),
        manifest(0, magic=b"RPM2"),
        b"\x80\x04\x95" + bytes(40),
    ],
)
def test_odd_manifests_are_misses(store, client, record):
    client.set(name(KEYS[0], "m"), record)
    assert store.get_many([KEYS[0]]) == [None]
    store.put_many({KEYS[0]: b"healed"})
    assert store.get_many([KEYS[0]]) == [b"healed"]


def test_manifests_of_a_gigabyte_take_no_memory(store, client):
    for key in KEYS:
        client.set(name(key, "m"), manifest(1 << 30))
    before = psutil.Process().memory_info().rss
    assert store.get_many(KEYS) == [None] * len(KEYS)
    assert psutil.Process().memory_info().rss - before < 100 * MIB
    assert store.contains_many(KEYS) == [False] * len(KEYS)


@pytest.fixture
def liar():
    """A server that answers MGET with a manifest of two chunks, and GET with what it is given."""
    listener = socket.create_server(("127.0.0.1", 0))
    answers = []

    def talk(connection):
        with connection, suppress(OSError):
            while request := connection.recv(1 << 16):
                if b"MGET" in request:
                    connection.sendall(b"*1\r\n$16\r\n" + manifest(2 * MIB - 128) + b"\r\n")
                elif b"GET" in request:
                    connection.sendall(answers[0])
                    return
                else:
                    connection.sendall(b"+OK\r\n" * request.count(b"*"))

    def serve():
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=talk, args=(connection,), daemon=True).start()

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    yield listener.getsockname()[1], answers
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()
    thread.join()


@pytest.mark.parametrize(
    "answer",
    [
        b"$999999999\r\nfew bytes",
        b"$99999999999999999999\r\n",
        b"$-5\r\n",
        b"$ten\r\n",
        b"*2\r\n",
        b"+OK\r\n",
        b"no end of line " * 1000,
        b"",
        b"$1048512\r\nhalf of it",
        b"-LOADING not now\r\n",
    ],
)
def test_lies_about_a_chunk_end_the_call(liar, answer):
    port, answers = liar
    answers.append(answer)
    store = open_store(f"redis://127.0.0.1:{port}?timeout=5")
    before = psutil.Process().memory_info().rss
    with pytest.raises(CacheUnavailable):
        store.get_many([KEYS[0]])
    assert psutil.Process().memory_info().rss - before < 50 * MIB
    store.close()
