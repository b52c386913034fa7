"""The asynchronous client: :mod:`ragpack.client.sync`, awaited."""

import asyncio
from collections.abc import Sequence
from types import TracebackType
from typing import Literal, Self, TypeVar, Unpack

import httpx

from ragpack.client import calls
from ragpack.client.calls import Call, Choice
from ragpack.client.connection import options, request
from ragpack.client.problems import Retry, error_of, unreachable
from ragpack.client.shapes import Compression, Context, Method, Model, Readiness
from ragpack.types import Passage

__all__ = ["AsyncClient"]

T = TypeVar("T")


class AsyncClient:
    """A ragpack service for one event loop; arguments as those of :class:`ragpack.client.Client`.

    Raises:
        ConfigError: the URL or the key cannot be used.
    """

    def __init__(
        self,
        base_url: str,
        *,
        api_key: str | None = None,
        timeout: float = 30.0,
        retries: int = 3,
        longest_wait: float = 30.0,
    ) -> None:
        self._http = httpx.AsyncClient(**options(base_url, api_key, timeout))
        self._retries = retries
        self._longest_wait = longest_wait

    async def compress(
        self,
        query: str,
        passages: Sequence[Passage | str],
        *,
        scores: bool = False,
        **choice: Unpack[Choice],
    ) -> Compression:
        """What is kept of each passage; with ``scores`` also how every piece was weighed.

        Raises:
            RagpackError: what the service names; :class:`~ragpack.errors.ServiceUnavailable` where
                it does not answer.
        """
        return await self._send(calls.compress(query, passages, scores, choice))

    async def pack(
        self,
        query: str,
        passages: Sequence[Passage | str] | None = None,
        *,
        index: str | None = None,
        k: int = 10,
        format: Literal["text", "messages"] = "text",
        **choice: Unpack[Choice],
    ) -> Context:
        """One context for a decoder, from ``passages`` or the ``k`` nearest of an ``index``.

        Raises:
            RagpackError: as for :meth:`compress`.
        """
        return await self._send(calls.pack(query, passages, index, k, format, choice))

    async def methods(self) -> list[Method]:
        """The methods, those included that cannot run there."""
        return await self._send(calls.methods())

    async def models(self) -> list[Model]:
        """The models that the service uses."""
        return await self._send(calls.models())

    async def ready(self) -> Readiness:
        """Whether the service can do its work; it is an answer, not an error, if it cannot."""
        return await self._send(calls.ready())

    async def aclose(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.aclose()

    async def _send(self, call: Call[T]) -> T:
        retry = Retry(self._retries, self._longest_wait)
        while True:
            try:
                response = await self._http.request(**request(call))
            except httpx.HTTPError as error:
                raise unreachable(error) from error
            if response.status_code in call.expected:
                return call.answer(response)
            wait = retry.wait(response)
            if wait is None:
                raise error_of(response)
            await asyncio.sleep(wait)
