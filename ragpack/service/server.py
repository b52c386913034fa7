"""Runs the application under uvicorn, with what uvicorn lacks: a limit on slow and huge heads."""

import asyncio
from typing import Any

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from ragpack.service.app import create_app
from ragpack.service.settings import Settings

__all__ = ["make_server"]

_HEAD_BYTES = 64 * 1024
_DRAIN_SECONDS = 30
_CONNECTIONS_PER_PLACE = 4


class _Protocol(HttpToolsProtocol):
    """Closes a connection whose request line and headers come too slowly, or too many of them."""

    head_seconds = 10.0

    def __init__(self, *args: Any, **settings: Any) -> None:
        super().__init__(*args, **settings)
        self._head_bytes = 0
        self._in_head = True
        self._late: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._expect_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._head_is_here()
        super().connection_lost(exc)

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._expect_head()

    def on_headers_complete(self) -> None:
        self._head_is_here()
        super().on_headers_complete()

    def data_received(self, data: bytes) -> None:
        if self.cycle is not None and self.cycle.response_complete and not self._in_head:
            self._expect_head()  # bytes between requests stop uvicorn's own clock
        super().data_received(data)
        if self._in_head:
            self._head_bytes += len(data)
            if self._head_bytes > _HEAD_BYTES:
                self.transport.close()

    def _expect_head(self) -> None:
        self._head_is_here()
        self._in_head, self._head_bytes = True, 0
        self._late = self.loop.call_later(self.head_seconds, self.transport.close)

    def _head_is_here(self) -> None:
        self._in_head = False
        if self._late is not None:
            self._late.cancel()


def make_server(settings: Settings, host: str, port: int) -> uvicorn.Server:
    """A server, to be run; SIGTERM lets the requests under way finish.

    Raises:
        UnknownPluginError: a method or a store that is not registered.
    """
    limits = settings.limits
    protocol = type("_Protocol", (_Protocol,), {"head_seconds": limits.head_seconds})
    config = uvicorn.Config(
        create_app(settings),
        host=host,
        port=port,
        http=protocol,
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        limit_concurrency=_CONNECTIONS_PER_PLACE * limits.in_flight,
        timeout_graceful_shutdown=_DRAIN_SECONDS,
    )
    return uvicorn.Server(config)
