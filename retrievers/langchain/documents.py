"""LangChain's documents at ragpack's border: passages on the way in, kept text on the way out."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from langchain_core.documents import Document

from ragpack.report import PackedContext, PassageReport
from ragpack.types import Passage, Segment

__all__ = ["METADATA_KEY", "Packed", "as_passages", "packed_documents"]

METADATA_KEY = "ragpack"
"""Where a packed document's metadata says what was kept of it and at what cost."""


class Packed(NamedTuple):
    """A packed document and what it was made of: one document, or several for a summary."""

    document: Document
    sources: Sequence[Document]


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


def packed_documents(
    documents: Sequence[Document], passages: Sequence[Passage], packed: PackedContext
) -> list[Packed]:
    """The documents of which something was kept, in order.

    Each has the kept text as its content, the id and metadata of its source, and one metadata
    field more. The summary of several documents has no id and names its sources there.
    """
    by_id = {p.id: document for p, document in zip(passages, documents, strict=True)}
    rows = {row.id: row for row in packed.report.passages}
    call = {"method": packed.report.method, "ms": round(sum(packed.report.ms.values()), 3)}
    return [
        _copy(by_id[segment.passage.id], segment, _account([rows[segment.passage.id]]) | call)
        if segment.passage.id in by_id
        else _summary(documents, segment, _account(packed.report.passages) | call)
        for segment in packed.segments
        if segment.kept_text.strip()
    ]


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


def _copy(source: Document, segment: Segment, account: dict[str, Any]) -> Packed:
    metadata = {**source.metadata, METADATA_KEY: account}
    update = {"page_content": segment.kept_text, "metadata": metadata}
    return Packed(source.model_copy(update=update), [source])


def _summary(sources: Sequence[Document], segment: Segment, account: dict[str, Any]) -> Packed:
    named = [{"id": source.id, "metadata": source.metadata} for source in sources]
    metadata = {METADATA_KEY: account | {"sources": named}}
    return Packed(Document(segment.kept_text, metadata=metadata), sources)


def _account(rows: Sequence[PassageReport]) -> dict[str, Any]:
    """The account of one passage, or of several that were packed into one segment."""
    account = rows[0].to_dict()
    del account["id"]  # the document has it
    before, after = sum(row.tokens_in for row in rows), sum(row.tokens_out for row in rows)
    rate = round(after / before, 4) if before else 1.0
    return account | {"tokens_in": before, "tokens_out": after, "rate": rate}
