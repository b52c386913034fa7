"""How nodes are packed, for the retriever and the postprocessor."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from llama_index.core.schema import NodeWithScore

from ragpack.protocols import Packer
from ragpack.report import PackedContext
from ragpack.retrievers.llama_index.nodes import as_passages, packed_node
from ragpack.retrievers.refill import pack_all, pack_until
from ragpack.types import Passage

__all__ = ["Packing"]


@dataclass(frozen=True, slots=True)
class Packing:
    """Packs nodes.

    Args:
        packer: does the work; deadline, store and fallbacks are its own.
        budget: most tokens of all nodes together; the packer's own where None.
        title_key: the metadata field that holds a node's title.
        k: how many nodes to return. Where nothing of a node is kept, the next one waiting takes its
            place, until the budget is spent or none is left.
    """

    packer: Packer
    budget: int | None = None
    title_key: str | None = None
    k: int | None = None

    def __call__(self, query: str, nodes: Sequence[NodeWithScore]) -> list[NodeWithScore]:
        """The nodes of which something is kept, in order."""
        passages = as_passages(nodes, self.title_key)
        find = pack_all if self.k is None else partial(pack_until, self.k)
        sources = {passage.id: node for passage, node in zip(passages, nodes, strict=True)}
        return [packed_node(one, sources) for one in find(partial(self._pack, query), passages)]

    def _pack(self, query: str, passages: Sequence[Passage]) -> PackedContext:
        return self.packer.pack(query, passages, budget=self.budget)
