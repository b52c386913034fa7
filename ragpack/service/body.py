"""Reads a request's body with care: not too much, in time, and as JSON that is not odd."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import Request, Response
from fastapi.routing import APIRoute
from pydantic_core import from_json
from starlette.types import Message, Receive

from ragpack.service.problems import Problem
from ragpack.service.settings import Limits

__all__ = ["JsonRoute", "bounded"]


_MOST_MEMBERS = 1000


class _Request(Request):
    """A request whose JSON is parsed by pydantic's parser.

    It is quicker than Python's, stops at 200 levels before it runs out of stack, and refuses what
    is not UTF-8, lone surrogates, NaN and infinity, which the response could not hold.
    """

    async def json(self) -> Any:
        try:
            body = await self.body()
            found = from_json(body, allow_inf_nan=False)
        except ValueError as error:
            raise Problem(400, "BadRequest", f"the body is not JSON: {error}") from error
        if body.count(b":") > _MOST_MEMBERS and (members := _widest(found)) > _MOST_MEMBERS:
            raise Problem(
                413, "TooLarge", f"an object of {members} members; {_MOST_MEMBERS} at most"
            )
        return found


class JsonRoute(APIRoute):
    """A route that reads its body as :class:`_Request` does."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """FastAPI's handler, fed with the careful request."""
        handle = super().get_route_handler()

        async def careful(request: Request) -> Response:
            if self.body_field is not None and not _is_json(request):
                raise Problem(415, "UnsupportedMediaType", "send Content-Type: application/json")
            return await handle(_Request(request.scope, request.receive))

        return careful


def _widest(value: Any) -> int:
    """Members of the largest object in ``value``, each of which may be a wrong one to report."""
    widest, left = 0, [value]
    while left:
        one = left.pop()
        if isinstance(one, dict):
            widest = max(widest, len(one))
            left += [inner for inner in one.values() if isinstance(inner, dict | list)]
        elif isinstance(one, list):
            left += [inner for inner in one if isinstance(inner, dict | list)]
    return widest


def _is_json(request: Request) -> bool:
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    return kind == "application/json" or (
        kind.startswith("application/") and kind.endswith("+json")
    )


def bounded(receive: Receive, length: str | None, limits: Limits) -> Receive:
    """``receive``, with a cap on the body's bytes and on the seconds until it is here.

    Args:
        receive: the server's.
        length: the Content-Length header, where there is one.
        limits: ``body_bytes`` and ``body_seconds`` of them count.

    Raises:
        Problem: 413 at once for a length above the cap; 413 and 408 from the returned function.
    """
    if length is not None and length.isdecimal() and int(length[:20]) > limits.body_bytes:
        raise _refused(413, "BodyTooLarge", f"the body has more than {limits.body_bytes} bytes")
    ends = asyncio.get_running_loop().time() + limits.body_seconds
    reading, size = True, 0

    async def careful() -> Message:
        nonlocal reading, size
        if not reading:
            return await receive()
        try:
            async with asyncio.timeout_at(ends):
                message = await receive()
        except TimeoutError as error:
            late = f"the body did not arrive within {limits.body_seconds:g} s"
            raise _refused(408, "BodyTooSlow", late) from error
        size += len(message.get("body", b""))
        if size > limits.body_bytes:
            raise _refused(413, "BodyTooLarge", f"the body has more than {limits.body_bytes} bytes")
        reading = message.get("more_body", False)
        return message

    return careful


def _refused(status: int, code: str, detail: str) -> Problem:
    return Problem(status, code, detail, headers={"Connection": "close"})
