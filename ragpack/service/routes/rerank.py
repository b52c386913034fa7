"""``POST /v1/rerank``: the order of documents, in the shape of Cohere's and Jina's services."""

import math
import uuid

from fastapi import Response

from ragpack.deadline import Deadline
from ragpack.errors import ConfigError
from ragpack.pipeline import ContextPacker
from ragpack.service.access import CallerOf, EngineOf
from ragpack.service.admission import admit
from ragpack.service.caller import Caller
from ragpack.service.engine import Engine
from ragpack.service.problems import said
from ragpack.service.routing import guarded
from ragpack.service.schemas import (
    MethodChoice,
    Ranked,
    RankedDocument,
    RerankRequest,
    RerankResponse,
    RerankUsage,
)
from ragpack.types import Passage

__all__ = ["rerank", "router"]

router = guarded("compression")


@router.post(
    "/rerank",
    summary="Order documents by their relevance",
    response_model=RerankResponse,
    responses=said(503),
)
async def rerank(asked: RerankRequest, engine: EngineOf, caller: CallerOf) -> Response:
    """Best first; a score is the method's own, so its scale is the method's too."""
    return await engine.answer(_rerank, asked, engine, caller)


def _rerank(asked: RerankRequest, engine: Engine, caller: Caller) -> RerankResponse:
    passages = admit(asked.query, asked.documents, caller, engine.settings.limits)
    packer = engine.packer(MethodChoice(method=asked.model), caller)
    scores = _scores(packer, asked.query, passages)
    order = sorted(range(len(scores)), key=lambda place: -scores[place])[: asked.top_n]
    caller.facts.update(method=asked.model, passages=len(passages))
    return RerankResponse(
        id=f"rrk-{uuid.uuid4().hex}",
        model=asked.model,
        results=[
            Ranked(
                index=place,
                relevance_score=scores[place],
                document=RankedDocument(text=passages[place].text)
                if asked.return_documents
                else None,
            )
            for place in order
        ],
        usage=RerankUsage(total_tokens=sum(packer.counter.count([p.full_text for p in passages]))),
    )


def _scores(packer: ContextPacker, query: str, passages: list[Passage]) -> list[float]:
    """The method's judgement of each passage; one without a sentence is as bad as the worst.

    Raises:
        ConfigError: the method does not judge passages.
        RagpackError: it failed on one; there is no order without its score.
    """
    method = packer.compressor
    if not method.judges:
        raise ConfigError(
            f"{method.name} does not judge passages; recomp-extractive and exit-mini do"
        )
    looked = packer.cache.fetch(passages, query, Deadline(packer.deadline_ms))
    for look in looked:
        if look.error is not None:
            raise look.error
    artifacts = [look.artifact for look in looked if look.artifact is not None]
    found = method.relevance(query, passages, artifacts)
    worst = min((score for score in found if math.isfinite(score)), default=0.0)
    return [score if math.isfinite(score) else worst for score in found]
