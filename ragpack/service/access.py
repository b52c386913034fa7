"""What a route may ask of the request it serves: the engine, and who is calling."""

from dataclasses import dataclass
from typing import Annotated, cast

from fastapi import Depends, Request

from ragpack.service.engine import Engine

__all__ = ["Caller", "CallerOf", "EngineOf"]


@dataclass(frozen=True, slots=True)
class Caller:
    """Who sent the request: ``namespace`` is the wall around everything stored for it."""

    name: str
    namespace: str


def _engine(request: Request) -> Engine:
    return cast(Engine, request.app.state.engine)


def _caller(request: Request) -> Caller:
    return cast(Caller, request.state.caller)


EngineOf = Annotated[Engine, Depends(_engine)]
CallerOf = Annotated[Caller, Depends(_caller)]
