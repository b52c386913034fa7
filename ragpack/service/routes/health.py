"""Is the process alive, and can it do its work?"""

from typing import Literal

from fastapi import APIRouter, Response
from prometheus_client import CONTENT_TYPE_LATEST

from ragpack.service.access import EngineOf
from ragpack.service.schemas import Answer

__all__ = ["Health", "Readiness", "healthz", "metrics", "readyz", "router"]

router = APIRouter(tags=["health"])


class Health(Answer):
    """The process answers."""

    status: Literal["ok"] = "ok"


class Readiness(Answer):
    """Whether each part that a request needs is there; one that is not says why."""

    ready: bool
    checks: dict[str, str]


@router.get("/healthz", summary="The process answers")
async def healthz() -> Health:
    """Says nothing about the store or the models; for restarting a process that hangs."""
    return Health()


@router.get(
    "/readyz",
    summary="Store and models answer",
    responses={503: {"model": Readiness, "description": "Something is away."}},
)
async def readyz(engine: EngineOf, response: Response) -> Readiness:
    """For load balancers: 503 while the store or a model is away; requests still fail open."""
    checks = await engine.run(engine.checks)
    ready = all(found == "ok" for found in checks.values())
    response.status_code = 200 if ready else 503
    return Readiness(ready=ready, checks=checks)


@router.get("/metrics", include_in_schema=False)
async def metrics(engine: EngineOf) -> Response:
    """For Prometheus."""
    await engine.run(engine.checks)
    return Response(engine.metrics.render(), media_type=CONTENT_TYPE_LATEST)
