"""LangChain's own retriever tests, for every text method, none overridden."""

from typing import Any

import pytest
from langchain_tests.integration_tests import RetrieversIntegrationTests

from ragpack.retrievers.langchain import PackedRetriever, SearchRetriever


class _Standard(RetrieversIntegrationTests):
    @pytest.fixture(autouse=True)
    def _packed(self, vector_store, make_packer, make_recomp) -> None:
        self.base = vector_store.as_retriever(search_kwargs={"k": 2})
        self.packer = self.make(make_packer, make_recomp)

    def make(self, make_packer: Any, make_recomp: Any) -> Any:
        raise NotImplementedError

    @property
    def retriever_constructor(self) -> type[PackedRetriever]:
        return PackedRetriever

    @property
    def retriever_constructor_params(self) -> dict[str, Any]:
        return {"base": self.base, "packer": self.packer, "title_key": "title"}

    @property
    def retriever_query_example(self) -> str:
        return "How many days of leave do I have?"


class TestIdentity(_Standard):
    def make(self, make_packer: Any, make_recomp: Any) -> Any:
        return make_packer("identity")


class TestRecompExtractive(_Standard):
    def make(self, make_packer: Any, make_recomp: Any) -> Any:
        return make_recomp()


class TestRecompExtractiveKeepsOneSentence(_Standard):
    """The hardest case: all but one document of every round comes back empty."""

    def make(self, make_packer: Any, make_recomp: Any) -> Any:
        return make_recomp(top_n=1)


class TestSearchRetriever(RetrieversIntegrationTests):
    """ragpack's FAISS index as a LangChain retriever, without packing."""

    @pytest.fixture(autouse=True)
    def _index(self, handbook, encoder) -> None:
        from ragpack.retrievers.faiss import FaissRetriever
        from ragpack.types import Passage

        self.index = FaissRetriever(encoder)
        self.index.add([Passage(str(doc.id), doc.page_content) for doc in handbook[:8]])

    @property
    def retriever_constructor(self) -> type[SearchRetriever]:
        return SearchRetriever

    @property
    def retriever_constructor_params(self) -> dict[str, Any]:
        return {"index": self.index}

    @property
    def retriever_query_example(self) -> str:
        return "How many days of leave do I have?"
