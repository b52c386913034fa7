"""RECOMP's abstractive compressor: one summary of all passages, written for the query.

Source: Xu, Shi, Choi, "RECOMP: Improving Retrieval-Augmented LMs with Compression and Selective
Augmentation", ICLR 2024, section 3.2; prompt, lengths and greedy decoding as in
``train_hf_summarization_model.py`` of the authors' repository.
"""

from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, ClassVar, Literal

from ragpack import models
from ragpack.errors import CompressionError, ConfigError
from ragpack.protocols import Compressor
from ragpack.types import Artifact, Fingerprint, Kind, Passage, TextArtifact

if TYPE_CHECKING:
    from ragpack.models import Seq2Seq

__all__ = ["DEFAULT_MODEL", "RecompAbstractive"]

DEFAULT_MODEL = "fangyuan/nq_abstractive_compressor"
_PROMPT = "Question: {question}\n Document: {passages}\n Summary: "


class RecompAbstractive(Compressor):
    """Writes one summary of the passages of a request, in their order.

    An empty summary says that the passages do not help, and is a result like any other: the request
    goes on without them (the paper's selective augmentation). No summary has more tokens than the
    passages that it stands for.

    Args:
        model: a name for :func:`ragpack.models.load_seq2seq`, or a model. The paper's are
            ``fangyuan/nq_abstractive_compressor``, ``fangyuan/tqa_abstractive_compressor`` and
            ``fangyuan/hotpotqa_abstractive``.
        max_source: most tokens of the prompt; a longer one is refused, never cut.
        max_summary: most tokens of a summary.
        together: False writes a summary of each passage by itself instead. Every passage then keeps
            its place and id, and is found in the store whatever stands beside it.

    Raises:
        ConfigError: a length below 1.
    """

    name: ClassVar[str] = "recomp-abstractive"
    kind: ClassVar[Kind] = "text"
    query_aware: ClassVar[bool] = True
    scope: Literal["passage", "set"] = "set"

    def __init__(
        self,
        model: "str | Seq2Seq" = DEFAULT_MODEL,
        *,
        max_source: int = 1024,
        max_summary: int = 512,
        together: bool = True,
    ) -> None:
        if max_source < 1 or max_summary < 1:
            raise ConfigError(
                f"max_source and max_summary must be at least 1 token, not {max_source} and "
                f"{max_summary}"
            )
        self.max_source = max_source
        self.max_summary = max_summary
        if not together:
            self.scope = "passage"
        self._model = model

    @cached_property
    def model(self) -> "Seq2Seq":
        """The model; loaded on first use."""
        chosen = self._model
        return models.load_seq2seq(chosen) if isinstance(chosen, str) else chosen

    @cached_property
    def fingerprint(self) -> Fingerprint:
        """Model and length of the summary; ``max_source`` only refuses, and changes none."""
        made = self.model.fingerprint
        return Fingerprint(
            method=self.name,
            model=made.model,
            dtype=made.dtype,
            params={"max_summary": self.max_summary, "model": made.digest, "prompt": _PROMPT},
        )

    def compress(self, passages: Sequence[Passage], query: str | None) -> list[Artifact]:
        """The summary of each passage (all of a request's, as one); "" for one without text.

        Raises:
            CompressionError: there is no query, or a prompt is longer than ``max_source``.
        """
        if query is None:
            raise CompressionError(f"{self.name} needs the query: it cannot be indexed beforehand")
        full = [passage for passage in passages if passage.text.strip()]
        prompts = self.model.tokens(
            [_PROMPT.format(question=query, passages=passage.full_text) for passage in full]
        )
        for passage, prompt in zip(full, prompts, strict=True):
            self._check(passage, len(prompt))
        sources = self.model.tokens([passage.text for passage in full])
        # A source's last token marks its end.
        limits = [max(1, min(len(source) - 1, self.max_summary)) for source in sources]
        summaries = iter(self.model.generate(prompts, limits))
        return [
            TextArtifact(text=next(summaries) if passage.text.strip() else "")
            for passage in passages
        ]

    def _check(self, passage: Passage, tokens: int) -> None:
        if tokens > self.max_source:
            raise CompressionError(
                f"question and passages ({passage.id}) make {tokens} tokens, more than the "
                f"{self.max_source} that {self.model.name} may read; give fewer passages, or "
                "raise max_source"
            )
