"""The indexing step: nothing twice, nothing lost, one bad passage alone."""

import threading
from collections.abc import Iterable

import numpy as np
import pytest

from ragpack.cache import ArtifactCache
from ragpack.cache_store.lmdb import LmdbStore
from ragpack.cache_store.memory import MemoryStore
from ragpack.cache_store.redis import RedisStore
from ragpack.corpus import BadRecord, Record
from ragpack.errors import CacheUnavailable
from ragpack.index import Indexer
from ragpack.index.ahead import read_ahead
from ragpack.index.fill import Filler
from ragpack.protocols import Compressor
from ragpack.retrievers.faiss import FaissRetriever
from ragpack.types import EmbedsArtifact, Fingerprint, Passage

DIM = 4


class Counting(Compressor):
    """Vectors from a text's characters; remembers every passage it computed, refuses some."""

    name = "counting"
    kind = "embeds"
    query_aware = False

    def __init__(self, name: str = "counting", width: int = DIM, made_by: str = "") -> None:
        self.name = name
        self.width = width
        self.made_by = made_by or name
        self.computed: list[str] = []
        self.calls = 0

    @property
    def fingerprint(self) -> Fingerprint:
        return Fingerprint(self.made_by)

    def compress(self, passages, query):
        self.calls += 1
        for passage in passages:
            if "refuse" in passage.text:
                raise ValueError(f"cannot read {passage.id}")
        self.computed += [passage.id for passage in passages]
        return [EmbedsArtifact(_vector(passage, self.width)) for passage in passages]


def _vector(passage: Passage, width: int) -> np.ndarray:
    if "not a number" in passage.text:
        return np.full((1, width), np.nan, np.float32)
    seed = list(passage.full_text.encode()) or [0]
    return np.random.default_rng(seed).normal(size=(1, width)).astype(np.float32)


class Encoder:
    dim = DIM
    fingerprint = Fingerprint("test")

    def encode(self, texts):
        return np.zeros((len(texts), DIM), np.float32)


def records(*texts: str) -> list[Record]:
    return [
        Record(line, Passage(f"p{line}", text), 10 * line) for line, text in enumerate(texts, 1)
    ]


def _run(store, items: Iterable[Record | BadRecord], *compressors: Compressor, **options):
    index = FaissRetriever(Encoder())
    caches = [ArtifactCache(each, store, namespace="ns") for each in compressors]
    summary = Indexer(index, caches[0], caches[1:], **options.pop("job", {})).run(items, **options)
    return summary, index


def test_a_second_run_computes_nothing() -> None:
    store, dense, method = MemoryStore(), Counting("dense"), Counting()
    first, _ = _run(store, records("one", "two", "three"), dense, method)
    assert (first.passages, first.added) == (3, 3)
    assert first.computed == {"dense": 3, "counting": 3}
    assert first.bytes == store.stats().bytes
    second, index = _run(store, records("one", "two", "three", "four"), dense, method)
    assert second.computed == {"dense": 1, "counting": 1}
    assert second.hits == {"dense": 3, "counting": 3}
    assert dense.computed.count("p4") == 1
    assert len(dense.computed) == len(method.computed) == 4
    assert len(index) == 4


def test_what_is_there_is_not_read_unless_the_index_lacks_it(monkeypatch) -> None:
    store, dense, method = MemoryStore(), Counting("dense"), Counting()
    _, index = _run(store, records("one", "two"), dense, method)
    read: list[str] = []
    get_many = store.get_many
    monkeypatch.setattr(store, "get_many", lambda keys: read.extend(keys) or get_many(keys))
    caches = [ArtifactCache(each, store, namespace="ns") for each in (dense, method)]
    again = Indexer(index, caches[0], caches[1:]).run(records("one", "two", "three"))
    assert (again.added, again.hits["counting"]) == (1, 2)
    assert len(read) == 1  # the vector of "three"


def test_one_bad_passage_fails_alone_with_its_reason() -> None:
    bad: list[BadRecord] = []
    texts = ["one", "refuse me", "three", "not a number", "five"]
    store, dense, method = MemoryStore(), Counting("dense"), Counting()
    summary, index = _run(store, records(*texts), dense, method, failed=bad.append)
    assert (summary.passages, summary.failures, len(index)) == (3, 2, 3)
    assert {each.line: each.reason for each in bad} == {
        2: "dense: cannot read p2",
        4: "dense: not finite: vectors holds NaN or infinity",
    }
    assert sorted(method.computed) == ["p1", "p3", "p5"]


def test_a_passage_that_only_a_method_refuses_is_in_the_index() -> None:
    class Picky(Counting):
        def compress(self, passages, query):
            return super().compress([Passage(p.id, "refuse") for p in passages if p.id == "p2"]
                                    or passages, query)  # fmt: skip

    summary, index = _run(
        MemoryStore(), records("one", "two", "three"), Counting("dense"), Picky("picky")
    )
    assert (summary.passages, summary.failures, len(index)) == (3, 1, 3)
    assert summary.failed[0].reason == "picky: cannot read p2"
    assert summary.computed == {"dense": 3, "picky": 2}


