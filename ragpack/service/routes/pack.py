"""``POST /v1/pack``: one context for a decoder, under a budget."""

import uuid

from fastapi import Response

from ragpack.models.prompt import INSTRUCTION, messages
from ragpack.report import PackedContext
from ragpack.service.access import CallerOf, EngineOf
from ragpack.service.admission import admit
from ragpack.service.caller import Caller
from ragpack.service.engine import Engine
from ragpack.service.problems import Problem, said
from ragpack.service.results import facts_of, report_of, results_of
from ragpack.service.routing import guarded
from ragpack.service.schemas import Message, PackRequest, PackResponse
from ragpack.types import Passage

__all__ = ["pack", "router"]

router = guarded("compression")


@router.post(
    "/pack",
    summary="Pack passages into one context",
    response_model=PackResponse,
    responses=said(404, 409),
)
async def pack(asked: PackRequest, engine: EngineOf, caller: CallerOf) -> Response:
    """The context as a string, or as chat messages; from the passages given or from an index."""
    if (asked.passages is None) == (asked.index is None):
        raise Problem(422, "ConfigError", "give either passages or index, not both and not neither")
    return await engine.answer(_pack, asked, engine, caller)


def _pack(asked: PackRequest, engine: Engine, caller: Caller) -> PackResponse:
    packer = engine.packer(asked, caller)
    passages = _passages(asked, engine, caller)
    packed = packer.pack(asked.query, passages, budget=asked.budget)
    caller.facts.update(facts_of(packed.report))
    return PackResponse(
        id=f"ctx-{uuid.uuid4().hex}",
        context=packed.text,
        messages=_messages(packed, asked.query) if asked.format == "messages" else None,
        passages=results_of(packed, passages, packer),
        report=report_of(packed.report),
    )


def _passages(asked: PackRequest, engine: Engine, caller: Caller) -> list[Passage]:
    if asked.index is not None:
        admit(asked.query, [], caller, engine.settings.limits)
        return engine.indexes.search(caller.namespace, asked.index, asked.query, asked.k)
    return admit(asked.query, asked.passages or [], caller, engine.settings.limits)


def _messages(packed: PackedContext, query: str) -> list[Message]:
    rows = messages(packed.text, query, INSTRUCTION)
    return [Message.model_validate(row) for row in rows]
