"""The asynchronous client: :mod:`ragpack.client.sync`, awaited."""

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import asynccontextmanager
from types import TracebackType
from typing import Any, Literal, Self, TypeVar, Unpack

import httpx

from ragpack.client import calls
from ragpack.client.batch import Batch, Question, Reply
from ragpack.client.calls import Call, Choice
from ragpack.client.connection import BATCH_PATH, POLL_SECONDS, options, request
from ragpack.client.problems import Retry, error_of, unreachable
from ragpack.client.shapes import (
    Compression,
    Context,
    Deleted,
    Embeds,
    Job,
    Method,
    Model,
    Ranking,
    Readiness,
)
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

    async def embeds(
        self,
        query: str,
        passages: Sequence[Passage | str],
        *,
        format: Literal["completion", "content_part"] = "completion",
        **choice: Unpack[Choice],
    ) -> Embeds:
        """Soft tokens of the context, as fields of a request to a vLLM server or a message's part.

        Raises:
            RagpackError: as for :meth:`compress`; ConfigError where the method makes none.
        """
        return await self._send(calls.embeds(query, passages, format, choice))

    async def compress_batch(self, questions: Sequence[Question]) -> AsyncGenerator[Reply, None]:
        """:meth:`compress` for many questions in one call; replies come as they are done.

        A question that cannot be answered has its error in its reply and disturbs no other one.

        Raises:
            RagpackError: the service refused the call as a whole, or broke off.
        """
        batch = Batch(questions)
        async with self._stream(batch.body) as response:
            async for line in response.aiter_lines():
                if (reply := batch.reply(line)) is not None:
                    yield reply
        batch.finish()

    async def rerank(
        self,
        query: str,
        documents: Sequence[Passage | str],
        *,
        model: str | None = None,
        top_n: int | None = None,
        return_documents: bool = False,
    ) -> Ranking:
        """The documents in the order of their relevance; ``model`` is a method that judges them.

        Raises:
            RagpackError: as for :meth:`compress`.
        """
        return await self._send(calls.rerank(query, documents, model, top_n, return_documents))

    async def index(
        self, name: str, passages: Sequence[Passage], *, methods: Sequence[str] | None = None
    ) -> Job:
        """Add ``passages`` to an index, or replace those of the same id; the work goes on there.

        Raises:
            RagpackError: as for :meth:`compress`.
        """
        return await self._send(calls.index(name, passages, methods))

    async def job(self, ident: str) -> Job:
        """How far a job is."""
        return await self._send(calls.job(ident))

    async def wait(self, job: Job, *, seconds: float = 600.0) -> Job:
        """``job`` when it is over, or as it stands after ``seconds``."""
        deadline = time.monotonic() + seconds
        while not job.over and time.monotonic() < deadline:
            await asyncio.sleep(POLL_SECONDS)
            job = await self.job(job.id)
        return job

    async def delete_passage(self, ident: str, *, index: str) -> Deleted:
        """Remove a passage from an index, and what is stored for its text.

        Raises:
            RagpackError: as for :meth:`compress`.
        """
        return await self._send(calls.delete_passage(ident, index))

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

    @asynccontextmanager
    async def _stream(self, body: dict[str, Any]) -> AsyncIterator[httpx.Response]:
        retry = Retry(self._retries, self._longest_wait)
        while True:
            try:
                async with self._http.stream("POST", BATCH_PATH, json=body) as response:
                    if response.status_code == httpx.codes.OK:
                        yield response
                        return
                    await response.aread()
            except httpx.HTTPError as error:
                raise unreachable(error) from error
            wait = retry.wait(response)
            if wait is None:
                raise error_of(response)
            await asyncio.sleep(wait)
