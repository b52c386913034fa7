"""The memory store's own ways: its cap, its order of eviction, its settings."""

import pytest

from ragpack.errors import CacheUnavailable, ConfigError
from ragpack.registry import open_store


def test_the_least_recently_used_entry_goes_first():
    store = open_store("memory://?max_bytes=300")
    store.put_many({"a": bytes(100), "b": bytes(100), "c": bytes(100)})
    store.get_many(["a"])
    store.put_many({"d": bytes(100)})
    assert store.contains_many(["a", "b", "c", "d"]) == [True, False, True, True]
    stats = store.stats()
    assert (stats.bytes, stats.max_bytes, stats.evictions) == (300, 300, 1)


def test_replacing_a_value_takes_no_room_twice():
    store = open_store("memory://?max_bytes=300")
    for _ in range(5):
        store.put_many({"a": bytes(200)})
    assert (store.stats().bytes, store.stats().evictions) == (200, 0)


def test_a_value_larger_than_the_store_changes_nothing():
    store = open_store("memory://?max_bytes=1kB")
    store.put_many({"a": b"kept"})
    with pytest.raises(CacheUnavailable, match="max_bytes"):
        store.put_many({"b": bytes(1001)})
    assert store.get_many(["a", "b"]) == [b"kept", None]


@pytest.mark.parametrize(
    ("text", "size"),
    [("1500", 1500), ("64MB", 64_000_000), ("64MiB", 64 << 20), ("1.5k", 1500), ("2 GiB", 2 << 30)],
)
def test_sizes(text, size):
    assert open_store(f"memory://?max_bytes={text}").stats().max_bytes == size


@pytest.mark.parametrize("text", ["", "0", "-1", "many", "10XB", "1e3"])
def test_sizes_that_are_none(text):
    with pytest.raises(ConfigError, match="max_bytes"):
        open_store(f"memory://?max_bytes={text}")
