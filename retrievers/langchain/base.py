"""Asks any LangChain retriever for more documents than it would give by itself."""

from inspect import Parameter, signature
from typing import Any

from langchain_core.retrievers import BaseRetriever, RetrieverLike

__all__ = ["asking_for"]


def asking_for(base: RetrieverLike, count: int) -> tuple[RetrieverLike, dict[str, Any]]:
    """``base`` set to find at least ``count`` documents, and keywords to invoke it with.

    LangChain has no one way to say how many. A retriever may read ``k`` when invoked, have a field
    ``k``, or a field ``search_kwargs`` with ``k`` in it; each is used where it is there, on a copy.
    Other retrievers give what they give.
    """
    if not isinstance(base, BaseRetriever):
        return base, {}
    count = max(count, _own_count(base))
    fields = type(base).model_fields
    update: dict[str, Any] = {"k": count} if "k" in fields else {}
    if "search_kwargs" in fields:
        update["search_kwargs"] = {**_search_kwargs(base), "k": count}
    told = base.model_copy(update=update) if update else base
    return told, {"k": count} if _reads_k(base) else {}


def _own_count(base: BaseRetriever) -> int:
    """How many documents ``base`` is set to find, as far as it says so."""
    own = getattr(base, "k", None) or _search_kwargs(base).get("k")
    return own if isinstance(own, int) else 0


def _search_kwargs(base: BaseRetriever) -> dict[str, Any]:
    return getattr(base, "search_kwargs", None) or {}


def _reads_k(base: BaseRetriever) -> bool:
    parameters = signature(base._get_relevant_documents).parameters
    return "k" in parameters or any(
        parameter.kind is Parameter.VAR_KEYWORD for parameter in parameters.values()
    )
