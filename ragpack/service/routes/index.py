"""``POST /v1/index``, ``GET /v1/jobs/{id}``, ``DELETE /v1/passages/{id}``: what can be found."""

from typing import Any

from fastapi import Response

from ragpack.service.access import CallerOf, EngineOf
from ragpack.service.admission import admit
from ragpack.service.caller import Caller
from ragpack.service.engine import Engine
from ragpack.service.problems import said
from ragpack.service.routing import guarded
from ragpack.service.schemas import Deleted, IndexName, IndexRequest, Job

__all__ = ["delete_passage", "get_job", "router", "upsert"]

router = guarded("index")


@router.post(
    "/index",
    status_code=202,
    summary="Add passages to an index, or replace them",
    responses=said(404),
)
async def upsert(
    asked: IndexRequest, engine: EngineOf, caller: CallerOf, response: Response
) -> Job:
    """Answers at once; ask the job how far it is. A passage whose id is taken replaces that one."""
    job = await engine.run(_upsert, asked, engine, caller)
    response.headers["Location"] = f"/v1/jobs/{job.id}"
    return job


def _upsert(asked: IndexRequest, engine: Engine, caller: Caller) -> Job:
    engine.indexes.require()
    passages = admit("", asked.passages, caller, engine.settings.limits)
    caches = [engine.storing(method, caller.namespace) for method in asked.methods]
    vectors = engine.vectors(caller.namespace)
    caller.facts.update(passages=len(passages))

    def work() -> dict[str, Any]:
        summary = engine.indexes.upsert(
            caller.namespace, asked.index, passages, vectors, caches
        ).to_dict()
        return {name: summary[name] for name in ("passages", "added", "computed", "hits", "failed")}

    return engine.jobs.start(caller.namespace, work)


@router.get("/jobs/{job_id}", summary="How far a job is", responses=said(404))
async def get_job(job_id: str, engine: EngineOf, caller: CallerOf) -> Job:
    """Jobs live in the process that took them; a restart forgets those that are done."""
    return engine.jobs.find(caller.namespace, job_id)


@router.delete("/passages/{passage_id:path}", summary="Remove a passage", responses=said(404, 409))
async def delete_passage(
    passage_id: str, index: IndexName, engine: EngineOf, caller: CallerOf
) -> Deleted:
    """From the index, and what is stored for its text without regard to a query."""
    return await engine.run(_delete, passage_id, index, engine, caller)


def _delete(passage_id: str, index: str, engine: Engine, caller: Caller) -> Deleted:
    passage = engine.indexes.remove(caller.namespace, index, passage_id)
    return Deleted(id=passage_id, artifacts=engine.forget(passage, caller.namespace))
