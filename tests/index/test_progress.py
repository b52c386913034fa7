"""Progress moves inside a batch, forward only, and ends at the end of the corpus."""

import pytest

from ragpack.cache import ArtifactCache
from ragpack.cache_store.memory import MemoryStore
from ragpack.corpus import Record
from ragpack.index import Indexer, IndexSummary
from ragpack.models import load_encoder
from ragpack.models.dense import DenseEncoder
from ragpack.retrievers.faiss import FaissRetriever
from ragpack.types import Passage


@pytest.mark.parametrize("again", [False, True], ids=["new", "stored"])
def test_the_offset_moves_with_the_work(again: bool) -> None:
    encoder, store = load_encoder("all-minilm-l6-v2"), MemoryStore()
    cache = ArtifactCache(DenseEncoder(encoder), store, namespace="n")
    records = [Record(n, Passage(str(n), f"{n} " + "tin " * 9000), 1000 * n) for n in range(1, 6)]
    seen: list[tuple[int, int]] = []
    stages: list[str] = []

    def progress(summary: IndexSummary) -> None:
        seen.append((summary.offset, summary.characters))
        stages.append(summary.stage)

    for _ in range(1 + again):
        seen.clear()
        stages.clear()
        Indexer(FaissRetriever(encoder), cache).run(records, progress)
    cache.close()
    offsets = [offset for offset, _ in seen]
    assert offsets == sorted(offsets)
    assert offsets[-1] == 5000
    assert any(0 < offset < 5000 for offset in offsets) is not again
    assert stages[0] == "reading"
    assert set(stages[1:]) == {"embedding"}
