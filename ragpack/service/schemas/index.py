"""Requests and responses around indexes."""

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field

from ragpack import config
from ragpack.service.schemas.base import Answer, Few, IndexName, PassageIn, Strict

__all__ = ["Deleted", "IndexRequest", "IndexedPassage", "Job"]


class IndexedPassage(PassageIn):
    """A passage to keep; its id is how it is replaced and deleted later."""

    id: Annotated[str, Field(min_length=1, max_length=512)]


class IndexRequest(Strict):
    """Passages for an index, which is made if there is none of that name."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "index": "handbook",
                    "passages": [{"id": "b", "title": "Merrow Hill", "text": "It has six labs."}],
                }
            ]
        }
    )

    index: IndexName
    passages: Annotated[Few[IndexedPassage], Field(min_length=1)]
    methods: Few[str] = Field(
        default=[config.DEFAULT_METHOD], description="Methods to compute beforehand."
    )


class Job(Answer):
    """Work that goes on after its request was answered."""

    id: str
    object: Literal["job"] = "job"
    status: Literal["queued", "running", "done", "failed"]
    result: dict[str, Any] | None = Field(default=None, description="When done: what it did.")
    error: str | None = Field(default=None, description="When failed: why.")


class Deleted(Answer):
    """A passage that is gone; artifacts counts what was stored for its text."""

    id: str
    object: Literal["passage"] = "passage"
    deleted: Literal[True] = True
    artifacts: int
