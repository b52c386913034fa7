"""Requests and responses of ``/v1/compress`` and ``/v1/pack``, and what others share with them."""

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from ragpack import config
from ragpack.types import Passage

__all__ = [
    "Answer",
    "CompressRequest",
    "CompressResponse",
    "IndexName",
    "Message",
    "MethodChoice",
    "PackRequest",
    "PackResponse",
    "PassageIn",
    "PassageResult",
    "ProblemShape",
    "Report",
    "Strict",
    "Unit",
    "passages_from",
]

IndexName = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,63}$", examples=["handbook"])]
_QUERY = "How long is the tank?"
_PASSAGES: list[Any] = [
    {"id": "b", "title": "Merrow Hill", "text": "It has six labs. The long tank is 38 metres."},
    "Ferries leave at eight.",
]


class Strict(BaseModel):
    """A request: a field that it does not know is an error, not a typing slip passed over."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Answer(BaseModel):
    """A response."""

    model_config = ConfigDict(frozen=True)


class PassageIn(Strict):
    """A passage as clients send it; its place in the list is its id where it has none."""

    text: str
    id: Annotated[str | None, Field(min_length=1, max_length=512)] = None
    title: str = ""
    metadata: dict[str, Any] = Field(default_factory=dict)


PassageList = Annotated[
    list[PassageIn | str],
    Field(description="Best first; a plain string is a passage without id and title."),
]


def passages_from(given: Sequence[PassageIn | str]) -> list[Passage]:
    """The passages as the engine takes them."""
    full = [PassageIn(text=one) if isinstance(one, str) else one for one in given]
    return [
        Passage(str(place) if one.id is None else one.id, one.text, one.title, None, one.metadata)
        for place, one in enumerate(full)
    ]


class MethodChoice(Strict):
    """A method, and those of its settings that a request may choose."""

    method: str = Field(config.DEFAULT_METHOD, description="One of GET /v1/methods.")
    budget: int | None = Field(None, ge=1, description="Most tokens of the context.")
    tau: float | None = Field(None, ge=0, le=1, description="Least score of a kept sentence.")
    top_n: int | None = Field(None, ge=1, description="Most sentences over all passages.")
    threshold: float | None = Field(None, description="Least dot product of a kept sentence.")
    rate: float | None = Field(None, gt=0, le=1, description="Share of the tokens to keep.")
    min_relevance: float | None = Field(
        None, description="Passages below it, on the scale of the scores, give nothing."
    )
    deadline_ms: float | None = Field(
        None, gt=0, description="Passages not compressed by then are passed on as they are."
    )

    @property
    def settings(self) -> dict[str, float]:
        """The method's settings that the request chose."""
        chosen = {n: getattr(self, n) for n in ("tau", "top_n", "threshold", "rate")}
        return {name: value for name, value in chosen.items() if value is not None}


class CompressRequest(MethodChoice):
    """What to compress, for which question."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"query": _QUERY, "passages": _PASSAGES, "method": "recomp-extractive"}]
        }
    )

    query: str
    passages: PassageList
    scores: bool = Field(False, description="Also every unit of each passage with its score.")


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
    reason: str = Field("", description="Why it was dropped, fell back or missed.")
    title_tokens: int | None = None
    units: list[Unit] | None = Field(None, description="With scores=true: in document order.")


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
    k: int = Field(10, ge=1, description="Passages to find in the index.")
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


class ProblemShape(Answer):
    """An error (RFC 9457)."""

    type: str = Field(examples=["urn:ragpack:UnknownPluginError"])
    title: str
    status: int
    detail: str
    code: str = Field(description="A stable word for programs.")
    request_id: str
    errors: list[dict[str, Any]] | None = None
