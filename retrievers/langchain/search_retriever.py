"""A ragpack index as a LangChain retriever."""

from typing import Any

from langchain_core.callbacks import CallbackManagerForRetrieverRun
from langchain_core.documents import Document
from langchain_core.retrievers import BaseRetriever
from pydantic import ConfigDict, InstanceOf

from ragpack.protocols import Retriever

__all__ = ["SearchRetriever"]


class SearchRetriever(BaseRetriever):
    """Documents from a :class:`ragpack.protocols.Retriever`, such as ragpack's FAISS index.

    A document's metadata is the passage's, with its ``score`` and, where it has one, ``title``.

    Args:
        index: what to search.
        k: how many documents, unless ``invoke`` says so.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True, extra="forbid")

    index: InstanceOf[Retriever]
    k: int = 4

    def _get_relevant_documents(
        self, query: str, *, run_manager: CallbackManagerForRetrieverRun, k: int | None = None
    ) -> list[Document]:
        found = self.index.search(query, self.k if k is None else k)
        return [
            Document(
                id=passage.id,
                page_content=passage.text,
                metadata=_with(dict(passage.metadata), title=passage.title, score=passage.score),
            )
            for passage in found
        ]


def _with(metadata: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return metadata | {key: value for key, value in fields.items() if value not in ("", None)}
