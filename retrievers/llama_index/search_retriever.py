"""A ragpack index as a LlamaIndex retriever."""

from llama_index.core.retrievers import BaseRetriever
from llama_index.core.schema import NodeWithScore, QueryBundle, TextNode

from ragpack.protocols import Retriever
from ragpack.types import Passage

__all__ = ["SearchRetriever"]


class SearchRetriever(BaseRetriever):
    """Nodes from a :class:`ragpack.protocols.Retriever`, such as ragpack's FAISS index.

    Args:
        index: what to search.
        similarity_top_k: how many nodes.
    """

    def __init__(self, index: Retriever, similarity_top_k: int = 4) -> None:
        super().__init__()
        self.index = index
        self.similarity_top_k = similarity_top_k

    def _retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        found = self.index.search(query_bundle.query_str, self.similarity_top_k)
        return [NodeWithScore(node=_node(passage), score=passage.score) for passage in found]


def _node(passage: Passage) -> TextNode:
    title = {"title": passage.title} if passage.title else {}
    return TextNode(id_=passage.id, text=passage.text, metadata={**passage.metadata, **title})
