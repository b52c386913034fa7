"""The step between retriever and chain: documents in, packed documents out, as a run of its own.

LangChain fires no events for document compressors, so the step is a runnable: a trace shows it as a
child of the retriever, with its time. The account of each call, dropped passages included, goes
out as the custom event ``ragpack.report``.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypedDict

from langchain_core.callbacks import CallbackManagerForChainRun, dispatch_custom_event
from langchain_core.documents import Document
from langchain_core.runnables import Runnable, RunnableConfig

from ragpack.protocols import Packer
from ragpack.report import PackedContext
from ragpack.retrievers.langchain.documents import as_passages, packed_document
from ragpack.retrievers.refill import pack_all, pack_until
from ragpack.types import Passage

__all__ = ["REPORT_EVENT", "PackInput", "PackStep"]

REPORT_EVENT = "ragpack.report"


class PackInput(TypedDict):
    """What the step reads, and what a trace shows of it."""

    query: str
    documents: Sequence[Document]


@dataclass(frozen=True, slots=True)
class PackStep(Runnable[PackInput, list[Document]]):
    """Packs documents; asynchronously in a worker thread, as runnables do by default.

    Args:
        packer: does the work; deadline, store and fallbacks are its own.
        budget: most tokens of all documents together; the packer's own where None.
        title_key: the metadata field that holds a document's title.
        k: how many documents to return. Where nothing of a document is kept, the next one waiting
            takes its place, until the budget is spent or none is left.
    """

    name = "ragpack.compress"

    packer: Packer
    budget: int | None = None
    title_key: str | None = None
    k: int | None = None

    def invoke(
        self, input: PackInput, config: RunnableConfig | None = None, **kwargs: Any
    ) -> list[Document]:
        """The documents of which something is kept, in order."""
        return self._call_with_config(self._run, input, config, **kwargs)

    def _run(self, given: PackInput, run_manager: CallbackManagerForChainRun) -> list[Document]:
        passages = as_passages(given["documents"], self.title_key)
        find = pack_all if self.k is None else partial(pack_until, self.k)
        kept = find(partial(self._pack, given["query"], bool(run_manager.handlers)), passages)
        sources = {p.id: document for p, document in zip(passages, given["documents"], strict=True)}
        return [packed_document(one, sources) for one in kept]

    def _pack(self, query: str, listened: bool, passages: Sequence[Passage]) -> PackedContext:
        packed = self.packer.pack(query, passages, budget=self.budget)
        if listened:  # a line for each passage is not written for nobody
            dispatch_custom_event(REPORT_EVENT, packed.to_dict())
        return packed
