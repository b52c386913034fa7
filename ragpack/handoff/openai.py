"""Hand-off to any OpenAI-compatible server (vLLM, SGLang, llama.cpp, OpenAI) over HTTP."""

import logging
import time
from collections.abc import Generator, Iterator
from typing import Any, Self
from urllib.parse import parse_qs, urlsplit

from ragpack import config
from ragpack.errors import ConfigError, HandoffError
from ragpack.handoff.answering import whole
from ragpack.handoff.chat_client import ChatClient
from ragpack.models.prompt import INSTRUCTION, context_text, messages, tokens_saved
from ragpack.report import PackedContext
from ragpack.types import Answer, Usage

__all__ = ["SCHEMES", "OpenAIDecoder"]

_log = logging.getLogger(__name__)

SCHEMES = {"openai": "http", "openai+https": "https", "vllm": "http", "vllm+https": "https"}


class OpenAIDecoder:
    """Answers from ``/chat/completions``, streamed, greedy unless a temperature is given.

    May be called from several threads; they share connections.

    Args:
        base_url: such as ``http://localhost:8000/v1``.
        model: the served model's name; the server is asked when there is none.
        api_key: bearer key; ``RAGPACK_API_KEY`` unless given.
        timeout: seconds to wait for a connection and for each piece of the answer.
        instruction: what the model is told to do with context and question.
    """

    def __init__(
        self,
        base_url: str,
        model: str | None = None,
        *,
        api_key: str | None = None,
        timeout: float = 60.0,
        instruction: str = INSTRUCTION,
    ) -> None:
        self._client = ChatClient(base_url, api_key or config.api_key(), timeout)
        self._model = model
        self._instruction = instruction
        self._warned = False

    @classmethod
    def from_url(cls, url: str, **settings: Any) -> Self:
        """The decoder of ``openai://host:port/v1?model=NAME`` or ``vllm://host:port``.

        Raises:
            ConfigError: the URL names no host, or a port that is none.
        """
        try:
            parsed = urlsplit(url)
            reachable = bool(parsed.hostname) and parsed.port != 0
        except ValueError:  # what urllib raises for a port or an address that is none
            reachable = False
        if not reachable:
            raise ConfigError(
                f"no host or a wrong port in {url!r}; write openai://host:port/v1?model=NAME"
            )
        path = parsed.path.rstrip("/") or "/v1"
        model = parse_qs(parsed.query).get("model", [None])[0]
        return cls(f"{SCHEMES[parsed.scheme]}://{parsed.netloc}{path}", model, **settings)

    def generate(
        self,
        context: PackedContext | str,
        query: str,
        *,
        max_new_tokens: int = 128,
        **settings: Any,
    ) -> Answer:
        """The whole answer; token counts are the server's, 0 where it gives none.

        Args:
            context: packed, or as plain text.
            query: the question.
            max_new_tokens: most tokens of the answer.
            settings: further fields of the request, such as ``temperature`` or ``seed``.

        Raises:
            HandoffError: the server cannot be reached, refuses, or breaks off.
        """
        return whole(self.stream(context, query, max_new_tokens=max_new_tokens, **settings))

    def stream(
        self,
        context: PackedContext | str,
        query: str,
        *,
        max_new_tokens: int = 128,
        **settings: Any,
    ) -> Generator[str, None, Answer]:
        """The answer in pieces, as they come; the request ends when the caller stops.

        Raises:
            HandoffError: the server cannot be reached, refuses, or breaks off.
        """
        start, text, times = time.perf_counter(), "", list[float]()
        prompt_tokens = completion_tokens = 0
        for event in self._events(context, query, max_new_tokens, settings):
            if piece := _piece(event):
                times.append(time.perf_counter())
                text += piece
                yield piece
            match event:
                case {"usage": {"prompt_tokens": int(asked), "completion_tokens": int(said)}}:
                    prompt_tokens, completion_tokens = asked, said
        end = time.perf_counter()
        return Answer(
            text=text,
            ttft_ms=((times or [end])[0] - start) * 1000.0,
            total_ms=(end - start) * 1000.0,
            usage=Usage(prompt_tokens, completion_tokens, tokens_saved(context)),
        )

    def score(self, context: PackedContext | str, query: str, continuation: str) -> list[float]:
        """Not offered by the chat interface.

        Raises:
            HandoffError: always.
        """
        raise HandoffError(
            "an OpenAI-compatible server cannot score a continuation: open the model in this "
            "process, open_decoder('<name or path>')"
        )

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def _events(
        self,
        context: PackedContext | str,
        query: str,
        max_new_tokens: int,
        settings: dict[str, Any],
    ) -> Iterator[dict[str, Any]]:
        self._warn_of_text(context)
        if self._model is None:
            self._model = self._client.only_model()
        body = {
            "model": self._model,
            "messages": messages(context_text(context), query, self._instruction),
            "max_tokens": max_new_tokens,
            "temperature": 0,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        return self._client.chat(body | settings)

    def _warn_of_text(self, context: PackedContext | str) -> None:
        """Say once that what a method made for the decoder itself does not travel as chat."""
        if isinstance(context, str) or self._warned:
            return
        if any(segment.artifact is not None for segment in context.segments):
            self._warned = True
            _log.warning(
                "%s made soft tokens or KV, which a chat cannot hold: the server reads their whole "
                "text; VLLMSoftDecoder hands soft tokens to vLLM, a model in this process takes "
                "both (said once)",
                context.report.method,
            )


def _piece(event: dict[str, Any]) -> str:
    """The text that an event adds to the answer."""
    match event:
        case {"choices": [{"delta": {"content": str(piece)}}, *_]}:
            return piece
    return ""
