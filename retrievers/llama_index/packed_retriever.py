"""The drop-in: any LlamaIndex retriever's nodes, packed."""

import asyncio
import copy
from typing import Any

from llama_index.core.retrievers import BaseRetriever
from llama_index.core.schema import NodeWithScore, QueryBundle

from ragpack import config
from ragpack.protocols import Packer, Retriever
from ragpack.retrievers.llama_index.packing import Packing
from ragpack.retrievers.llama_index.search_retriever import SearchRetriever
from ragpack.retrievers.refill import at_least_one
from ragpack.tracing import span

__all__ = ["PackedRetriever"]


class PackedRetriever(BaseRetriever):
    """Wraps a retriever: the same nodes, with the irrelevant parts left out.

    What :class:`PackedPostprocessor` does, and nodes of which nothing is kept are replaced.

    Args:
        base: a LlamaIndex retriever, or a ragpack one such as ``FaissRetriever``.
        packer: a :class:`ragpack.ContextPacker`; its deadline and fallbacks hold here too.
        k: how many nodes to return; all that the base finds where None. Fewer come back only where
            the base has no more or the budget is spent.
        fetch_k: how many to ask the base for, where it has a ``similarity_top_k``; twice ``k``
            where None.
        budget: most tokens of all nodes together; the packer's own where None.
        title_key: the metadata field that holds a node's title.

    Raises:
        ConfigError: ``k``, ``fetch_k`` or ``budget`` below 1.
    """

    def __init__(
        self,
        base: BaseRetriever | Retriever,
        packer: Packer,
        *,
        k: int | None = None,
        fetch_k: int | None = None,
        budget: int | None = None,
        title_key: str | None = None,
    ) -> None:
        super().__init__()
        for name, value in (("k", k), ("fetch_k", fetch_k), ("budget", budget)):
            at_least_one(name, value)
        found = base if isinstance(base, BaseRetriever) else SearchRetriever(base)
        self._base = found if k is None else _asking_for(found, max(k, fetch_k or 2 * k))
        self._pack = Packing(packer, budget, title_key, k)

    def _retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        with span("retrieve"):
            nodes = self._base.retrieve(query_bundle)
        if config.bypass():
            return nodes[: self._pack.k]
        return self._pack(query_bundle.query_str, nodes)

    async def _aretrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        with span("retrieve"):
            nodes = await self._base.aretrieve(query_bundle)
        if config.bypass():
            return nodes[: self._pack.k]
        return await asyncio.to_thread(self._pack, query_bundle.query_str, nodes)


def _asking_for(base: Any, count: int) -> Any:
    """``base``, or where it can be told how many nodes to find, a copy that finds ``count``."""
    own = getattr(base, "similarity_top_k", None)
    if not isinstance(own, int):
        return base
    told = copy.copy(base)
    told.similarity_top_k = max(own, count)
    return told
