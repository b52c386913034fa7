"""What every store must do, run over each of them."""

import threading
import time

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ragpack.errors import ConfigError
from ragpack.keys import CacheKey
from ragpack.protocols import CacheStore
from ragpack.registry import open_store

KIB = 1 << 10
MIB = 1 << 20
SIZES = [0, 1, 15 * KIB, 64 * KIB, 64 * KIB + 1, MIB - 64, MIB, 3 * MIB + 17]
KINDS = ["memory", "lmdb", "redis", "redis+cluster"]


def key(number, namespace="tenant"):
    return str(CacheKey(namespace, "text", "fingerprint", f"passage {number}"))


def value(size, seed=0):
    block = bytes((i * 7 + seed) % 251 for i in range(1021))
    return (block * (size // len(block) + 1))[:size]


def url_of(kind, tmp_path, request):
    if kind == "redis":
        return request.getfixturevalue("redis_url")
    if kind == "redis+cluster":
        return request.getfixturevalue("redis_cluster").url
    return f"lmdb://{tmp_path / 'store'}" if kind == "lmdb" else "memory://"


@pytest.fixture(params=KINDS)
def store(request, tmp_path):
    opened = open_store(url_of(request.param, tmp_path, request))
    yield opened
    opened.close()


def test_is_a_cache_store(store):
    assert isinstance(store, CacheStore)


@pytest.mark.parametrize("wrap", [bytes, bytearray, memoryview])
def test_values_of_every_size_come_back(store, wrap):
    entries = {key(size): value(size) for size in SIZES}
    store.put_many({name: wrap(data) for name, data in entries.items()})
    found = store.get_many([*entries, key("absent"), key(SIZES[0])])
    assert [None if data is None else bytes(data) for data in found] == [
        *entries.values(),
        None,
        value(SIZES[0]),
    ]


def test_a_view_of_words_is_stored_as_its_bytes(store):
    words = memoryview(value(2 * MIB)).cast("Q")
    store.put_many({key(1): words})
    assert bytes(store.get_many([key(1)])[0]) == value(2 * MIB)


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.dictionaries(st.integers(0, 9), st.binary(max_size=200), max_size=6), max_size=4)
)
def test_the_last_write_wins(store, writes):
    store.delete_many([key(number) for number in range(10)])
    for entries in writes:
        store.put_many({key(number): data for number, data in entries.items()})
    expected = {number: data for entries in writes for number, data in entries.items()}
    found = store.get_many([key(number) for number in range(10)])
    assert {i: bytes(data) for i, data in enumerate(found) if data is not None} == expected
    assert store.contains_many([key(number) for number in range(10)]) == [
        number in expected for number in range(10)
    ]


@pytest.mark.parametrize(("first", "second"), [(3 * MIB, 100), (100, 3 * MIB), (3 * MIB, 2 * MIB)])
def test_a_value_may_change_its_size(store, first, second):
    store.put_many({key(1): value(first)})
    store.put_many({key(1): value(second, seed=1)})
    assert bytes(store.get_many([key(1)])[0]) == value(second, seed=1)
    assert store.stats().entries == 1


def test_nothing_asked_nothing_given(store):
    store.put_many({})
    store.delete_many([])
    assert store.get_many([]) == []
    assert store.contains_many([]) == []


def test_thousands_of_keys_in_one_call(store):
    entries = {key(number): value(700, seed=number) for number in range(3000)}
    store.put_many(entries)
    names = list(entries)
    assert [bytes(data) for data in store.get_many(names)] == list(entries.values())
    assert all(store.contains_many(names))
    store.delete_many(names[:2999])
    assert store.contains_many(names[2998:]) == [False, True]


def test_contains_and_delete(store):
    store.put_many({key(1): b"a", key(2): value(3 * MIB)})
    assert store.contains_many([key(2), key(3), key(1)]) == [True, False, True]
    store.delete_many([key(2), key(3)])
    assert store.contains_many([key(1), key(2)]) == [True, False]
    assert store.get_many([key(2)]) == [None]


def test_entries_end_with_their_time(store):
    store.put_many({key(1): b"short", key(2): value(2 * MIB)}, ttl=0.25)
    store.put_many({key(3): b"long"}, ttl=60)
    store.put_many({key(4): b"ever"})
    time.sleep(0.3)
    assert store.contains_many([key(1), key(2), key(3), key(4)]) == [False, False, True, True]
    assert store.get_many([key(1), key(2)]) == [None, None]
    assert sorted(store.scan("tenant")) == sorted([key(3), key(4)])


def test_a_new_write_sets_a_new_time(store):
    store.put_many({key(1): b"x"}, ttl=0.1)
    store.put_many({key(1): b"y"})
    time.sleep(0.15)
    assert store.get_many([key(1)]) == [b"y"]


def test_namespaces_are_walls(store):
    store.put_many({key(n): value(n * MIB) for n in range(3)})
    store.put_many({key(n, "other"): b"other" for n in range(2)})
    assert sorted(store.scan("tenant")) == sorted(key(n) for n in range(3))
    assert store.drop("tenant") == 3
    assert list(store.scan("tenant")) == []
    assert store.drop("tenant") == 0
    assert len(list(store.scan("other"))) == 2
    with pytest.raises(ConfigError):
        store.drop("")


def test_stats_count_entries_and_bytes(store):
    before = store.stats()
    store.put_many({key(1): value(1000), key(2): value(3 * MIB)})
    after = store.stats()
    assert (before.entries, after.entries) == (0, 2)
    assert 3 * MIB + 1000 <= after.bytes - before.bytes < 3.1 * MIB


def test_callers_cannot_change_what_is_stored(store):
    data = bytearray(b"before")
    store.put_many({key(1): data})
    data[:] = b"after!"
    found = store.get_many([key(1)])[0]
    if isinstance(found, bytearray):
        found[:] = b"wrecks"
    assert bytes(store.get_many([key(1)])[0]) == b"before"


def test_many_threads_share_it(store):
    errors = []

    def work(number):
        try:
            for turn in range(10):
                name, size = key(f"{number}.{turn}"), 100 if turn % 3 else MIB + turn
                store.put_many({name: value(size, seed=number)})
                assert bytes(store.get_many([name])[0]) == value(size, seed=number)
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert store.stats().entries == 40


def test_close_twice(store):
    store.close()
    store.close()


@pytest.mark.parametrize("kind", KINDS)
def test_unknown_settings_are_refused(kind, tmp_path, request):
    with pytest.raises(ConfigError, match="colour"):
        open_store(url_of(kind, tmp_path, request) + "?colour=red")
