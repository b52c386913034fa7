"""LangChain's documents at ragpack's border: passages on the way in, kept text on the way out."""

from collections.abc import Mapping, Sequence

from langchain_core.documents import Document

from ragpack.retrievers.refill import METADATA_KEY, Kept
from ragpack.types import Passage

__all__ = ["as_passages", "packed_document"]


def as_passages(documents: Sequence[Document], title_key: str | None = None) -> list[Passage]:
    """A passage for each document, in order, each with an id of its own.

    Args:
        documents: with any ids (none, repeated) and any metadata; none is changed.
        title_key: the metadata field that holds the title, where it is a string.
    """
    return [
        Passage(
            id=name,
            text=document.page_content,
            title=_title(document, title_key),
            score=_score(document),
            metadata=document.metadata,
        )
        for name, document in zip(_names(documents), documents, strict=True)
    ]


def packed_document(kept: Kept, sources: Mapping[str, Document]) -> Document:
    """A document with the kept text, and one metadata field more.

    It has id and metadata of its source. The summary of several documents has no id and names its
    sources there.

    Args:
        kept: what was kept.
        sources: the documents by the ids of their passages.
    """
    first, *others = [sources[passage.id] for passage in kept.sources]
    if not others:
        metadata = {**first.metadata, METADATA_KEY: kept.account}
        return first.model_copy(update={"page_content": kept.text, "metadata": metadata})
    named = [{"id": source.id, "metadata": source.metadata} for source in (first, *others)]
    return Document(kept.text, metadata={METADATA_KEY: kept.account | {"sources": named}})


def _names(documents: Sequence[Document]) -> list[str]:
    """Distinct names for the documents: their ids where those are set and not yet taken."""
    taken: dict[str, None] = {}
    for position, document in enumerate(documents, 1):
        name = wanted = document.id or f"document {position}"
        again = 1
        while name in taken:
            again += 1
            name = f"{wanted} ({again})"
        taken[name] = None
    return list(taken)


def _title(document: Document, key: str | None) -> str:
    title = document.metadata.get(key) if key is not None else None
    return title if isinstance(title, str) else ""


def _score(document: Document) -> float | None:
    score = document.metadata.get("score")
    return float(score) if isinstance(score, int | float) else None
