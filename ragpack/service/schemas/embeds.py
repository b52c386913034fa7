"""Request and response of ``/v1/embeds``."""

from typing import Any, Literal

from pydantic import ConfigDict, Field

from ragpack.service.schemas.base import Answer, MethodChoice, PassageList
from ragpack.service.schemas.compression import Report

__all__ = ["EmbedsRequest", "EmbedsResponse"]


class EmbedsRequest(MethodChoice):
    """A question with its passages, to be handed to a vLLM server as prompt embeddings."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "query": "How long is the tank?",
                    "passages": ["The long tank is 38 metres."],
                    "method": "refrag",
                }
            ]
        }
    )

    query: str
    passages: PassageList
    method: str = Field(default="refrag", description="A method that makes soft tokens.")
    format: Literal["completion", "content_part"] = Field(
        default="completion",
        description="Fields of a /v1/completions request, or a part of a chat message.",
    )


class EmbedsResponse(Answer):
    """The payload, ready to be merged into a request to a server that runs ``model``."""

    id: str
    object: Literal["embeds"] = "embeds"
    model: str
    payload: dict[str, Any] = Field(
        description="With prompt_embeds (or data): base64 of a torch.save file of rows [n, h], as "
        "vLLM reads it. Read it only from a ragpack that you trust."
    )
    report: Report
