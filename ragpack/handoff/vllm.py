"""Hand-off of soft tokens to a vLLM server, as prompt embeddings.

The server must run with ``--enable-prompt-embeds``, which its makers advise for trusted clients
only. The rules are those of ``vllm/renderers/embed_utils.py`` in vLLM 0.33: strict base64 of a
``torch.save`` file that loads with ``weights_only``, two dimensions, the model's width, a floating
type (cast to the model's own). The chat template is not applied to ``/v1/completions``, so a prompt
goes there whole. Embeddings and text in one request would be two prompts, not one.
"""

from __future__ import annotations

import base64
import io
import logging
import time
from collections.abc import Generator
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoTokenizer

from ragpack import config
from ragpack.errors import HandoffError, UnsupportedModel
from ragpack.handoff.answering import whole
from ragpack.handoff.chat_client import ChatClient
from ragpack.handoff.soft import has_soft_tokens, recipe_of, soft_prompt
from ragpack.models import checkpoint_folder, resolve
from ragpack.models.embeddings import input_embeddings
from ragpack.models.prompt import INSTRUCTION, context_text, tokens_saved
from ragpack.models.prompt_tokens import PromptTokenizer
from ragpack.report import PackedContext
from ragpack.soft.compose import SoftPrompt
from ragpack.types import Answer, Usage

__all__ = ["VLLMPrompts", "VLLMSoftDecoder", "encode_embeds"]

logger = logging.getLogger(__name__)


def encode_embeds(embeds: Tensor) -> str:
    """Rows [n, h] as a server takes them.

    The rows are cloned: ``torch.save`` of a view writes all the memory behind it.

    Raises:
        HandoffError: not two-dimensional, not floating, or not finite.
    """
    if embeds.dim() != 2 or not embeds.is_floating_point():
        raise HandoffError(f"rows must be floating [n, h], not {embeds.dtype} {list(embeds.shape)}")
    if not embeds.isfinite().all():
        raise HandoffError("a row of the prompt is not finite")
    with io.BytesIO() as file:
        torch.save(embeds.detach().to("cpu").contiguous().clone(), file)
        return base64.b64encode(file.getvalue()).decode("ascii")


class VLLMPrompts:
    """Prompts for a model that a vLLM server runs; its files are needed here too.

    Only the tokenizer and the embedding table are read, not the model.

    Args:
        decoder: the model's name or path.
        instruction: what the model is told to do with context and question.
        dtype: of the rows on the wire.

    Raises:
        ConfigError: no such model.
        UnsupportedModel: the model scales its embeddings (Gemma).
    """

    def __init__(
        self,
        decoder: str = config.DEFAULT_DECODER,
        *,
        instruction: str = INSTRUCTION,
        dtype: torch.dtype = torch.bfloat16,
    ) -> None:
        folder = checkpoint_folder(resolve(decoder))
        kind = AutoConfig.from_pretrained(folder, local_files_only=True).model_type
        if kind.startswith("gemma"):
            raise UnsupportedModel(f"{decoder}: {kind} scales its embeddings, vLLM's side unproven")
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        self._prompts = PromptTokenizer(tokenizer, instruction)
        table = input_embeddings(folder)
        self._table = nn.Embedding(len(table), table.shape[1], _weight=table, _freeze=True)
        self._recipe = recipe_of(folder, self._table.embedding_dim)
        self._dtype = dtype

    def soft(self, context: PackedContext | str, query: str) -> SoftPrompt:
        """The whole prompt; a context without soft tokens, or with another model's, as text."""
        if isinstance(context, PackedContext) and has_soft_tokens(context):
            try:
                return soft_prompt(context, query, self._prompts, self._recipe)
            except HandoffError as error:  # the text is always an answer
                logger.warning("soft tokens are not used, the text is: %s", error)
        return SoftPrompt.of(self._prompts.prompt(context_text(context), query).ids, [], [])

    def completion(self, context: PackedContext | str, query: str) -> dict[str, Any]:
        """Fields of a request to ``/v1/completions``."""
        return {"prompt": "", "prompt_embeds": encode_embeds(self._embeds(context, query))}

    def content_part(self, context: PackedContext) -> dict[str, Any]:
        """The context alone, as a part of a chat message that the server's template frames.

        Raises:
            HandoffError: the context has no soft tokens, or those of another model.
        """
        prompt = soft_prompt(context, "", self._prompts, self._recipe)
        whole_prompt = self._prompts.prompt("x", "")
        first, last = len(whole_prompt.prefix), len(self._prompts.after_separator(""))
        rows = prompt.embeds(self._table)[first : len(prompt.token_ids) - last]
        return {"type": "prompt_embeds", "data": encode_embeds(rows.to(self._dtype))}

    def offline(self, context: PackedContext | str, query: str) -> dict[str, Any]:
        """A prompt for ``vllm.LLM.generate``: ids where there are tokens, rows elsewhere.

        vLLM's prefix cache leaves the mask out of its key (vllm issue 56655): give every request a
        ``cache_salt`` of its own, or switch prefix caching off.
        """
        prompt = self.soft(context, query)
        return {
            "prompt_embeds": prompt.embeds(self._table).to(self._dtype),
            "prompt_token_ids": [max(token, 0) for token in prompt.token_ids],
            "prompt_is_token_ids": [token >= 0 for token in prompt.token_ids],
        }

    def _embeds(self, context: PackedContext | str, query: str) -> Tensor:
        return self.soft(context, query).embeds(self._table).to(self._dtype)


