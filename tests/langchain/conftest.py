"""Real documents in a real vector store, packers that close, and retrievers of several habits."""

import json
from collections.abc import Callable, Iterator, Sequence
from importlib.resources import files
from typing import Any, NamedTuple

import pytest
from langchain_core.documents import Document
from langchain_core.embeddings import Embeddings
from langchain_core.retrievers import BaseRetriever
from langchain_core.vectorstores import InMemoryVectorStore
from llama_index.core.retrievers import BaseRetriever as LlamaRetriever
from llama_index.core.schema import NodeWithScore, TextNode

from ragpack import ContextPacker
from ragpack.cache_store.memory import MemoryStore
from ragpack.compressors.recomp_extractive import RecompExtractive
from ragpack.config import DEFAULT_ENCODER
from ragpack.models import SentenceEncoder, load_encoder
from ragpack.protocols import Compressor, Packer
from ragpack.retrievers import langchain, llama_index
from ragpack.sentences import sentence_spans
from ragpack.types import Artifact, Fingerprint, Passage, TextArtifact

MakePacker = Callable[..., ContextPacker]
Note = tuple[str, str, dict[str, Any]]


class Keyword(Compressor):
    """Keeps the sentences that hold the query, and nothing of a passage without one."""

    name = "keyword"
    kind = "text"
    query_aware = True

    @property
    def fingerprint(self) -> Fingerprint:
        return Fingerprint(self.name)

    def compress(self, passages: Sequence[Passage], query: str | None) -> list[Artifact]:
        return [
            TextArtifact(
                tuple(s for s in sentence_spans(p.text) if (query or "") in p.text[s[0] : s[1]])
            )
            for p in passages
        ]


class Shelf(BaseRetriever):
    """Gives all its documents, however many are asked for."""

    documents: list[Document]

    def _get_relevant_documents(self, query: str, *, run_manager: Any) -> list[Document]:
        return list(self.documents)


class Found(NamedTuple):
    """What came back, in words that both frameworks share."""

    id: str
    text: str
    metadata: dict[str, Any]


class LangChainFace:
    """Notes (id, text, metadata) behind LangChain's packed retriever."""

    def retriever(self, notes: Sequence[Note], packer: Packer, **settings: Any) -> Any:
        documents = [Document(text, id=ident, metadata=data) for ident, text, data in notes]
        return langchain.PackedRetriever(base=Shelf(documents=documents), packer=packer, **settings)

    def ask(self, retriever: Any, query: str) -> list[Found]:
        return self._found(retriever.invoke(query))

    async def aask(self, retriever: Any, query: str) -> list[Found]:
        return self._found(await retriever.ainvoke(query))

    def _found(self, documents: list[Document]) -> list[Found]:
        return [Found(str(d.id), d.page_content, d.metadata) for d in documents]


class NodeShelf(LlamaRetriever):
    """Gives all its nodes, however many are asked for."""

    def __init__(self, nodes: list[NodeWithScore]) -> None:
        super().__init__()
        self.nodes = nodes

    def _retrieve(self, query_bundle: Any) -> list[NodeWithScore]:
        return list(self.nodes)


class LlamaIndexFace:
    """The same behind LlamaIndex's."""

    def retriever(self, notes: Sequence[Note], packer: Packer, **settings: Any) -> Any:
        nodes = [TextNode(id_=ident, text=text, metadata=data) for ident, text, data in notes]
        base = NodeShelf([NodeWithScore(node=node) for node in nodes])
        return llama_index.PackedRetriever(base, packer, **settings)

    def ask(self, retriever: Any, query: str) -> list[Found]:
        return self._found(retriever.retrieve(query))

    async def aask(self, retriever: Any, query: str) -> list[Found]:
        return self._found(await retriever.aretrieve(query))

    def _found(self, nodes: list[NodeWithScore]) -> list[Found]:
        return [Found(n.node_id, n.text, n.metadata) for n in nodes]


@pytest.fixture(scope="session", params=["langchain", "llama_index"])
def face(request: pytest.FixtureRequest) -> LangChainFace | LlamaIndexFace:
    """One of the two frameworks; what is tested with it holds for both."""
    return LangChainFace() if request.param == "langchain" else LlamaIndexFace()


class Encoded(Embeddings):
    """ragpack's encoder as LangChain's embeddings."""

    def __init__(self, encoder: SentenceEncoder) -> None:
        self.encoder = encoder

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        return self.encoder.encode(texts).tolist()

    def embed_query(self, text: str) -> list[float]:
        return self.embed_documents([text])[0]


@pytest.fixture(scope="session")
def keyword() -> Keyword:
    return Keyword()


@pytest.fixture(scope="session")
def shelf() -> type[Shelf]:
    return Shelf


@pytest.fixture(scope="session")
def encoder() -> SentenceEncoder:
    return load_encoder(DEFAULT_ENCODER)


@pytest.fixture(scope="session")
def handbook() -> list[Document]:
    lines = files("ragpack").joinpath("data", "handbook.jsonl").read_text(encoding="utf-8")
    rows = [json.loads(line) for line in lines.splitlines()[:40]]
    return [
        Document(row["text"], id=row["id"], metadata={"title": row["title"], "source": "handbook"})
        for row in rows
    ]


@pytest.fixture(scope="session")
def vector_store(handbook: list[Document], encoder: SentenceEncoder) -> InMemoryVectorStore:
    store = InMemoryVectorStore(Encoded(encoder))
    store.add_documents(handbook)
    return store


@pytest.fixture
def make_packer() -> Iterator[MakePacker]:
    """``ContextPacker`` with an empty store in memory unless one is named."""
    made: list[ContextPacker] = []

    def make(method: str | Compressor = "identity", **settings: Any) -> ContextPacker:
        made.append(ContextPacker(method, **{"store": "memory://", **settings}))
        return made[-1]

    yield make
    for packer in made:
        packer.close()


@pytest.fixture(scope="session")
def sentence_vectors() -> MemoryStore:
    """A store that all tests share, so that each sentence is embedded once."""
    return MemoryStore()


@pytest.fixture
def make_recomp(
    make_packer: MakePacker, encoder: SentenceEncoder, sentence_vectors: MemoryStore
) -> MakePacker:
    """A packer that keeps the ``top_n`` best sentences."""

    def make(top_n: int | None = None, **settings: Any) -> ContextPacker:
        method = RecompExtractive(encoder, top_n=top_n)
        return make_packer(method, store=sentence_vectors, **settings)

    return make


@pytest.fixture(scope="session")
def packers(encoder: SentenceEncoder) -> Iterator[list[ContextPacker]]:
    """One packer that keeps all, and one that ranks sentences; for many examples of one test."""
    ranking = RecompExtractive(encoder, top_n=3)
    with (
        ContextPacker("identity", store="memory://") as plain,
        ContextPacker(ranking, store="memory://") as ranked,
    ):
        yield [plain, ranked]
