"""``POST /v1/embeds``: soft tokens as the payload that a vLLM server takes."""

import uuid

from fastapi import Response

from ragpack.errors import ConfigError
from ragpack.handoff.soft import has_soft_tokens
from ragpack.service.access import CallerOf, EngineOf
from ragpack.service.admission import admit
from ragpack.service.caller import Caller
from ragpack.service.engine import Engine
from ragpack.service.results import facts_of, report_of
from ragpack.service.routing import guarded
from ragpack.service.schemas import EmbedsRequest, EmbedsResponse

__all__ = ["embeds", "router"]

router = guarded("compression")


@router.post("/embeds", summary="Soft tokens for a vLLM server", response_model=EmbedsResponse)
async def embeds(asked: EmbedsRequest, engine: EngineOf, caller: CallerOf) -> Response:
    """For a vLLM server that runs the same decoder with ``--enable-prompt-embeds``."""
    return await engine.answer(_embeds, asked, engine, caller)


def _embeds(asked: EmbedsRequest, engine: Engine, caller: Caller) -> EmbedsResponse:
    packer = engine.packer(asked, caller)
    passages = admit(asked.query, asked.passages, caller, engine.settings.limits)
    packed = packer.pack(asked.query, passages, budget=asked.budget)
    caller.facts.update(facts_of(packed.report))
    if not has_soft_tokens(packed):
        why = ", ".join(packed.report.fallbacks) or f"{asked.method} hands on text"
        raise ConfigError(f"there are no soft tokens: {why}; POST /v1/pack has the context as text")
    prompts = engine.prompts
    return EmbedsResponse(
        id=f"emb-{uuid.uuid4().hex}",
        model=engine.settings.tokenizer,
        payload=prompts.content_part(packed)
        if asked.format == "content_part"
        else prompts.completion(packed, asked.query),
        report=report_of(packed.report),
    )
