"""``POST /v1/compress/batch``: many questions in one call, answered line by line."""

import asyncio
from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import Depends

from ragpack.errors import RagpackError
from ragpack.service.access import CallerOf, EngineOf
from ragpack.service.caller import Caller
from ragpack.service.engine import Engine
from ragpack.service.problems import Problem, problem_of, said, shape_of
from ragpack.service.routes.compress import compressed
from ragpack.service.routing import guarded
from ragpack.service.schemas import BatchLine, BatchRequest, CompressRequest

__all__ = ["compress_batch", "router"]

router = guarded("compression")
_AT_ONCE = 8


async def _small_enough(asked: BatchRequest, engine: EngineOf) -> BatchRequest:
    most = engine.settings.limits.batch
    if len(asked.requests) > most:
        raise Problem(413, "TooLarge", f"requests: {len(asked.requests)} is more than {most}")
    return asked


@router.post(
    "/compress/batch", summary="Compress for many questions, streamed", responses=said(413, 429)
)
async def compress_batch(
    asked: Annotated[BatchRequest, Depends(_small_enough)], engine: EngineOf, caller: CallerOf
) -> AsyncIterator[BatchLine]:
    """A line of JSON for each request as soon as it is done; index says which one it answers.

    A request that cannot be used has a problem in its line and does not disturb the others.
    """
    at_once = asyncio.Semaphore(_AT_ONCE)

    async def answer(index: int, one: CompressRequest) -> BatchLine:
        async with at_once:
            return await engine.run(_line, index, one, engine, caller)

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(answer(i, one)) for i, one in enumerate(asked.requests)]
        for task in asyncio.as_completed(tasks):
            yield await task


def _line(index: int, asked: CompressRequest, engine: Engine, caller: Caller) -> BatchLine:
    try:
        return BatchLine(index=index, response=compressed(asked, engine, caller))
    except (Problem, RagpackError) as error:
        return BatchLine(index=index, problem=shape_of(problem_of(error)))