class VLLMSoftDecoder:
    """Answers of a running vLLM server to packed contexts with soft tokens; greedy, streamed.

    Args:
        base_url: such as ``http://localhost:8000/v1``.
        prompts: of the model that it serves.
        model: the served model's name; the server is asked when there is none.
        api_key: bearer key; ``RAGPACK_API_KEY`` unless given.
        timeout: seconds to wait for a connection and for each piece of the answer.
    """

    def __init__(
        self,
        base_url: str,
        prompts: VLLMPrompts,
        model: str | None = None,
        *,
        api_key: str | None = None,
        timeout: float = 60.0,
    ) -> None:
        self._client = ChatClient(base_url, api_key or config.api_key(), timeout)
        self._prompts = prompts
        self._model = model

    def generate(
        self, context: PackedContext | str, query: str, *, max_new_tokens: int = 128
    ) -> Answer:
        """The whole answer.

        Raises:
            HandoffError: the server cannot be reached, refuses, or breaks off.
        """
        return whole(self.stream(context, query, max_new_tokens=max_new_tokens))

    def stream(
        self, context: PackedContext | str, query: str, *, max_new_tokens: int = 128
    ) -> Generator[str, None, Answer]:
        """The answer in pieces, as they come; the request ends when the caller stops.

        Raises:
            HandoffError: the server cannot be reached, refuses, or breaks off.
        """
        start, text, times, counts = time.perf_counter(), "", list[float](), (0, 0)
        for event in self._client.complete(self._body(context, query, max_new_tokens)):
            match event:
                case {"choices": [{"text": str(piece)}, *_]} if piece:
                    times.append(time.perf_counter())
                    text += piece
                    yield piece
            match event:
                case {"usage": {"prompt_tokens": int(asked), "completion_tokens": int(said)}}:
                    counts = asked, said
        end = time.perf_counter()
        return Answer(
            text=text,
            ttft_ms=((times or [end])[0] - start) * 1000.0,
            total_ms=(end - start) * 1000.0,
            usage=Usage(*counts, tokens_saved(context)),
        )

    def score(self, context: PackedContext | str, query: str, continuation: str) -> list[float]:
        """Not offered: with prompt embeddings the server refuses to echo.

        Raises:
            HandoffError: always.
        """
        raise HandoffError("a vLLM server cannot score a continuation behind prompt embeddings")

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def _body(self, context: PackedContext | str, query: str, tokens: int) -> dict[str, Any]:
        if self._model is None:
            self._model = self._client.only_model()
        return {
            "model": self._model,
            "max_tokens": tokens,
            "temperature": 0,
            "stream": True,
            "stream_options": {"include_usage": True},
            **self._prompts.completion(context, query),
        }
