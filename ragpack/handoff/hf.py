"""Hand-off to a Hugging Face causal model in this process."""

from __future__ import annotations

import logging
import time
from collections.abc import Generator, Iterable, Iterator
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING

import torch
from transformers.cache_utils import DynamicCache

from ragpack import config
from ragpack.errors import ConfigError, HandoffError
from ragpack.handoff.answering import whole
from ragpack.handoff.decoding import ModelInputs, greedy, log_probabilities
from ragpack.handoff.soft import has_soft_tokens, recipe_of, soft_prompt
from ragpack.models import checkpoint_folder, load_causal_lm, resolve, weights_digest
from ragpack.models.prompt import INSTRUCTION, context_text, tokens_saved
from ragpack.models.prompt_tokens import PromptTokenizer
from ragpack.report import PackedContext
from ragpack.soft.placed import SoftRecipe
from ragpack.types import Answer, KVArtifact, Usage

if TYPE_CHECKING:
    from ragpack.handoff.kv import KVHandoff

__all__ = ["HFDecoder"]

logger = logging.getLogger(__name__)


class HFDecoder:
    """Greedy answers of a causal model, with the model's chat template where it has one.

    May be called from several threads; decoders of one model share its weights.

    Args:
        name: a model's name, path or hub id, see :func:`ragpack.models.resolve`.
        device: such as ``"cpu"`` or ``"cuda:0"``; a GPU where there is one.
        dtype: of the weights; float32 on a CPU and the checkpoint's own elsewhere, unless given.
        instruction: what the model is told to do with context and question.

    Raises:
        ConfigError: no such model.
        MissingExtraError: the model's package, or what reads its GGUF, is not installed.
        HandoffError: the model has no fast tokenizer.
    """

    def __init__(
        self,
        name: str = config.DEFAULT_DECODER,
        *,
        device: str | None = None,
        dtype: torch.dtype | None = None,
        instruction: str = INSTRUCTION,
    ) -> None:
        self.model, self.tokenizer = load_causal_lm(name, device, dtype)
        self._folder = checkpoint_folder(resolve(name))
        self._kv: KVHandoff | None = None
        self.prompts = PromptTokenizer(self.tokenizer, instruction)
        self._window = getattr(self.model.config, "max_position_embeddings", None)
        self._stop = _end_tokens(self.model.generation_config, self.tokenizer.eos_token_id)

    def generate(
        self, context: PackedContext | str, query: str, *, max_new_tokens: int = 128
    ) -> Answer:
        """The whole answer; ``completion_tokens`` counts its text, not the end token.

        Raises:
            HandoffError: the prompt fills the model's window.
        """
        return whole(self.stream(context, query, max_new_tokens=max_new_tokens))

    def stream(
        self, context: PackedContext | str, query: str, *, max_new_tokens: int = 128
    ) -> Generator[str, None, Answer]:
        """The answer in pieces, as they come; the model stops when the caller stops.

        Raises:
            HandoffError: the prompt fills the model's window.
        """
        start = time.perf_counter()
        inputs = self.inputs(context, query)
        tokens = self._tokens(inputs, max_new_tokens)
        return self._pieces(tokens, start, inputs.prompt_tokens, tokens_saved(context))

    def score(self, context: PackedContext | str, query: str, continuation: str) -> list[float]:
        """Log-probability (natural) of each token of ``continuation`` as the answer's beginning.

        Raises:
            HandoffError: prompt and continuation together exceed the model's window.
        """
        inputs, tokens = self.inputs(context, query), self.prompts.encode(continuation)
        self._check_window(inputs.next_position + len(tokens) - 1)
        return log_probabilities(self.model, inputs, tokens)

    def inputs(self, context: PackedContext | str, query: str) -> ModelInputs:
        """Where decoding starts for this request, with nothing forwarded yet.

        Raises:
            HandoffError: the prompt fills the model's window.
        """
        if isinstance(context, PackedContext):
            for stored in (self._stored(context, query), self._soft(context, query)):
                if stored is not None:
                    return stored
        ids = self.prompts.prompt(context_text(context), query).ids
        self._check_window(len(ids))
        return self._start(ids)

    def _stored(self, context: PackedContext, query: str) -> ModelInputs | None:
        """The start from stored KV; None where there is none or it cannot be used."""
        if not any(isinstance(segment.artifact, KVArtifact) for segment in context.segments):
            return None
        from ragpack.handoff.kv import KVHandoff

        if self._kv is None:
            self._kv = KVHandoff(self.model, self.prompts, weights_digest(self._folder))
        try:
            return self._kv.inputs(context, query)
        except (HandoffError, MemoryError, RuntimeError) as error:  # the text is always an answer
            logger.warning("stored KV is not used, the text is: %s", error)
            return None

    def _soft(self, context: PackedContext, query: str) -> ModelInputs | None:
        """The start from soft tokens; None where there are none or they are for another decoder."""
        if not has_soft_tokens(context):
            return None
        try:
            prompt = soft_prompt(context, query, self.prompts, self._recipe)
        except HandoffError as error:  # the text is always an answer
            logger.warning("soft tokens are not used, the text is: %s", error)
            return None
        self._check_window(len(prompt.token_ids))
        with torch.inference_mode():
            embeds = prompt.embeds(self.model.get_input_embeddings())[None]
        start = self._start(prompt.token_ids)
        return replace(start, embeds=embeds)

    @cached_property
    def _recipe(self) -> SoftRecipe:
        table = self.model.get_input_embeddings()
        return recipe_of(self._folder, next(table.parameters()).shape[1])

    def _start(self, ids: list[int]) -> ModelInputs:
        """A whole prompt, nothing of it in the cache."""
        device = self.model.device
        return ModelInputs(
            input_ids=torch.tensor([ids], device=device),
            position_ids=torch.arange(len(ids), device=device)[None],
            cache=DynamicCache(config=self.model.config),
            prompt_tokens=len(ids),
        )

    def _tokens(self, inputs: ModelInputs, max_new_tokens: int) -> Iterator[int]:
        if max_new_tokens < 1:
            raise ConfigError(f"max_new_tokens must be at least 1, not {max_new_tokens}")
        if self._window is not None:  # the last token is never forwarded
            max_new_tokens = min(max_new_tokens, self._window - inputs.next_position + 1)
        return greedy(self.model, inputs, max_new_tokens, self._stop)

    def _pieces(
        self, tokens: Iterable[int], start: float, prompt_tokens: int, saved: int
    ) -> Generator[str, None, Answer]:
        decoder, text, times = self.prompts.decoder(), "", list[float]()
        for token in tokens:
            times.append(time.perf_counter())
            if piece := decoder.add(token):
                text += piece
                yield piece
        end = time.perf_counter()
        return Answer(
            text=text,
            ttft_ms=((times or [end])[0] - start) * 1000.0,
            total_ms=(end - start) * 1000.0,
            usage=Usage(prompt_tokens, len(times), saved),
        )

    def _check_window(self, tokens: int) -> None:
        if self._window is not None and tokens > self._window:
            raise HandoffError(
                f"the prompt has {tokens} tokens and the model's window {self._window}: pack with "
                "a budget that leaves room for the question, or choose another decoder"
            )


def _end_tokens(settings: object, eos: int | None) -> frozenset[int]:
    """Every token that ends an answer; a model may name several."""
    named = getattr(settings, "eos_token_id", None)
    listed = named if isinstance(named, list) else [named]
    return frozenset(token for token in [*listed, eos] if token is not None)
