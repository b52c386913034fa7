"""Every call of the service as a value, so that both clients say each of them once."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Literal, TypedDict, TypeVar
from urllib.parse import quote

import httpx

from ragpack.client.reading import read, read_list
from ragpack.client.shapes import (
    Compression,
    Context,
    Deleted,
    Embeds,
    Job,
    Method,
    Model,
    Ranking,
    Readiness,
)
from ragpack.errors import ServiceError
from ragpack.types import Passage

__all__ = [
    "Call",
    "Choice",
    "compress",
    "delete_passage",
    "embeds",
    "index",
    "job",
    "methods",
    "models",
    "pack",
    "ready",
    "rerank",
]

T = TypeVar("T")


class Choice(TypedDict, total=False):
    """What a request may choose: a method, its selection settings, a budget and a deadline.

    ``method`` is one of :meth:`Client.methods`, ``budget`` most tokens of the context; ``tau``,
    ``top_n``, ``threshold`` and ``rate`` are for the methods that have them; passages that score
    below ``min_relevance`` give nothing; after ``deadline_ms`` they are passed on as they are.
    """

    method: str
    budget: int | None
    tau: float | None
    top_n: int | None
    threshold: float | None
    rate: float | None
    min_relevance: float | None
    deadline_ms: float | None


@dataclass(frozen=True, slots=True)
class Call(Generic[T]):
    """A request, and how to read its answer; ``expected`` are statuses that are no refusal."""

    verb: Literal["GET", "POST", "DELETE"]
    path: str
    read: Callable[[Any], T]
    body: Mapping[str, Any] | None = None
    expected: tuple[int, ...] = (200,)

    def answer(self, response: httpx.Response) -> T:
        """What the service answered.

        Raises:
            ServiceError: it is not what a ragpack service answers.
        """
        try:
            value = response.json()
        except ValueError as error:
            raise ServiceError(
                f"{response.url} answered no JSON: is this a ragpack service?"
            ) from error
        return self.read(value)


def compress(
    query: str, passages: Sequence[Passage | str], scores: bool, choice: Choice
) -> Call[Compression]:
    """``POST /v1/compress``."""
    body = {"query": query, "passages": _passages(passages), "scores": scores, **choice}
    return Call("POST", "v1/compress", _reader(Compression), body)


def pack(
    query: str,
    passages: Sequence[Passage | str] | None,
    index: str | None,
    k: int,
    format: Literal["text", "messages"],
    choice: Choice,
) -> Call[Context]:
    """``POST /v1/pack``."""
    body: dict[str, Any] = {"query": query, "format": format, **choice}
    if passages is not None:
        body["passages"] = _passages(passages)
    if index is not None:
        body |= {"index": index, "k": k}
    return Call("POST", "v1/pack", _reader(Context), body)


def embeds(
    query: str,
    passages: Sequence[Passage | str],
    format: Literal["completion", "content_part"],
    choice: Choice,
) -> Call[Embeds]:
    """``POST /v1/embeds``."""
    body = {"query": query, "passages": _passages(passages), "format": format, **choice}
    return Call("POST", "v1/embeds", _reader(Embeds), body)


def rerank(
    query: str,
    documents: Sequence[Passage | str],
    model: str | None,
    top_n: int | None,
    return_documents: bool,
) -> Call[Ranking]:
    """``POST /v1/rerank``."""
    body: dict[str, Any] = {
        "query": query,
        "documents": _passages(documents),
        "top_n": top_n,
        "return_documents": return_documents,
    }
    if model is not None:
        body["model"] = model
    return Call("POST", "v1/rerank", _reader(Ranking), body)


def index(name: str, passages: Sequence[Passage], methods: Sequence[str] | None) -> Call[Job]:
    """``POST /v1/index``."""
    rows = [_passage(each) | {"metadata": dict(each.metadata)} for each in passages]
    body: dict[str, Any] = {"index": name, "passages": rows}
    if methods is not None:
        body["methods"] = list(methods)
    return Call("POST", "v1/index", _reader(Job), body, expected=(202,))


def job(ident: str) -> Call[Job]:
    """``GET /v1/jobs/{id}``."""
    return Call("GET", f"v1/jobs/{quote(ident, safe='')}", _reader(Job))


def delete_passage(ident: str, index: str) -> Call[Deleted]:
    """``DELETE /v1/passages/{id}``."""
    path = f"v1/passages/{quote(ident, safe='')}?index={quote(index, safe='')}"
    return Call("DELETE", path, _reader(Deleted))


def methods() -> Call[list[Method]]:
    """``GET /v1/methods``."""
    return Call("GET", "v1/methods", read_list(Method))


def models() -> Call[list[Model]]:
    """``GET /v1/models``."""
    return Call("GET", "v1/models", read_list(Model))


def ready() -> Call[Readiness]:
    """``GET /readyz``, whose 503 is an answer too."""
    return Call("GET", "readyz", _reader(Readiness), expected=(200, 503))


def _reader(kind: type[T]) -> Callable[[Any], T]:
    return lambda value: read(kind, value)


def _passages(passages: Sequence[Passage | str]) -> list[dict[str, Any] | str]:
    """What the service needs of the passages; scores and metadata stay at home."""
    return [each if isinstance(each, str) else _passage(each) for each in passages]


def _passage(passage: Passage) -> dict[str, Any]:
    return {"id": passage.id or None, "title": passage.title, "text": passage.text}