def test_twins_and_methods_that_store_the_same_are_computed_once() -> None:
    store, dense = MemoryStore(), Counting("dense")
    ape, reuse = Counting("ape", made_by="kv"), Counting("kv-reuse", made_by="kv")
    summary, index = _run(store, records("one", "one", "two"), dense, ape, reuse)
    assert dense.computed == ["p1", "p3"]
    assert sorted(ape.computed + reuse.computed) == ["p1", "p3"]
    assert summary.computed == {"dense": 2, "ape": 2, "kv-reuse": 2}
    assert summary.hits == {"dense": 1, "ape": 1, "kv-reuse": 1}
    assert index.get("p2").text == "one"


def test_an_id_with_two_texts_fails_with_the_place_of_the_first() -> None:
    items = [*records("one", "two"), Record(3, Passage("p1", "other"), 30)]
    summary, index = _run(MemoryStore(), items, Counting("dense"))
    assert summary.failed[0].reason == "id 'p1' was used in line 1 for another text"
    assert index.get("p1").text == "one"


def test_progress_tells_only_what_is_stored() -> None:
    store, dense, method = MemoryStore(), Counting("dense"), Counting()
    told: list[int] = []

    def progress(summary) -> None:
        told.append(summary.passages)
        assert store.stats().entries >= 2 * summary.passages

    items = records(*(f"text {n}" * 9000 for n in range(7)))
    _run(store, items, dense, method, progress=progress, job={"batch": 2})
    assert told[-1] == 7
    assert told == sorted(told)
    assert len(told) > 7  # also between the slices of a batch


def test_a_store_that_pushes_out_what_it_was_given_is_refused(tmp_path) -> None:
    store = LmdbStore(tmp_path / "store", max_bytes=20_000)
    items = records(*(f"text {n}" for n in range(64)))
    with pytest.raises(CacheUnavailable, match="too small and pushes them out"):
        _run(store, items, Counting("dense"), Counting(width=200), job={"batch": 8})
    store.close()


def test_a_store_that_goes_away_stops_the_job_and_the_next_one_goes_on(redis_server) -> None:
    store, dense = RedisStore(redis_server.url), Counting("dense")
    items = records(*(f"text {n}" for n in range(40)))

    def progress(summary) -> None:
        if summary.passages == 16:
            redis_server.kill()

    with pytest.raises(CacheUnavailable):
        _run(store, items, dense, progress=progress, job={"batch": 8})
    assert 16 <= len(dense.computed) < 40
    redis_server.start()
    fresh = RedisStore(redis_server.url)
    summary, _ = _run(fresh, items, Counting("dense"))
    assert summary.computed["dense"] + summary.hits["dense"] == 40


def test_a_full_store_says_how_to_go_on(redis_server) -> None:
    import redis

    with redis.Redis.from_url(redis_server.url) as client:
        client.config_set("maxmemory", "8mb")
    store = RedisStore(redis_server.url)
    items = records(*(f"text {n}" for n in range(60)))
    with pytest.raises(CacheUnavailable, match=r"it is full.*goes on from here"):
        _run(store, items, Counting("dense"), Counting(width=50_000), job={"batch": 10})
    with redis.Redis.from_url(redis_server.url) as client:
        client.config_set("maxmemory", 0)
    summary, _ = _run(store, items, Counting("dense"), again := Counting(width=50_000))
    assert summary.hits["counting"] > 0
    assert len(again.computed) == 60 - summary.hits["counting"]


def test_two_jobs_on_one_store_at_once_end_with_the_same_content(tmp_path) -> None:
    texts = [f"text {n}" for n in range(200)]
    store = LmdbStore(tmp_path / "store")
    jobs = [
        threading.Thread(
            target=_run,
            args=(store, records(*texts), Counting("dense"), Counting()),
            kwargs={"job": {"batch": size}},
        )
        for size in (7, 16)
    ]
    for job in jobs:
        job.start()
    for job in jobs:
        job.join()
    alone = MemoryStore()
    _run(alone, records(*texts), Counting("dense"), Counting())
    keys = sorted(alone.scan("ns"))
    assert sorted(store.scan("ns")) == keys
    assert [bytes(v) for v in store.get_many(keys)] == [bytes(v) for v in alone.get_many(keys)]
    store.close()


def test_slices_hold_similar_lengths_and_are_bounded() -> None:
    method = Counting()
    texts = [("a" * length) for length in (20_000, 5, 40_000, 30_000, 7)]
    Filler(ArtifactCache(method, MemoryStore(), namespace="ns")).fill(
        [record.passage for record in records(*texts)]
    )
    assert method.computed == ["p3", "p4", "p1", "p5", "p2"]
    assert method.calls == 2


def test_reading_ahead_keeps_order_and_errors() -> None:
    assert list(read_ahead(iter(range(9)))) == list(range(9))
    assert list(read_ahead([])) == []

    def broken():
        yield 1
        raise OSError("gone")

    ahead = read_ahead(broken())
    assert next(ahead) == 1
    with pytest.raises(OSError, match="gone"):
        next(ahead)


def test_reading_ahead_does_not_run_away() -> None:
    read: list[int] = []
    ahead = read_ahead((read.append(n) or n for n in range(100)), depth=3)
    assert next(ahead) == 0
    ahead.close()
    assert len(read) <= 5
