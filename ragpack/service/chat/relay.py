"""Hands an upstream's answer on, byte for byte but for the account, and stops with the client."""

import asyncio
from collections.abc import AsyncGenerator, Coroutine, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import anyio
from fastapi import Request, Response
from fastapi.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from ragpack.service.chat.account import Account

__all__ = ["Relay", "Reply", "unless_gone"]

T = TypeVar("T")

_CLIENT_GONE = 499  # nobody reads it; the log and the counters do


@dataclass(frozen=True, slots=True)
class Reply:
    """An upstream's answer as it begins; whoever has it closes ``chunks``."""

    status: int
    headers: Mapping[str, str]
    chunks: AsyncGenerator[bytes]


class Relay(StreamingResponse):
    """The answer to a client. The upstream's ends with it, whichever of the two stops first.

    Args:
        reply: the upstream's.
        account: to be added to a good answer; None leaves every byte as it is.
    """

    def __init__(self, reply: Reply, account: Account | None = None) -> None:
        self._reply = reply
        content = reply.chunks if account is None else _with(account, reply)
        headers = dict(reply.headers) | (account.headers if account else {})
        super().__init__(content, reply.status, headers)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            with anyio.CancelScope(shield=True):
                await self._reply.chunks.aclose()


def _with(account: Account, reply: Reply) -> AsyncGenerator[bytes]:
    kind = reply.headers.get("content-type", "").partition(";")[0].strip().lower()
    if reply.status == 200 and "content-encoding" not in reply.headers:
        if kind == "text/event-stream":
            return account.in_events(reply.chunks)
        if kind == "application/json":
            return account.in_json(reply.chunks)
    return reply.chunks


async def unless_gone(request: Request, asking: Coroutine[Any, Any, T]) -> T | Response:
    """What ``asking`` gives; given up as soon as the client hangs up. The body must be read."""
    answer = asyncio.ensure_future(asking)
    gone = asyncio.ensure_future(request.receive())
    try:
        await asyncio.wait((answer, gone), return_when=asyncio.FIRST_COMPLETED)
        return answer.result() if answer.done() else Response(status_code=_CLIENT_GONE)
    finally:
        answer.cancel()
        gone.cancel()
