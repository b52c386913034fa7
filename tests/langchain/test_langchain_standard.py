"""LangChain's own retriever tests, round every method, none overridden."""

from collections.abc import Iterator
from typing import Any

import pytest
from langchain_tests.integration_tests import RetrieversIntegrationTests

from ragpack import ContextPacker, registry
from ragpack.retrievers.faiss import FaissRetriever
from ragpack.retrievers.langchain import PackedRetriever, SearchRetriever
from ragpack.types import Passage

# What a method needs so that it keeps something of every document.
ROOMY = {"exit": {"tau": 0.0}, "recomp-abstractive": {"together": False}}


@pytest.fixture(scope="module", params=registry.names("compressors"))
def packer(request: Any, tiny_settings: Any) -> Iterator[ContextPacker]:
    settings = tiny_settings(request.param) | ROOMY.get(request.param, {})
    with ContextPacker(request.param, store="memory://", strict=True, **settings) as packer:
        yield packer


class _Standard(RetrieversIntegrationTests):
    @property
    def retriever_query_example(self) -> str:
        return "How many days of leave do I have?"


class TestPackedRetriever(_Standard):
    """Round every registered method."""

    @pytest.fixture(autouse=True)
    def _packed(self, vector_store: Any, packer: ContextPacker) -> None:
        base = vector_store.as_retriever(search_kwargs={"k": 2})
        self.params = {"base": base, "packer": packer, "title_key": "title"}

    @property
    def retriever_constructor(self) -> type[PackedRetriever]:
        return PackedRetriever

    @property
    def retriever_constructor_params(self) -> dict[str, Any]:
        return self.params


class TestPackedRetrieverOfOneSentence(TestPackedRetriever):
    """The hardest case: all but one document of every round comes back empty."""

    @pytest.fixture
    def packer(self, make_recomp: Any) -> ContextPacker:
        return make_recomp(top_n=1)


class TestSearchRetriever(_Standard):
    """ragpack's FAISS index as a LangChain retriever, without packing."""

    @pytest.fixture(autouse=True)
    def _index(self, handbook: Any, encoder: Any) -> None:
        self.index = FaissRetriever(encoder)
        self.index.add([Passage(str(doc.id), doc.page_content) for doc in handbook[:8]])

    @property
    def retriever_constructor(self) -> type[SearchRetriever]:
        return SearchRetriever

    @property
    def retriever_constructor_params(self) -> dict[str, Any]:
        return {"index": self.index}
