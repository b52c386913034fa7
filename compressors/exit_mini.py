"""exit-mini: EXIT's decision for every sentence of a passage, in one small forward pass.

A cross-encoder on all-MiniLM-L6-v2 (:class:`ragpack.models.sentence_scorer.SentenceScorer`) reads
query and passage together and says which sentences answer; the sentence encoder of ``recomp-mini``
says how near each is to the query; :mod:`ragpack.models.sentence_judge` joins the two. Sources:
EXIT (Hwang et al., 2024) for the task, Provence (Chirkova et al., 2025) for scoring all sentences
at once.

What sentences of several passages say together (second hops) is weighed at selection, see
:mod:`ragpack.ranking`.
"""

import math
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import ClassVar, cast

from ragpack import models
from ragpack.config import DEFAULT_ENCODER
from ragpack.digest import digest_fields, digest_file
from ragpack.errors import CompressionError, ConfigError
from ragpack.models.sentence_judge import LOG_ODDS, SHIPPED_WEIGHTS, SentenceJudge
from ragpack.protocols import Compressor, TextEncoder
from ragpack.ranking import ranked, relevance
from ragpack.sentences import SPLITTER, sentence_spans
from ragpack.types import Artifact, Fingerprint, Kind, Passage, Span, TextArtifact

__all__ = ["DEFAULT_TAU", "ExitMini"]

DEFAULT_TAU = 0.85
"""Keeps the answer of 95 % of 100 held-out SQuAD questions, in 28 % of the words."""


class ExitMini(Compressor):
    """Keeps the sentences that a small cross-encoder finds useful for the query.

    The stored artifact holds every sentence of a passage with its score, so that
    ``tau`` and a budget may change without computing anything again.

    Args:
        tau: least score after ranking of a sentence to keep where a request has no budget.
        weights: a file written by ``ragpack.train.exit_mini``; the shipped one unless given.
        encoder: of unit vectors, for the cosine; that of ``recomp-mini`` unless given.
        device: such as ``"cpu"``; a GPU where there is one.
        language: ISO 639 code for the sentence splitter.

    Raises:
        ConfigError: ``tau`` is not a finite number.
    """

    name: ClassVar[str] = "exit-mini"
    kind: ClassVar[Kind] = "text"
    query_aware: ClassVar[bool] = True

    def __init__(
        self,
        *,
        tau: float = DEFAULT_TAU,
        weights: str | Path | None = None,
        encoder: TextEncoder | None = None,
        device: str | None = None,
        language: str = "en",
    ) -> None:
        if not math.isfinite(tau):
            raise ConfigError(f"tau must be a finite number, not {tau}")
        self.tau = tau
        self.language = language
        self._weights = SHIPPED_WEIGHTS if weights is None else Path(weights)
        self._given = encoder
        self._device = device

    @cached_property
    def encoder(self) -> TextEncoder:
        """The encoder of sentences; loaded on first use."""
        return self._given or models.load_encoder(
            DEFAULT_ENCODER, self._device, adapter=models.SHIPPED_ADAPTER
        )

    @cached_property
    def judge(self) -> SentenceJudge:
        """The model; loaded on first use."""
        return SentenceJudge.load(self._weights, self.encoder, self._device)

    @cached_property
    def fingerprint(self) -> Fingerprint:
        """Both models, how they are joined, and splitter; ``tau`` changes nothing stored."""
        base = models.resolve(DEFAULT_ENCODER)
        return Fingerprint(
            method=self.name,
            model=base.name,
            weights=digest_fields(models.weights_digest(base.path), digest_file(self._weights)),
            tokenizer=models.tokenizer_digest(base.path),
            dtype="float32",
            params={
                "encoder": self.encoder.fingerprint.digest,
                "language": self.language,
                "log_odds": LOG_ODDS,
                "splitter": SPLITTER,
            },
        )

    def compress(self, passages: Sequence[Passage], query: str | None) -> list[Artifact]:
        """Every sentence of each passage with its score for ``query``.

        Raises:
            CompressionError: ``query`` is None.
        """
        if query is None:
            raise CompressionError("exit-mini reads the query: it cannot index without one")
        spans = [sentence_spans(passage.text, self.language) for passage in passages]
        texts = [
            [passage.text[start:end] for start, end in own]
            for passage, own in zip(passages, spans, strict=True)
        ]
        scores = self.judge.scores(query, [passage.title for passage in passages], texts)
        return [TextArtifact(own, tuple(found)) for own, found in zip(spans, scores, strict=True)]

    def relevance(
        self, query: str, passages: Sequence[Passage], artifacts: Sequence[Artifact]
    ) -> list[float]:
        """The best score of each passage, or of a sentence that mentions its title."""
        judged = [cast(TextArtifact, artifact) for artifact in artifacts]
        return relevance(passages, [one.spans for one in judged], [one.scores for one in judged])

    def select(
        self,
        query: str,
        passages: Sequence[Passage],
        artifacts: Sequence[Artifact],
        budget: int | None = None,
    ) -> list[Artifact]:
        """Sentences with their scores after ranking: all under a budget, else from tau up."""
        judged = [cast(TextArtifact, artifact) for artifact in artifacts]
        spans = [each.spans for each in judged]
        scores = ranked(query, passages, spans, [each.scores for each in judged])
        least = -math.inf if budget is not None else self.tau
        return [_above(own, row, least) for own, row in zip(spans, scores, strict=True)]


def _above(spans: Sequence[Span], scores: Sequence[float], least: float) -> TextArtifact:
    """The spans that score at least ``least``."""
    kept = [place for place, score in enumerate(scores) if score >= least]
    return TextArtifact(tuple(spans[at] for at in kept), tuple(scores[at] for at in kept))
