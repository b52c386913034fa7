"""Recall against exact search, on vectors whose neighbours are known."""

import numpy as np
import pytest

from ragpack.cache import ArtifactCache
from ragpack.cache_store.memory import MemoryStore
from ragpack.corpus import Record
from ragpack.errors import InputError
from ragpack.index import Indexer
from ragpack.index.recall import measure_recall
from ragpack.models.dense import DenseEncoder
from ragpack.retrievers.faiss import FaissRetriever
from ragpack.types import Fingerprint, Passage

DIM = 16


class Encoder:
    dim = DIM
    fingerprint = Fingerprint("test")

    def encode(self, texts):
        rows = [np.random.default_rng(list(t.encode()) or [0]).normal(size=DIM) for t in texts]
        return np.array(rows, np.float32).reshape(-1, DIM)


@pytest.fixture(scope="module")
def cache():
    return ArtifactCache(DenseEncoder(Encoder()), MemoryStore(), namespace="ns")


def _indexed(cache, factory: str, count: int = 400) -> FaissRetriever:
    index = FaissRetriever(Encoder(), factory=factory)
    records = (
        Record(n, Passage(f"p{n}", f"text number {n % (count - 9)}"), 0) for n in range(count)
    )
    Indexer(index, cache).run(records)
    return index


def test_an_exact_index_finds_everything(cache) -> None:
    found = measure_recall(_indexed(cache, "Flat"), cache, 10, queries=50)
    assert (found.k, found.queries, found.recall) == (10, 50, 1.0)


def test_it_equals_recall_counted_by_hand(cache) -> None:
    index = _indexed(cache, "PCA4,SQ8")
    texts = list(index.texts())
    vectors = Encoder().encode([passage.full_text for passage in texts])
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    shares = []
    for row, found in enumerate(index.search_vectors(vectors, 6)):
        true = [n for n in np.argsort(-(vectors @ vectors[row])) if n != row][:5]
        ours = [p.id for p in found if p.id != texts[row].id][:5]
        shares.append(len({texts[n].id for n in true} & set(ours)) / 5)
    by_hand = float(np.mean(shares))
    assert 0.05 < by_hand < 0.95
    found = measure_recall(index, cache, 5, queries=10_000)
    assert found.queries == len(texts)
    assert found.recall == pytest.approx(by_hand)


def test_probing_more_lists_finds_more(cache) -> None:
    index = _indexed(cache, "IVF20,Flat")
    recalls = []
    for probes in (1, 5, 20):
        index.tune(f"nprobe={probes}")
        recalls.append(measure_recall(index, cache, 10, queries=100).recall)
    assert recalls[0] < recalls[1] < recalls[2] == 1.0


def test_the_draw_depends_on_the_seed_alone(cache) -> None:
    index = _indexed(cache, "PCA4,SQ8")
    first, again, other = (measure_recall(index, cache, 5, queries=9, seed=s) for s in (1, 1, 2))
    assert first == again != other


@pytest.mark.parametrize("k", [0, -1, 400])
def test_k_out_of_range_is_refused(cache, k: int) -> None:
    with pytest.raises(InputError, match="recall needs k from 1 to 390"):
        measure_recall(_indexed(cache, "Flat"), cache, k)
