"""The OpenAI-compatible server behind the proxy; its address and key are the operator's alone."""

import logging
from collections.abc import AsyncGenerator

import httpx

from ragpack.errors import ConfigError
from ragpack.handoff.chat_client import authorization
from ragpack.service.chat.relay import Reply
from ragpack.service.metrics import Metrics
from ragpack.service.problems import Problem

__all__ = ["Upstream"]

_log = logging.getLogger(__name__)

_CONNECT_SECONDS = 10.0
_HANDED_ON = ("content-type", "content-encoding", "retry-after", "retry-after-ms", "x-should-retry")
_BROKEN = (
    b'data: {"error":{"message":"the upstream broke off before the end of its answer",'
    b'"type":"upstream_error","code":"UpstreamBrokeOff"}}\n\n'
)


class Upstream:
    """Asks one server; used from one event loop.

    Args:
        base_url: such as ``http://localhost:8000/v1``.
        api_key: bearer key, or None.
        seconds: how long to wait for each piece of an answer.
        connections: most at the same time.
        metrics: counts failures.

    Raises:
        ConfigError: no such address can be, or the key cannot be sent.
    """

    def __init__(
        self, base_url: str, api_key: str | None, seconds: float, connections: int, metrics: Metrics
    ) -> None:
        try:
            parsed = httpx.URL(base_url)
        except httpx.InvalidURL as error:
            raise ConfigError(f"no upstream can be at {base_url!r}: {error}") from error
        if parsed.scheme not in ("http", "https") or not parsed.host:
            raise ConfigError(f"write the upstream as http://host:port/v1, not {base_url!r}")
        self._url = f"{base_url.rstrip('/')}/chat/completions"
        self._seconds = seconds
        self._metrics = metrics
        self._client = httpx.AsyncClient(
            headers={"Accept-Encoding": "identity", **authorization(api_key)},
            timeout=httpx.Timeout(seconds, connect=_CONNECT_SECONDS),
            limits=httpx.Limits(max_connections=connections),
        )

    async def ask(self, body: bytes, request_id: str) -> Reply:
        """The beginning of the answer to a chat request; the rest comes as it is read.

        Raises:
            Problem: 502 where the server cannot be reached, 504 where it says nothing in time.
        """
        headers = {"Content-Type": "application/json", "X-Request-ID": request_id}
        request = self._client.build_request("POST", self._url, content=body, headers=headers)
        try:
            response = await self._client.send(request, stream=True)
        except httpx.TimeoutException as error:
            late = f"the upstream said nothing for {self._seconds:g} s"
            raise Problem(504, "UpstreamTimeout", late) from error
        except httpx.HTTPError as error:
            _log.warning("the upstream cannot be reached: %s", error)
            raise Problem(502, "UpstreamUnavailable", "the upstream cannot be reached") from error
        found = {name: response.headers[name] for name in _HANDED_ON if name in response.headers}
        return Reply(response.status_code, found, self._chunks(response))

    async def aclose(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    async def _chunks(self, response: httpx.Response) -> AsyncGenerator[bytes]:
        try:
            async for chunk in response.aiter_raw():
                yield chunk
        except httpx.HTTPError as error:
            _log.warning("the upstream broke off: %r", error)
            self._metrics.failures.labels("UpstreamBrokeOff").inc()
            if not response.headers.get("content-type", "").startswith("text/event-stream"):
                raise
            yield _BROKEN
        finally:
            await response.aclose()
