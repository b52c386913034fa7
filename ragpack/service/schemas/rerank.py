"""Request and response of ``/v1/rerank``, as Cohere and Jina have them."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from ragpack import config
from ragpack.service.schemas.base import Answer, PassageList

__all__ = ["Ranked", "RankedDocument", "RerankRequest", "RerankResponse", "RerankUsage"]


class RerankRequest(BaseModel):
    """Documents to put in order; fields that other services know are passed over."""

    model_config = ConfigDict(
        frozen=True,
        strict=True,
        allow_inf_nan=False,
        json_schema_extra={
            "examples": [
                {
                    "model": "recomp-extractive",
                    "query": "How long is the tank?",
                    "documents": ["Ferries leave at eight.", "The long tank is 38 metres."],
                    "top_n": 1,
                }
            ]
        },
    )

    query: str
    documents: PassageList
    model: str = Field(default=config.DEFAULT_METHOD, description="A method that judges passages.")
    top_n: int | None = Field(default=None, ge=1, description="How many to return; all.")
    return_documents: bool = False


class RankedDocument(Answer):
    """A document given back."""

    text: str


class Ranked(Answer):
    """A document's place in the request, and its score: higher is more relevant."""

    index: int
    relevance_score: float
    document: RankedDocument | None = None


class RerankUsage(Answer):
    """Tokens of the documents, as the decoder counts them."""

    total_tokens: int


class RerankResponse(Answer):
    """The documents, best first."""

    id: str
    object: Literal["list"] = "list"
    model: str
    results: list[Ranked]
    usage: RerankUsage
