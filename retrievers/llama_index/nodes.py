"""LlamaIndex's nodes at ragpack's border: passages on the way in, kept text on the way out."""

from collections.abc import Mapping, Sequence

from llama_index.core.schema import BaseNode, MetadataMode, NodeWithScore, TextNode

from ragpack.retrievers.refill import METADATA_KEY, Kept
from ragpack.types import Passage

__all__ = ["as_passages", "packed_node"]


def as_passages(nodes: Sequence[NodeWithScore], title_key: str | None = None) -> list[Passage]:
    """A passage for each node, in order, each with an id of its own.

    Args:
        nodes: with any ids and any metadata; none is changed.
        title_key: the metadata field that holds the title, where it is a string.
    """
    return [
        Passage(
            id=f"{position}:{node.node_id}",  # ids may repeat
            text=node.node.get_content(MetadataMode.NONE),
            title=_title(node, title_key),
            score=node.score,
            metadata=node.metadata,
        )
        for position, node in enumerate(nodes)
    ]


def packed_node(kept: Kept, sources: Mapping[str, NodeWithScore]) -> NodeWithScore:
    """A node with the kept text, and one metadata field more, which no prompt and embedding sees.

    It has id, score and metadata of its source. The summary of several nodes has the score of the
    first and names them all there.

    Args:
        kept: what was kept.
        sources: the nodes by the ids of their passages.
    """
    first, *others = [sources[passage.id] for passage in kept.sources]
    if others:
        node: BaseNode = TextNode()
        named = [{"id": one.node_id, "metadata": one.metadata} for one in (first, *others)]
        metadata = {METADATA_KEY: kept.account | {"sources": named}}
    else:
        node = first.node.model_copy()
        metadata = {**node.metadata, METADATA_KEY: kept.account}
    node.set_content(kept.text)
    node.metadata = metadata
    node.excluded_llm_metadata_keys = [*node.excluded_llm_metadata_keys, METADATA_KEY]
    node.excluded_embed_metadata_keys = [*node.excluded_embed_metadata_keys, METADATA_KEY]
    return NodeWithScore(node=node, score=first.score)


def _title(node: NodeWithScore, key: str | None) -> str:
    title = node.metadata.get(key) if key is not None else None
    return title if isinstance(title, str) else ""
