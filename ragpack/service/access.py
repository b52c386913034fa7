"""What a route may ask of the request it serves: the engine, the upstream, and who is calling."""

from typing import Annotated, cast

from fastapi import Depends, Request

from ragpack.service.caller import Caller
from ragpack.service.chat.upstream import Upstream
from ragpack.service.engine import Engine
from ragpack.service.problems import Problem

__all__ = ["CallerOf", "EngineOf", "UpstreamOf"]


# Coroutines, because FastAPI would call a plain function in a thread of its own.


async def _engine(request: Request) -> Engine:
    return cast(Engine, request.app.state.engine)


async def _caller(request: Request) -> Caller:
    return cast(Caller, request.state.caller)


async def _upstream(request: Request) -> Upstream:
    upstream = cast(Upstream | None, request.app.state.upstream)
    if upstream is None:
        raise Problem(404, "NoUpstream", "this service answers no chats: it was given no upstream")
    return upstream


EngineOf = Annotated[Engine, Depends(_engine)]
CallerOf = Annotated[Caller, Depends(_caller)]
UpstreamOf = Annotated[Upstream, Depends(_upstream)]
