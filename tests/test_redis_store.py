"""The Redis store's own ways: its layout, and a server that is away, slow, full or forgetful."""

import multiprocessing
import os
import signal
import threading
import tracemalloc

import pytest
import redis
from redis._parsers import _RESP2Parser
from redis.crc import key_slot

from ragpack.cache_store import redis_entries as module
from ragpack.errors import CacheUnavailable, ConfigError
from ragpack.keys import CacheKey
from ragpack.registry import open_store

MIB = 1 << 20
LARGE = bytes(range(256)) * (5 * MIB // 256)


def key(number):
    return str(CacheKey("tenant", "kv", "fingerprint", f"passage {number}"))


def name(number, part):
    namespace, digest = key(number).split(":")
    return f"rp:{namespace}:{{{digest}}}:{part}"


@pytest.fixture
def store(redis_url):
    opened = open_store(f"{redis_url}?timeout=60")
    yield opened
    opened.close()


@pytest.fixture
def client(redis_url):
    with redis.Redis.from_url(redis_url) as opened:
        yield opened


@pytest.fixture
def own(redis_server, monkeypatch):
    """A store on a server of this test's own, which it asks again soon after a failure."""
    monkeypatch.setattr(module, "_PAUSE_S", 0.0)
    opened = open_store(f"{redis_server.url}?timeout=2")
    yield opened
    opened.close()


@pytest.fixture
def own_client(redis_server):
    with redis.Redis(port=redis_server.port) as opened:
        yield opened


def test_an_entry_is_a_manifest_and_chunks_in_one_hash_slot(store, client):
    store.put_many({key(1): LARGE, key(2): b"small"}, ttl=3600)
    names = {found.decode() for found in client.scan_iter()}
    assert names == {name(1, part) for part in ["m", 0, 1, 2, 3, 4, 5]} | {name(2, "m")}
    assert all(3000 < client.ttl(found) <= 3600 for found in names)
    assert len({key_slot(name(1, part).encode()) for part in ["m", 0, 5]}) == 1


def test_small_values_are_one_round_trip(store, client):
    entries = {key(number): bytes(15_000) for number in range(20)}
    store.put_many(entries)
    client.config_resetstat()
    store.get_many(list(entries))
    commands = client.info("commandstats")
    assert commands["cmdstat_mget"]["calls"] == 1
    assert "cmdstat_get" not in commands


@pytest.mark.parametrize("part", ["m", 0, 3, 5])
def test_an_evicted_part_makes_a_miss(store, client, part):
    store.put_many({key(1): LARGE, key(2): LARGE})
    client.delete(name(1, part))
    assert store.get_many([key(1), key(2)]) == [None, LARGE]
    assert store.contains_many([key(1), key(2)]) == [False, True]
    store.put_many({key(1): LARGE})
    assert store.get_many([key(1)]) == [LARGE]


@pytest.mark.parametrize("odd", [b"", b"short", bytes(3 * MIB)])
def test_an_odd_chunk_makes_a_miss(store, client, odd):
    store.put_many({key(1): LARGE, key(2): LARGE})
    client.set(name(1, 2), odd)
    assert store.get_many([key(2), key(1), key(2)]) == [LARGE, None, LARGE]
    assert store.get_many([key(2)]) == [LARGE]


def test_a_chunk_of_another_type_is_an_error_of_its_call_only(store, client):
    store.put_many({key(1): LARGE, key(2): LARGE})
    client.delete(name(1, 2))
    client.lpush(name(1, 2), "not a string")
    with pytest.raises(CacheUnavailable, match="WRONGTYPE"):
        store.get_many([key(1)])
    assert store.get_many([key(2)]) == [LARGE]


@pytest.mark.parametrize("connections", [1, 3, 8])
def test_large_values_over_several_connections(redis_url, connections):
    store = open_store(f"{redis_url}?connections={connections}&timeout=60")
    entries = {key(n): bytes([n]) * (n * MIB + n) for n in range(12)}
    store.put_many(entries)
    assert store.get_many(list(entries)) == list(entries.values())
    store.close()


def test_values_are_sent_without_a_copy(store):
    value = memoryview(bytes(64 * MIB))
    store.contains_many([key(1)])
    tracemalloc.start()
    store.put_many({key(1): value})
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2 * MIB


def test_the_parser_without_hiredis(store):
    store._pool.connection_kwargs["parser_class"] = _RESP2Parser
    store.put_many({key(1): LARGE, key(2): b"small"})
    assert store.get_many([key(1), key(2), key(3)]) == [LARGE, b"small", None]


def test_a_drop_leaves_nothing_behind(store, client):
    store.put_many({key(number): b"x" for number in range(2500)})
    store.put_many({key(1): LARGE})
    client.set("foreign", "stays")
    assert store.drop("tenant") == 2500
    assert client.keys() == [b"foreign"]


# A server in trouble


def test_no_server(monkeypatch):
    monkeypatch.setattr(module, "_PAUSE_S", 0.0)
    store = open_store("redis://127.0.0.1:1/0")
    for ask in (
        lambda: store.get_many([key(1)]),
        lambda: store.put_many({key(1): b"x"}),
        lambda: store.contains_many([key(1)]),
        lambda: store.delete_many([key(1)]),
        lambda: list(store.scan("tenant")),
        lambda: store.drop("tenant"),
        store.stats,
    ):
        with pytest.raises(CacheUnavailable, match=r"127\.0\.0\.1:1 does not answer"):
            ask()


def test_a_server_that_is_away_is_not_asked_by_everyone(monkeypatch):
    monkeypatch.setattr(module, "_PAUSE_S", 300.0)
    store = open_store("redis://127.0.0.1:1/0")
    with pytest.raises(CacheUnavailable):
        store.get_many([key(1)])
    with pytest.raises(CacheUnavailable, match="not asked again"):
        store.get_many([key(1)])


def test_a_restart_between_two_calls_goes_unnoticed(own, redis_server):
    own.put_many({key(1): LARGE})
    assert own.get_many([key(1)]) == [LARGE]
    redis_server.kill()
    redis_server.start()
    assert own.get_many([key(1)]) == [None]
    own.put_many({key(1): LARGE})
    assert own.get_many([key(1)]) == [LARGE]


def test_killed_and_started_again(own, redis_server):
    own.put_many({key(1): b"x"})
    redis_server.kill()
    for _ in range(2):
        with pytest.raises(CacheUnavailable, match="does not answer"):
            own.get_many([key(1)])
    redis_server.start()
    assert own.get_many([key(1)]) == [None]


def test_killed_amid_large_values(own, redis_server):
    """Every call during a crash gives the value, a miss, or CacheUnavailable; then it heals."""
    own.put_many({key(1): LARGE * 8})
    outcomes = []

    def read():
        for _ in range(40):
            try:
                outcomes.append(own.get_many([key(1)])[0] in (None, LARGE * 8))
            except CacheUnavailable:
                outcomes.append(True)

    reader = threading.Thread(target=read)
    reader.start()
    redis_server.kill()
    redis_server.start()
    reader.join()
    assert outcomes == [True] * 40
    own.put_many({key(1): LARGE})
    assert own.get_many([key(1)]) == [LARGE]


@pytest.mark.parametrize("value", [b"small", LARGE], ids=["small", "large"])
def test_a_server_that_hangs(own, own_client, value):
    """It costs its timeout, and its late replies never reach a later call."""
    own.put_many({key(1): value, key(2): value[::-1]})
    process = own_client.info()["process_id"]
    os.kill(process, signal.SIGSTOP)
    with pytest.raises(CacheUnavailable, match="does not answer"):
        own.get_many([key(1)])
    with pytest.raises(CacheUnavailable, match="does not answer"):
        own.put_many({key(3): value})
    os.kill(process, signal.SIGCONT)
    assert own.get_many([key(2), key(1)]) == [value[::-1], value]


def test_a_full_server(own, own_client):
    own_client.config_set("maxmemory-policy", "noeviction")
    own_client.config_set("maxmemory", own_client.info()["used_memory"] + 8 * MIB)
    own.put_many({key(1): b"kept"})
    with pytest.raises(CacheUnavailable, match="maxmemory"):
        own.put_many({key(2): LARGE * 4})
    assert own.get_many([key(1), key(2)]) == [b"kept", None]
    assert own_client.keys() == [name(1, "m").encode()]
    assert own.stats().max_bytes is not None
    own.put_many({key(3): b"fits"})
    assert own.get_many([key(3)]) == [b"fits"]


def test_a_server_that_evicts(own, own_client):
    own_client.config_set("maxmemory-policy", "allkeys-lfu")
    own_client.config_set("maxmemory", own_client.info()["used_memory"] + 24 * MIB)
    for number in range(12):
        own.put_many({key(number): LARGE})
    own_client.config_set("maxmemory", 0)  # what is read counts, too: nothing more goes between
    names = [key(number) for number in range(12)]
    found = own.get_many(names)
    assert all(value in (None, LARGE) for value in found)
    assert own.contains_many(names) == [value is not None for value in found]
    assert own.stats().evictions > 0


def test_a_wrong_password_is_said_without_it(redis_server, own_client):
    own_client.config_set("requirepass", "right-secret")
    address = f"127.0.0.1:{redis_server.port}"
    store = open_store(f"redis://:wrong-secret@{address}")
    with pytest.raises(CacheUnavailable, match="password") as caught:
        store.get_many([key(1)])
    assert "secret" not in str(caught.value)
    store = open_store(f"redis://:right-secret@{address}")
    store.put_many({key(1): b"x"})
    assert store.get_many([key(1)]) == [b"x"]
    store.close()


def child_reads(connection, store):
    connection.send([bytes(value) for value in store.get_many([key(1), key(2)])])


def test_a_fork_has_connections_of_its_own(store):
    store.put_many({key(1): LARGE, key(2): b"small"})
    context = multiprocessing.get_context("fork")
    here, there = context.Pipe()
    child = context.Process(target=child_reads, args=(there, store))
    child.start()
    for _ in range(5):
        assert store.get_many([key(1), key(2)]) == [LARGE, b"small"]
    assert here.poll(300)
    assert here.recv() == [LARGE, b"small"]
    child.join()


@pytest.mark.parametrize(
    "url",
    [
        "redis://localhost:notaport",
        "redis://localhost?connections=0",
        "redis://localhost?timeout=-1",
        "redis://localhost?decode_responses=1",
    ],
)
def test_bad_urls(url):
    with pytest.raises(ConfigError):
        open_store(url)
