"""``POST /v1/compress``: each passage on its own, compressed for a question."""

import uuid

from fastapi import Response

from ragpack.service.access import CallerOf, EngineOf
from ragpack.service.admission import admit
from ragpack.service.caller import Caller
from ragpack.service.choice import in_force
from ragpack.service.engine import Engine
from ragpack.service.results import facts_of, report_of, results_of
from ragpack.service.routing import guarded
from ragpack.service.schemas import CompressRequest, CompressResponse

__all__ = ["compress", "compressed", "router"]

router = guarded("compression")


@router.post(
    "/compress", summary="Compress passages for a question", response_model=CompressResponse
)
async def compress(asked: CompressRequest, engine: EngineOf, caller: CallerOf) -> Response:
    """What is kept of each passage, in the order given, with tokens, cache result and times."""
    return await engine.answer(compressed, asked, engine, caller)


def compressed(asked: CompressRequest, engine: Engine, caller: Caller) -> CompressResponse:
    """The response to one request.

    Raises:
        Problem, RagpackError: the request cannot be used.
    """
    packer = engine.packer(asked, caller, weighing=asked.scores)
    passages = admit(asked.query, asked.passages, caller, engine.settings.limits)
    packed = packer.pack(asked.query, passages, budget=asked.budget)
    caller.facts.update(facts_of(packed.report))
    return CompressResponse(
        id=f"cmp-{uuid.uuid4().hex}",
        method=asked.method,
        settings=in_force(packer.compressor),
        results=results_of(packed, passages, packer),
        report=report_of(packed.report),
    )
