"""What happens to every request before its route: an id, a caller, a place among the others."""

import logging
import re
import time
import uuid
from typing import Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ragpack.service.body import bounded
from ragpack.service.caller import Caller
from ragpack.service.gate import Gate
from ragpack.service.metrics import Metrics
from ragpack.service.problems import Problem, problem_response
from ragpack.service.settings import Limits

__all__ = ["Front"]

_log = logging.getLogger("ragpack.service.access")
_ID = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_GUARDED = "/v1/"


class Front:
    """ASGI middleware around the application: everything below ``/v1/`` needs a key and a place.

    Each request is counted and logged when it ends, without a word of what it held.
    """

    def __init__(self, app: ASGIApp, gate: Gate, metrics: Metrics, limits: Limits) -> None:
        self._app = app
        self._gate = gate
        self._metrics = metrics
        self._limits = limits

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        start = time.perf_counter()
        state = scope.setdefault("state", {})
        state["request_id"] = _request_id(Headers(scope=scope))
        status = 0

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)["X-Request-ID"] = state["request_id"]
            await send(message)

        try:
            with self._metrics.in_progress.track_inprogress():
                await self._serve(scope, receive, send_with_id)
        finally:
            self._ended(scope, status, time.perf_counter() - start)

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        if not scope["path"].startswith(_GUARDED):
            await self._app(scope, receive, send)
            return
        try:
            headers = Headers(scope=scope)
            scope["state"]["caller"] = self._gate.identify(headers)
            body = bounded(receive, headers.get("content-length"), self._limits)
            with self._gate.place():
                await self._app(scope, body, send)
        except Problem as problem:  # the application answers its own, so this one is the gate's
            scope["state"]["failure"] = problem.code
            response = problem_response(problem, scope["state"]["request_id"])
            response.headers["Connection"] = "close"  # a body may follow that nobody will read
            await response(scope, receive, send)

    def _ended(self, scope: Scope, status: int, seconds: float) -> None:
        state: dict[str, Any] = scope["state"]
        route = getattr(scope.get("route"), "path_format", "none")
        caller: Caller | None = state.get("caller")
        self._metrics.answered(route, scope["method"], status, seconds)
        if failure := state.get("failure"):
            self._metrics.failures.labels(failure).inc()
        facts = {
            "request_id": state["request_id"],
            "route": route,
            "http_method": scope["method"],
            "status": status,
            "ms": round(seconds * 1000, 2),
            "key": caller.name if caller else None,
            "failure": failure,
        }
        _log.info("request", extra={"facts": facts | (caller.facts if caller else {})})


def _request_id(headers: Headers) -> str:
    """The client's own id where it is a plain word, so that nothing of it can break a log line."""
    given = headers.get("x-request-id", "")
    return given if _ID.fullmatch(given) else uuid.uuid4().hex
