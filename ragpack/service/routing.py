"""What every group of guarded paths has in common."""

from fastapi import APIRouter

from ragpack.service.body import JsonRoute
from ragpack.service.problems import said

__all__ = ["GUARDED", "guarded"]

GUARDED = "/v1"


def guarded(tag: str) -> APIRouter:
    """A router below ``/v1``, where a key is needed, JSON is read with care and errors are told."""
    return APIRouter(
        prefix=GUARDED,
        tags=[tag],
        route_class=JsonRoute,
        responses=said(),
    )
