"""Many calls at once: the event loop stays free, calls may be given up, results do not mix."""

import asyncio
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest
from langchain_core.documents import Document

from ragpack.protocols import Compressor
from ragpack.retrievers.langchain import PackedRetriever, RagpackCompressor
from ragpack.types import Artifact, Fingerprint, Passage, TextArtifact


class Gate(Compressor):
    """Keeps everything, once it is let."""

    name = "gate"
    kind = "text"
    query_aware = True

    def __init__(self) -> None:
        self.reached, self.open = threading.Event(), threading.Event()

    @property
    def fingerprint(self) -> Fingerprint:
        return Fingerprint(self.name)

    def compress(self, passages: Sequence[Passage], query: str | None) -> list[Artifact]:
        self.reached.set()
        assert self.open.wait(30), "nobody opened the gate"
        return [TextArtifact(((0, len(passage.text)),)) for passage in passages]


@pytest.fixture
def gate() -> Iterator[Gate]:
    gate = Gate()
    yield gate
    gate.open.set()


async def until(event: threading.Event) -> None:
    while not event.is_set():
        await asyncio.sleep(0.005)


async def test_the_loop_runs_on_while_the_packer_works(shelf, make_packer, gate):
    packed = PackedRetriever(base=shelf(documents=[Document("Tea.")]), packer=make_packer(gate))
    call = asyncio.create_task(packed.ainvoke("?"))
    await until(gate.reached)
    gate.open.set()  # reached only if the call above does not hold the loop
    (document,) = await call
    assert document.page_content == "Tea."


async def test_the_compressor_leaves_the_loop_free_too(make_packer, gate):
    compressor = RagpackCompressor(packer=make_packer(gate))
    call = asyncio.create_task(compressor.acompress_documents([Document("Tea.")], "?"))
    await until(gate.reached)
    gate.open.set()
    assert [document.page_content for document in await call] == ["Tea."]


async def test_a_call_may_be_cancelled_and_the_next_one_works(shelf, make_packer, gate):
    packed = PackedRetriever(base=shelf(documents=[Document("Tea.")]), packer=make_packer(gate))
    call = asyncio.create_task(packed.ainvoke("?"))
    await until(gate.reached)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    gate.open.set()
    assert len(await packed.ainvoke("?")) == 1


def test_a_late_packer_gives_the_documents_as_they_are(shelf, make_packer, gate):
    packer = make_packer(gate, deadline_ms=40)
    packed = PackedRetriever(base=shelf(documents=[Document("Tea.")]), packer=packer)
    (document,) = packed.invoke("?")
    assert document.page_content == "Tea."
    assert document.metadata["ragpack"]["reason"] == "deadline"


QUERIES = [f"What about {word}?" for word in ["leave", "pay", "tools", "travel", "badges"]] * 10


@pytest.fixture
def packed(vector_store, make_recomp) -> PackedRetriever:
    packer = make_recomp(top_n=4)
    return PackedRetriever(base=vector_store.as_retriever(), packer=packer, k=3)


def kept(documents: list[Document]) -> list[tuple[str | None, str]]:
    return [(document.id, document.page_content) for document in documents]


def test_fifty_threads_on_one_retriever(packed):
    alone = {query: kept(packed.invoke(query)) for query in set(QUERIES)}
    with ThreadPoolExecutor(50) as threads:
        together = list(threads.map(packed.invoke, QUERIES))
    assert [kept(documents) for documents in together] == [alone[query] for query in QUERIES]


async def test_fifty_tasks_on_one_retriever(packed):
    together = await asyncio.gather(*(packed.ainvoke(query) for query in QUERIES))
    alone = {query: kept(packed.invoke(query)) for query in set(QUERIES)}
    assert [kept(documents) for documents in together] == [alone[query] for query in QUERIES]


async def test_batches(packed):
    queries = QUERIES[:5]
    one_by_one = [kept(packed.invoke(query)) for query in queries]
    assert [kept(documents) for documents in packed.batch(queries)] == one_by_one
    assert [kept(documents) for documents in await packed.abatch(queries)] == one_by_one
