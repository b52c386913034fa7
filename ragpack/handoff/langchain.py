"""A decoder as a LangChain chat model, which takes soft tokens and KV where text is not enough."""

from collections.abc import Generator, Iterator
from typing import Any, cast

from langchain_core.callbacks import CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage, get_buffer_string
from langchain_core.messages.ai import InputTokenDetails, UsageMetadata
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from pydantic import ConfigDict, InstanceOf

from ragpack.errors import ConfigError
from ragpack.protocols import Decoder
from ragpack.report import PackedContext
from ragpack.types import Answer

__all__ = ["ChatRagpack"]


class ChatRagpack(BaseChatModel):
    """Hands the packed context of a prompt to a ragpack decoder.

    ``PackContext`` puts the context into the prompt. Other prompts are answered too: a
    conversation is then the question, without a context.

    An answer's ``usage_metadata["input_token_details"]["context_saved"]`` counts the context tokens
    that packing saved; its ``response_metadata`` holds ``ttft_ms`` and ``total_ms``. A stream ends
    with a chunk that has both.

    Args:
        decoder: from :func:`ragpack.open_decoder`.
        max_tokens: most tokens of an answer; also an argument of ``invoke``.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True, extra="forbid")

    decoder: InstanceOf[Decoder]
    max_tokens: int = 128

    @property
    def _llm_type(self) -> str:
        return "ragpack"

    @property
    def _identifying_params(self) -> dict[str, Any]:
        return {"decoder": type(self.decoder).__name__, "max_tokens": self.max_tokens}

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        context, question = _request(messages)
        limit = self._limit(**kwargs)
        answer = self.decoder.generate(context, question, max_new_tokens=limit)
        message = AIMessage(_before(answer.text, stop or []), **_account(answer))
        return ChatResult(generations=[ChatGeneration(message=message)])

    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        context, question = _request(messages)
        limit = self._limit(**kwargs)
        if stop:  # may span pieces, so the answer is cut when it is whole
            answer = self.decoder.generate(context, question, max_new_tokens=limit)
            yield _chunk(_before(answer.text, stop))
        else:
            answer = yield from _chunks(
                self.decoder.stream(context, question, max_new_tokens=limit)
            )
        yield _chunk("", chunk_position="last", **_account(answer))

    def _limit(self, max_tokens: int | None = None, **unknown: Any) -> int:
        if unknown:
            raise ConfigError(f"ChatRagpack takes max_tokens and stop, not {', '.join(unknown)}")
        return self.max_tokens if max_tokens is None else max_tokens


def _request(messages: list[BaseMessage]) -> tuple[PackedContext | str, str]:
    """Context and question: those that the last message carries, or the conversation as it is."""
    for carried in messages[-1].additional_kwargs.values():
        if isinstance(carried, PackedContext):
            return carried, carried.query
    return "", messages[0].text if len(messages) == 1 else get_buffer_string(messages)


def _before(text: str, stop: list[str]) -> str:
    """``text`` up to the first of the stop sequences."""
    return text[: min((place for s in stop if (place := text.find(s)) >= 0), default=len(text))]


def _chunks(
    pieces: Generator[str, None, Answer],
) -> Generator[ChatGenerationChunk, None, Answer]:
    while True:
        try:
            yield _chunk(next(pieces))
        except StopIteration as end:
            return cast(Answer, end.value)


def _chunk(text: str, **fields: Any) -> ChatGenerationChunk:
    return ChatGenerationChunk(message=AIMessageChunk(content=text, **fields))


def _account(answer: Answer) -> dict[str, Any]:
    """Token counts and times, where LangChain keeps them."""
    usage = answer.usage
    details = {"context_saved": usage.context_tokens_saved}  # TypedDict, further keys welcome
    return {
        "usage_metadata": UsageMetadata(
            input_tokens=usage.prompt_tokens,
            output_tokens=usage.completion_tokens,
            total_tokens=usage.prompt_tokens + usage.completion_tokens,
            input_token_details=cast(InputTokenDetails, details),
        ),
        "response_metadata": {"ttft_ms": answer.ttft_ms, "total_ms": answer.total_ms},
    }
