"""Requests and responses of ``/v1/compress`` and ``/v1/pack``."""

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field

from ragpack.service.schemas.base import (
    Answer,
    Few,
    IndexName,
    MethodChoice,
    PassageList,
    ProblemShape,
    Strict,
)

__all__ = [
    "BatchLine",
    "BatchRequest",
    "CompressRequest",
    "CompressResponse",
    "Message",
    "PackRequest",
    "PackResponse",
    "PassageResult",
    "Report",
    "Unit",
]

_QUERY = "How long is the tank?"
_PASSAGES: list[Any] = [
    {"id": "b", "title": "Merrow Hill", "text": "It has six labs. The long tank is 38 metres."},
    "Ferries leave at eight.",
]


class CompressRequest(MethodChoice):
    """What to compress, for which question."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"query": _QUERY, "passages": _PASSAGES, "method": "recomp-extractive"}]
        }
    )

    query: str
    passages: PassageList
    scores: bool = Field(
        default=False, description="Also every unit of each passage with its score."
    )


class Unit(Answer):
    """The smallest piece that can be kept or dropped: text[start:end], in code points."""

    start: int
    end: int
    score: float | None = Field(description="Higher is more relevant; null where none is given.")
    tokens: int


class PassageResult(Answer):
    """What became of one passage."""

    index: int = Field(description="Its place in the request.")
    id: str
    text: str = Field(description="What is kept; words of the method's own if it writes them.")
    kept: list[tuple[int, int]] = Field(description="Kept ranges of the text, in code points.")
    tokens_in: int
    tokens_out: int
    cache: Literal["hit", "miss", "rejected", "unavailable", "uncached", "bypassed", "skipped"]
    reason: str = Field(default="", description="Why it was dropped, fell back or missed.")
    title_tokens: int | None = None
    units: list[Unit] | None = Field(
        default=None, description="With scores=true: in document order."
    )


class Report(Answer):
    """The account of a request; ms holds milliseconds per stage."""

    method: str
    tokens_in: int
    tokens_out: int
    rate: float = Field(description="Tokens out over tokens in; lower is stronger.")
    budget: int | None
    hits: int
    misses: int
    fallbacks: dict[str, int]
    ms: dict[str, float]


class CompressResponse(Answer):
    """The passages, compressed, in the order given."""

    id: str
    object: Literal["compression"] = "compression"
    method: str
    settings: dict[str, Any] = Field(description="The selection settings in force.")
    results: list[PassageResult]
    report: Report


class BatchRequest(Strict):
    """Several questions, each with its own passages."""

    requests: Annotated[Few[CompressRequest], Field(min_length=1)]


class BatchLine(Answer):
    """One line of the answer: the response to requests[index], or why there is none."""

    index: int
    response: CompressResponse | None = None
    problem: ProblemShape | None = None


class PackRequest(MethodChoice):
    """A question with its passages, or with an index to find them in."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"query": _QUERY, "passages": _PASSAGES, "budget": 200},
                {"query": _QUERY, "index": "handbook", "k": 20, "format": "messages"},
            ]
        }
    )

    query: str
    passages: PassageList | None = None
    index: IndexName | None = None
    k: int = Field(default=10, ge=1, description="Passages to find in the index.")
    format: Literal["text", "messages"] = "text"


class Message(Answer):
    """A chat message."""

    role: Literal["system", "user"]
    content: str


class PackResponse(Answer):
    """One context for a decoder; messages only where they were asked for."""

    id: str
    object: Literal["context"] = "context"
    context: str
    messages: list[Message] | None = None
    passages: list[PassageResult]
    report: Report
