"""``POST /v1/compress``: each passage on its own, compressed for a question."""

import uuid

from fastapi import APIRouter

from ragpack.service.access import CallerOf, EngineOf
from ragpack.service.choice import Weighing, in_force
from ragpack.service.engine import Engine
from ragpack.service.results import report_of, results_of
from ragpack.service.schemas import CompressRequest, CompressResponse, passages_from

__all__ = ["compress", "router"]

router = APIRouter(prefix="/v1", tags=["compression"])


@router.post("/compress", summary="Compress passages for a question")
async def compress(asked: CompressRequest, engine: EngineOf, caller: CallerOf) -> CompressResponse:
    """What is kept of each passage, in the order given, with tokens, cache result and times."""
    return await engine.run(_compress, asked, engine, caller.namespace)


def _compress(asked: CompressRequest, engine: Engine, namespace: str) -> CompressResponse:
    packer = engine.packer(asked.method, namespace, asked.settings, asked.deadline_ms)
    settings = in_force(packer.compressor)
    weighing = Weighing(packer.compressor) if asked.scores else None
    if weighing is not None:
        packer.compressor = weighing
    passages = passages_from(asked.passages)
    packed = packer.pack(asked.query, passages, budget=asked.budget)
    return CompressResponse(
        id=f"cmp-{uuid.uuid4().hex}",
        method=asked.method,
        settings=settings,
        results=results_of(packed, passages, weighing, packer.counter),
        report=report_of(packed.report),
    )
