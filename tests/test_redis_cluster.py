"""The store in a Redis Cluster: three real nodes, resharded, without a node, and none at all."""

import pytest
from redis.crc import key_slot

from ragpack.cache_store import redis_entries
from ragpack.errors import CacheUnavailable, ConfigError
from ragpack.keys import CacheKey
from ragpack.registry import open_store

MIB = 1 << 20
LARGE = bytes(range(256)) * (5 * MIB // 256)


def key(number):
    return str(CacheKey("tenant", "kv", "fingerprint", f"passage {number}"))


def tag(number):
    """The hash tag of an entry's names."""
    return key(number).split(":")[1].encode()


@pytest.fixture
def store(redis_cluster, monkeypatch):
    monkeypatch.setattr(redis_entries, "_PAUSE_S", 0.0)
    opened = open_store(f"{redis_cluster.url}?timeout=5")
    yield opened
    opened.close()


def names(client):
    return {name.decode() for name in client.scan_iter()}


def test_entries_spread_over_the_nodes_and_each_is_on_one(store, redis_cluster):
    store.put_many({key(number): LARGE for number in range(9)}, ttl=3600)
    held = [names(client) for client in redis_cluster.clients]
    assert all(held)
    assert sum(map(len, held)) == 9 * 7
    for number in range(9):
        mine = [sum(tag(number).decode() in name for name in node) for node in held]
        assert sorted(mine) == [0, 0, 7]
    assert all(
        0 < client.ttl(name) <= 3600
        for client in redis_cluster.clients
        for name in client.scan_iter()
    )


def test_an_evicted_or_odd_chunk_makes_a_miss(store, redis_cluster):
    store.put_many({key(number): LARGE for number in range(3)})
    for client in redis_cluster.clients:
        for name in names(client):
            if tag(0).decode() in name and name.endswith(":3"):
                client.delete(name)
            if tag(1).decode() in name and name.endswith(":5"):
                client.set(name, b"short")
    assert store.get_many([key(0), key(1), key(2)]) == [None, None, LARGE]
    assert store.contains_many([key(0), key(2)]) == [False, True]


def move(slot, source, target):
    """Reshard one hash slot, as ``redis-cli --cluster reshard`` does."""
    ids = [client.execute_command("CLUSTER MYID").decode() for client in (source, target)]
    target.execute_command("CLUSTER SETSLOT", slot, "IMPORTING", ids[0])
    source.execute_command("CLUSTER SETSLOT", slot, "MIGRATING", ids[1])
    port = target.connection_pool.connection_kwargs["port"]
    moved = source.execute_command("CLUSTER GETKEYSINSLOT", slot, 100)
    source.migrate("127.0.0.1", port, moved, 0, 5000)
    for client in (target, source):
        client.execute_command("CLUSTER SETSLOT", slot, "NODE", ids[1])


def test_a_slot_that_moves_is_followed(store, redis_cluster):
    store.put_many({key(1): LARGE, key(2): b"small"})
    slot = key_slot(tag(1))
    [source] = [
        c for c in redis_cluster.clients if c.execute_command("CLUSTER COUNTKEYSINSLOT", slot)
    ]
    target = next(client for client in redis_cluster.clients if client is not source)
    move(slot, source, target)
    assert store.get_many([key(1), key(2)]) == [LARGE, b"small"]
    assert store.contains_many([key(1)]) == [True]
    store.put_many({key(1): b"new"})
    assert store.get_many([key(1)]) == [b"new"]
    assert any(tag(1).decode() in name for name in names(target))
    move(slot, target, source)
    assert store.get_many([key(1)]) == [b"new"]


def test_a_full_node(store, redis_cluster):
    for client in redis_cluster.clients:
        client.config_set("maxmemory-policy", "noeviction")
        client.config_set("maxmemory", client.info()["used_memory"] + 8 * MIB)
    try:
        with pytest.raises(CacheUnavailable, match="maxmemory"):
            store.put_many({key(number): LARGE for number in range(9)})
        assert store.get_many([key(number) for number in range(9)]) == [None] * 9
        assert store.stats().max_bytes is not None
    finally:
        for client in redis_cluster.clients:
            client.config_set("maxmemory", 0)


def test_a_node_that_is_killed_and_started_again(store, redis_cluster):
    entries = {key(number): b"x" for number in range(30)}
    store.put_many(entries)
    redis_cluster.nodes[2].kill()
    with pytest.raises(CacheUnavailable, match="does not answer"):
        store.get_many(list(entries))
    redis_cluster.nodes[2].start()
    redis_cluster.wait()
    found = store.get_many(list(entries))
    assert 0 < found.count(None) < 30
    store.put_many(entries)
    assert store.get_many(list(entries)) == [b"x"] * 30


def test_no_cluster():
    store = open_store("redis+cluster://127.0.0.1:1")
    with pytest.raises(CacheUnavailable, match=r"Redis Cluster at 127\.0\.0\.1:1 does not answer"):
        store.get_many([key(1)])
    store.close()


def test_a_server_that_is_no_cluster(redis_url):
    store = open_store(redis_url.replace("redis://", "redis+cluster://"))
    with pytest.raises(CacheUnavailable, match="Cluster mode is not enabled"):
        store.get_many([key(1)])


def test_a_cluster_through_the_store_of_one_server_is_refused(redis_cluster):
    store = open_store(redis_cluster.url.replace("+cluster", ""))
    entries = {key(number): b"x" for number in range(30)}
    for ask in (lambda: store.put_many(entries), lambda: store.get_many(list(entries))):
        with pytest.raises(CacheUnavailable, match=r"redis\+cluster://"):
            ask()
    store.close()


@pytest.mark.parametrize(
    "url",
    [
        "redis+cluster://localhost/3",
        "redis+cluster://localhost:notaport",
        "redis+cluster://h?connections=0",
    ],
)
def test_bad_urls(url):
    with pytest.raises(ConfigError):
        open_store(url)
