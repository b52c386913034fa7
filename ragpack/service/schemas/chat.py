"""What ``/v1/chat/completions`` takes beside the fields that go to the upstream."""

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from ragpack.service.schemas.base import IndexName, MethodChoice, PassageList

__all__ = ["ChatRequest", "ContextChoice"]


class ContextChoice(MethodChoice):
    """How the documents are packed."""

    k: int = Field(default=10, ge=1, description="Passages to find in the index.")


class ChatRequest(BaseModel):
    """An OpenAI chat request; documents, index and ragpack are ours, all else goes on as it is."""

    model_config = ConfigDict(
        extra="allow",
        frozen=True,
        json_schema_extra={
            "examples": [
                {
                    "model": "llama-3.1-8b",
                    "messages": [{"role": "user", "content": "How long is the tank?"}],
                    "documents": [{"title": "Merrow Hill", "text": "The tank is 38 metres long."}],
                    "ragpack": {"method": "recomp-extractive", "budget": 200},
                }
            ]
        },
    )

    messages: Any = Field(
        default=None,
        description="The context goes before the last message of the user.",
        json_schema_extra={"type": "array", "items": {"type": "object"}},
    )
    documents: PassageList | None = None
    index: IndexName | None = Field(default=None, description="Where to find passages instead.")
    ragpack: ContextChoice = Field(default_factory=ContextChoice)

    @property
    def wants_context(self) -> bool:
        """Whether there is something to pack."""
        return self.documents is not None or self.index is not None

    @property
    def is_plain(self) -> bool:
        """Whether it holds nothing that the upstream would not know."""
        return not self.model_fields_set & _OURS

    @property
    def forwarded(self) -> dict[str, Any]:
        """The fields for the upstream."""
        return self.model_dump(exclude=_OURS, exclude_unset=True)


_OURS = {"documents", "index", "ragpack"}
