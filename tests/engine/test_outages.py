"""Requests over a Redis that is slow, full or forgetful: answered, counted, no traceback."""

import os
import signal

import pytest
import redis

from ragpack import ContextPacker

QUERY = "who wrote the first program"


@pytest.fixture
def client(redis_server):
    with redis.Redis(port=redis_server.port) as opened:
        yield opened


@pytest.fixture
def packer(redis_server, scripted):
    url = f"{redis_server.url}?timeout=2"
    with ContextPacker(scripted(), store=url, deadline_ms=20_000) as opened:
        yield opened


def results(packed):
    return {row.cache for row in packed.report.passages}


def assert_said_once_without_a_traceback(caplog):
    said = [record for record in caplog.records if record.name.startswith("ragpack")]
    assert len({record.getMessage() for record in said}) == len(said) > 0
    assert all(record.exc_info is None for record in said)


def test_a_redis_that_hangs(packer, passages, client, caplog):
    expected = packer.pack(QUERY, passages)
    packer.flush()
    process = client.info()["process_id"]
    os.kill(process, signal.SIGSTOP)
    hung = [packer.pack(QUERY, passages) for _ in range(3)]
    packer.flush()
    os.kill(process, signal.SIGCONT)
    assert [results(packed) for packed in hung] == [{"unavailable"}] * 3
    assert {packed.text for packed in hung} == {expected.text}
    assert packer.cache.counts["unavailable"] == 9
    assert_said_once_without_a_traceback(caplog)


def test_a_redis_that_is_full(packer, passages, client, caplog):
    client.config_set("maxmemory-policy", "noeviction")
    client.config_set("maxmemory", 1)
    first = packer.pack(QUERY, passages)
    packer.flush()
    second = packer.pack(QUERY, passages)
    packer.flush()
    assert results(first) == results(second) == {"miss"}
    assert first.text == second.text
    assert packer.cache.counts["write failed"] == 6
    assert_said_once_without_a_traceback(caplog)


def test_a_redis_that_forgets(packer, passages, client):
    expected = packer.pack(QUERY, passages)
    packer.flush()
    client.flushall()
    assert results(packer.pack(QUERY, passages)) == {"miss"}
    packer.flush()
    healed = packer.pack(QUERY, passages)
    assert (healed.report.hits, healed.text) == (3, expected.text)
