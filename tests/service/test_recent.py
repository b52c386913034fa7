"""What was read lately is served from memory: the same answer, until it is deleted."""

import time

import numpy as np
import pytest

from ragpack import registry
from ragpack.keys import CacheKey
from ragpack.service.recent import RecentArtifacts
from ragpack.types import EmbedsArtifact, TextArtifact


def _key(name):
    return CacheKey("n", "embeds", "made by", name)


def _vectors(count):
    return EmbedsArtifact(np.zeros((count, 100), np.float16), spans=((0, 1),) * count)


def _ask(client, passages):
    asked = {"method": "recomp-extractive", "query": "How long?", "passages": passages}
    answer = client.post("/v1/compress", json=asked).json()
    return [row["cache"] for row in answer["results"]], [row["kept"] for row in answer["results"]]


@pytest.fixture
def store(redis_server):
    """The server's store, from outside."""
    opened = registry.open_store(redis_server.url)
    yield opened
    opened.close()


def test_what_was_read_is_there_without_the_store(serve, store, redis_server, passages, until):
    client = serve(store=redis_server.url).client
    first = _ask(client, passages)
    until(lambda: len(list(store.scan("default"))) == 2)  # written in the background
    second = _ask(client, passages)
    redis_server.kill()
    third = _ask(client, passages)
    assert [first[0], second[0], third[0]] == [["miss"] * 2, ["hit"] * 2, ["hit"] * 2]
    assert first[1] == second[1] == third[1]
    assert _ask(client, [*passages, "A new one."])[0] == ["hit", "hit", "unavailable"]


@pytest.mark.parametrize("off", [{"recent_bytes": 0}, {"recent_seconds": 0.0}])
def test_an_operator_can_switch_it_off(serve, store, redis_server, passages, off, until):
    client = serve(store=redis_server.url, **off).client
    _ask(client, passages)
    until(lambda: len(list(store.scan("default"))) == 2)  # written in the background
    assert _ask(client, passages)[0] == ["hit"] * 2
    store.drop("default")
    assert _ask(client, passages)[0] == ["miss"] * 2


def test_what_is_deleted_over_http_is_gone_at_once(serve, passages, until):
    client = serve().client
    body = {"index": "book", "passages": passages, "methods": ["recomp-extractive"]}
    job = client.post("/v1/index", json=body).headers["location"]
    until(lambda: client.get(job).json()["status"] == "done")
    assert _ask(client, passages)[0] == ["hit"] * 2
    client.delete("/v1/passages/b", params={"index": "book"}).raise_for_status()
    assert _ask(client, passages)[0] == ["hit", "miss"]


def test_the_least_recently_used_go_first_and_what_is_too_large_is_not_kept():
    one = _vectors(10)
    recent = RecentArtifacts(max_bytes=3 * (one.vectors.nbytes + 10 * 128), seconds=60)
    recent.put_many({_key(name): one for name in "abc"})
    assert recent.get_many([_key("a")]) == [one]
    recent.put_many({_key("d"): one, _key("large"): _vectors(1000)})
    assert recent.get_many([_key(name) for name in "abcd"]) == [one, None, one, one]
    assert recent.get_many([_key("large")]) == [None]
    recent.forget([_key("a"), _key("never there")])
    assert recent.get_many([_key("a")]) == [None]


def test_it_is_read_again_after_a_while():
    recent = RecentArtifacts(max_bytes=10_000, seconds=0.05)
    recent.put_many({_key("a"): TextArtifact(((0, 3),))})
    time.sleep(0.1)
    assert recent.get_many([_key("a")]) == [None]
