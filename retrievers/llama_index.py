"""ragpack inside LlamaIndex (extra ``llamaindex``): the same contract as in LangChain."""

from collections.abc import Sequence
from typing import Any

from llama_index.core.postprocessor.types import BaseNodePostprocessor
from llama_index.core.retrievers import BaseRetriever
from llama_index.core.schema import MetadataMode, NodeWithScore, QueryBundle, TextNode
from pydantic import ConfigDict, InstanceOf

from ragpack import config
from ragpack.errors import InputError
from ragpack.protocols import Packer, Retriever
from ragpack.report import PassageReport
from ragpack.types import Passage, Segment

__all__ = ["PackedPostprocessor", "SearchRetriever"]

_METADATA_KEY = "ragpack"


class PackedPostprocessor(BaseNodePostprocessor):
    """Cuts the nodes of a query engine to what the question needs.

    Order, ids, scores and metadata stay, nodes of which nothing is kept are left out, and
    ``metadata["ragpack"]`` says what was kept at what cost; no prompt and no embedding sees that
    field. Asynchronous calls work in a worker thread. ``RAGPACK_BYPASS=1`` turns it off.

    Args:
        packer: a :class:`ragpack.ContextPacker`; its deadline and fallbacks hold here too.
        budget: most tokens of all nodes together; the packer's own where None.
        title_key: the metadata field that holds a node's title.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True, extra="forbid")

    packer: InstanceOf[Packer]
    budget: int | None = None
    title_key: str | None = None

    @classmethod
    def class_name(cls) -> str:
        """The name under which LlamaIndex knows the class."""
        return "PackedPostprocessor"

    def _postprocess_nodes(
        self, nodes: list[NodeWithScore], query_bundle: QueryBundle | None = None
    ) -> list[NodeWithScore]:
        if config.bypass():
            return nodes
        if query_bundle is None:
            raise InputError("PackedPostprocessor needs the question: pass query_str")
        passages = self._passages(nodes)
        packed = self.packer.pack(query_bundle.query_str, passages, budget=self.budget)
        segments = {segment.passage.id: segment for segment in packed.segments}
        rows = {row.id: row for row in packed.report.passages}
        return [
            NodeWithScore(node=_cut(node, segments[p.id], rows[p.id]), score=node.score)
            for node, p in zip(nodes, passages, strict=True)
            if p.id in segments and segments[p.id].kept_text.strip()
        ]

    def _passages(self, nodes: Sequence[NodeWithScore]) -> list[Passage]:
        return [
            Passage(
                id=f"{position}:{node.node_id}",  # ids may repeat
                text=node.node.get_content(MetadataMode.NONE),
                title=str(node.metadata.get(self.title_key, "")) if self.title_key else "",
                score=node.score,
                metadata=node.metadata,
            )
            for position, node in enumerate(nodes)
        ]


class SearchRetriever(BaseRetriever):
    """Nodes from a :class:`ragpack.protocols.Retriever`, such as ragpack's FAISS index.

    Args:
        index: what to search.
        k: how many nodes.
    """

    def __init__(self, index: Retriever, k: int = 4) -> None:
        super().__init__()
        self._index = index
        self._k = k

    def _retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        found = self._index.search(query_bundle.query_str, self._k)
        return [NodeWithScore(node=_node(passage), score=passage.score) for passage in found]


def _node(passage: Passage) -> TextNode:
    title = {"title": passage.title} if passage.title else {}
    return TextNode(id_=passage.id, text=passage.text, metadata={**passage.metadata, **title})


def _cut(node: NodeWithScore, segment: Segment, row: PassageReport) -> TextNode:
    """A copy of the node with the kept text."""
    account: dict[str, Any] = row.to_dict()
    del account["id"]  # the node has it
    source = node.node
    return TextNode(
        id_=source.node_id,
        text=segment.kept_text,
        metadata={**source.metadata, _METADATA_KEY: account},
        relationships=source.relationships,
        excluded_llm_metadata_keys=[*source.excluded_llm_metadata_keys, _METADATA_KEY],
        excluded_embed_metadata_keys=[*source.excluded_embed_metadata_keys, _METADATA_KEY],
    )
