"""What every request and response shares: strictness, passages, the choice of a method."""

from collections.abc import Sequence
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from ragpack import config
from ragpack.types import Passage

__all__ = [
    "Answer",
    "Few",
    "IndexName",
    "MethodChoice",
    "PassageIn",
    "PassageList",
    "ProblemShape",
    "Strict",
    "passages_from",
]

T = TypeVar("T")

_MOST = 10_000

Few = Annotated[list[T], Field(max_length=_MOST, fail_fast=True)]
"""A list that is refused by its length or by its first wrong item.

pydantic writes a report on every wrong item otherwise: a million take minutes and gigabytes.
"""

IndexName = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,63}$", examples=["handbook"])]


class Strict(BaseModel):
    """A request: a field that it does not know is an error, and 0 is not false."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


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
    Few[PassageIn | str],
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

    method: str = Field(default=config.DEFAULT_METHOD, description="One of GET /v1/methods.")
    budget: int | None = Field(default=None, ge=1, description="Most tokens of the context.")
    tau: float | None = Field(
        default=None,
        ge=0,
        le=1,
        description="Least score of a kept sentence; one that ranking raised above 1 always is.",
    )
    top_n: int | None = Field(default=None, ge=1, description="Most sentences over all passages.")
    threshold: float | None = Field(
        default=None, description="Least dot product of a kept sentence."
    )
    rate: float | None = Field(default=None, gt=0, le=1, description="Share of the tokens to keep.")
    share: float | None = Field(
        default=None, ge=0, le=1, description="Most chunks to spell out among soft tokens."
    )
    min_relevance: float | None = Field(
        default=None, description="Passages below it, on the scale of the scores, give nothing."
    )
    deadline_ms: float | None = Field(
        default=None, gt=0, description="Passages not compressed by then are passed on as they are."
    )

    @property
    def settings(self) -> dict[str, float]:
        """The method's settings that the request chose."""
        chosen = {n: getattr(self, n) for n in ("tau", "top_n", "threshold", "rate", "share")}
        return {name: value for name, value in chosen.items() if value is not None}


class ProblemShape(Answer):
    """An error (RFC 9457)."""

    type: str = Field(examples=["urn:ragpack:UnknownPluginError"])
    title: str
    status: int
    detail: str
    code: str = Field(description="A stable word for programs.")
    request_id: str
    errors: list[dict[str, Any]] | None = None
    error: dict[str, str] = Field(description="The same as OpenAI's clients read it.")
