"""What a route may ask of the request it serves: the engine, and who is calling."""

from typing import Annotated, cast

from fastapi import Depends, Request

from ragpack.service.caller import Caller
from ragpack.service.engine import Engine

__all__ = ["CallerOf", "EngineOf"]


def _engine(request: Request) -> Engine:
    return cast(Engine, request.app.state.engine)


def _caller(request: Request) -> Caller:
    return cast(Caller, request.state.caller)


EngineOf = Annotated[Engine, Depends(_engine)]
CallerOf = Annotated[Caller, Depends(_caller)]
