"""ragpack as a document compressor, for retrievers that take one."""

from collections.abc import Sequence
from typing import Any

from langchain_core.callbacks import Callbacks
from langchain_core.documents import BaseDocumentCompressor, Document
from pydantic import ConfigDict, InstanceOf

from ragpack import config
from ragpack.protocols import Packer
from ragpack.retrievers.langchain.step import PackInput, PackStep
from ragpack.retrievers.refill import at_least_one

__all__ = ["RagpackCompressor"]


class RagpackCompressor(BaseDocumentCompressor):
    """Packs documents inside a ``ContextualCompressionRetriever`` or a compressor pipeline.

    Does what :class:`PackedRetriever` does, except that a compressor cannot fetch more documents.
    Unlike other compressors it fires events: a run ``ragpack.compress`` below the retriever's.

    Args:
        packer: a :class:`ragpack.ContextPacker`.
        budget: most tokens of all documents together; the packer's own where None.
        title_key: the metadata field that holds a document's title.

    Raises:
        ConfigError: ``budget`` below 1.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True, extra="forbid")

    packer: InstanceOf[Packer]
    budget: int | None = None
    title_key: str | None = None

    def __init__(self, **fields: Any) -> None:
        super().__init__(**fields)
        at_least_one("budget", self.budget)  # a pydantic validator would hide the ConfigError

    def compress_documents(
        self, documents: Sequence[Document], query: str, callbacks: Callbacks | None = None
    ) -> Sequence[Document]:
        """The documents of which something is kept, packed, in order."""
        if config.bypass():
            return documents
        step = PackStep(self.packer, self.budget, self.title_key)
        given = PackInput(query=query, documents=documents)
        return step.invoke(given, {"callbacks": callbacks})

    async def acompress_documents(
        self, documents: Sequence[Document], query: str, callbacks: Callbacks | None = None
    ) -> Sequence[Document]:
        """:meth:`compress_documents` in a worker thread, so that the event loop stays free."""
        if config.bypass():
            return documents
        step = PackStep(self.packer, self.budget, self.title_key)
        given = PackInput(query=query, documents=documents)
        return await step.ainvoke(given, {"callbacks": callbacks})
