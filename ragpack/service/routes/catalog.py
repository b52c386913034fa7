"""What the service has: methods and models."""

from typing import Any, Literal

from pydantic import Field

from ragpack.service.access import EngineOf
from ragpack.service.routing import guarded
from ragpack.service.schemas import Answer

__all__ = ["MethodInfo", "MethodList", "ModelInfo", "ModelList", "methods", "models", "router"]

router = guarded("catalogue")


class MethodInfo(Answer):
    """A method; settings are those that a request may choose, with their defaults."""

    name: str
    kind: Literal["text", "embeds", "kv"] = Field(description="What is stored for a passage.")
    query_aware: bool
    cached: bool
    scope: Literal["passage", "set"]
    summary: str
    settings: dict[str, Any]
    available: bool
    reason: str


class MethodList(Answer):
    """All methods of this service."""

    object: Literal["list"] = "list"
    data: list[MethodInfo]


class ModelInfo(Answer):
    """A model that the service uses, and for what."""

    id: str
    object: Literal["model"] = "model"
    owned_by: str = "ragpack"
    used_for: str


class ModelList(Answer):
    """All models of this service."""

    object: Literal["list"] = "list"
    data: list[ModelInfo]


@router.get("/methods", summary="The methods, and what a request may set of each")
async def methods(engine: EngineOf) -> MethodList:
    """Those that cannot run on this machine are listed with the reason."""
    rows = await engine.run(engine.methods.all)
    return MethodList(data=[MethodInfo.model_validate(row.describe()) for row in rows])


@router.get("/models", summary="The models that the service uses")
async def models(engine: EngineOf) -> ModelList:
    """In the shape of OpenAI's list of models."""
    rows = await engine.run(engine.describe_models)
    return ModelList(data=[ModelInfo.model_validate(row) for row in rows])
