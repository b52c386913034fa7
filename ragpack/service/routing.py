"""What every group of guarded paths has in common."""

from fastapi import APIRouter, Depends
from fastapi.security import HTTPBearer

from ragpack.service.body import JsonRoute
from ragpack.service.problems import said

__all__ = ["guarded"]

# For the OpenAPI document alone: front.py has checked the key before a body is read.
_KEYED = Depends(HTTPBearer(auto_error=False, description="A key of this service."))


def guarded(tag: str) -> APIRouter:
    """A router below ``/v1``, where a key is needed, JSON is read with care and errors are told."""
    return APIRouter(
        prefix="/v1",
        tags=[tag],
        route_class=JsonRoute,
        responses=said(),
        dependencies=[_KEYED],
    )
