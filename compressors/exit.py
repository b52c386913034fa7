"""EXIT: a causal model says for every sentence whether it helps to answer the query.

Source: Hwang et al., "EXIT: Context-Aware Extractive Compression for Enhancing Retrieval-Augmented
Generation", 2024; semantics of the authors' rewritten repository: the context of a sentence is its
own document, a prompt that is too long is refused and never cut, output keeps source order.
Sentences come from ragpack's splitter (the authors use spaCy's sentencizer).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, cast

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from ragpack import models
from ragpack.errors import CompressionError, ConfigError, UnsupportedModel
from ragpack.models.checkpoint import quiet_progress
from ragpack.models.device import best_device
from ragpack.models.lora import adapter_digest, adapter_folder, merge_lora
from ragpack.models.yes_no import YesNo
from ragpack.protocols import Compressor
from ragpack.sentences import SPLITTER, sentence_spans
from ragpack.text import model_text
from ragpack.types import Artifact, Fingerprint, Kind, Passage, Span, TextArtifact

__all__ = ["DEFAULT_ADAPTER", "DEFAULT_MODEL", "Exit", "prompt"]

DEFAULT_MODEL = "google/gemma-2b-it"
DEFAULT_ADAPTER = "doubleyyh/exit-gemma-2b"

_TEMPLATE = """<start_of_turn>user
Query:
{query}
Full context:
{context}
Sentence:
{sentence}
Is this sentence useful in answering the query? Answer only "Yes" or "No".<end_of_turn>
<start_of_turn>model
"""
_TEMPLATE_VERSION = 1


def prompt(query: str, context: str, sentence: str) -> str:
    """The prompt of the paper's model, byte for byte; the tokenizer adds the first token."""
    return _TEMPLATE.format(query=query, context=context, sentence=sentence)


@dataclass(frozen=True, slots=True)
class _Loaded:
    """Model and tokenizer, and the longest prompt in tokens."""

    judge: YesNo
    tokenizer: Any
    limit: int


class Exit(Compressor):
    """Keeps the sentences for which the model answers "Yes" with a probability of at least ``tau``.

    The stored artifact holds every sentence with its P(Yes), so ``tau`` and a budget may change
    without computing anything again. Prompts of one passage share the encoding of all that comes
    before the sentence.

    Args:
        model: a name for :func:`ragpack.models.resolve`.
        adapter: a folder or hub id of a LoRA adapter to merge into the model; None for none.
        tau: least P(Yes) of a sentence to keep where a request has no budget.
        batch: sentences in one forward pass.
        device: such as ``"cuda:0"``; a GPU where there is one.
        language: ISO 639 code for the sentence splitter.

    Raises:
        ConfigError: ``tau`` is outside [0, 1] or ``batch`` below 1.
    """

    name: ClassVar[str] = "exit"
    kind: ClassVar[Kind] = "text"
    query_aware: ClassVar[bool] = True

    def __init__(
        self,
        model: str = DEFAULT_MODEL,
        adapter: str | None = DEFAULT_ADAPTER,
        *,
        tau: float = 0.5,
        batch: int = 8,
        device: str | None = None,
        language: str = "en",
    ) -> None:
        if not 0.0 <= tau <= 1.0:
            raise ConfigError(f"tau must be a probability from 0 to 1, not {tau}")
        if batch < 1:
            raise ConfigError(f"batch must be at least 1 sentence, not {batch}")
        self.tau, self.language = tau, language
        self._model, self._adapter = model, adapter
        self._batch, self._device = batch, device

    @cached_property
    def _loaded(self) -> _Loaded:
        folder = models.checkpoint_folder(models.resolve(self._model))
        models.weights_digest(folder)  # refuses pickle weights
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        yes, no = _single_token(tokenizer, "Yes"), _single_token(tokenizer, "No")
        device = self._device or best_device()
        with quiet_progress():
            network: Any = AutoModelForCausalLM.from_pretrained(
                folder,
                dtype=torch.float32 if device == "cpu" else "auto",
                use_safetensors=True,
                local_files_only=True,
            )
        if self._adapter is not None:
            merge_lora(network, adapter_folder(self._adapter))
        judge = YesNo(network.to(device).eval(), yes, no, self._batch)
        return _Loaded(judge, tokenizer, network.config.max_position_embeddings)

    @cached_property
    def fingerprint(self) -> Fingerprint:
        """Model, adapter, template and splitter; ``tau`` changes nothing that is stored."""
        files = models.resolve(self._model)
        folder = models.checkpoint_folder(files)
        return Fingerprint(
            method=self.name,
            model=files.name,
            weights=models.weights_digest(folder),
            tokenizer=models.tokenizer_digest(folder),
            params={
                "adapter": self._adapter and adapter_digest(adapter_folder(self._adapter)),
                "language": self.language,
                "splitter": SPLITTER,
                "template": _TEMPLATE_VERSION,
            },
        )

    def compress(self, passages: Sequence[Passage], query: str | None) -> list[Artifact]:
        """Every sentence of each passage with its P(Yes).

        Raises:
            CompressionError: ``query`` is None, or a prompt is longer than the model's window.
        """
        if query is None:
            raise CompressionError("exit reads the query: it cannot index passages without one")
        return [self._judged(passage, query) for passage in passages]

    def select(
        self,
        query: str,
        passages: Sequence[Passage],
        artifacts: Sequence[Artifact],
        budget: int | None = None,
    ) -> list[Artifact]:
        """All sentences under a budget, which ranks them; else those of at least ``tau``."""
        if budget is not None:
            return list(artifacts)
        return [_above(cast(TextArtifact, artifact), self.tau) for artifact in artifacts]

    def _judged(self, passage: Passage, query: str) -> TextArtifact:
        spans = sentence_spans(passage.text, self.language)
        prompts = [self._tokens(passage, query, span) for span in spans]
        return TextArtifact(spans, tuple(self._loaded.judge.probabilities(prompts)))

    def _tokens(self, passage: Passage, query: str, span: Span) -> list[int]:
        sentence = passage.text[slice(*span)]
        text = model_text(prompt(query, passage.full_text, sentence))
        ids: list[int] = self._loaded.tokenizer.encode(text)
        if len(ids) > self._loaded.limit:
            raise CompressionError(
                f"passage {passage.id!r} makes a prompt of {len(ids)} tokens, the model reads "
                f"{self._loaded.limit}: split the passage when indexing"
            )
        return ids


def _single_token(tokenizer: Any, word: str) -> int:
    ids: list[int] = tokenizer.encode(word, add_special_tokens=False)
    if len(ids) != 1 or ids[0] == tokenizer.unk_token_id:
        raise UnsupportedModel(
            f"{word!r} is not one token of this model's tokenizer but {ids}: EXIT compares the "
            'logits of the single tokens "Yes" and "No"'
        )
    return ids[0]


def _above(artifact: TextArtifact, least: float) -> TextArtifact:
    kept = [place for place, score in enumerate(artifact.scores) if score >= least]
    return TextArtifact(
        tuple(artifact.spans[place] for place in kept),
        tuple(artifact.scores[place] for place in kept),
    )
