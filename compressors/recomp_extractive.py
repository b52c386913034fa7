"""RECOMP's extractive compressor: the sentences nearest to the query in an encoder's space.

Source: Xu, Shi, Choi, "RECOMP: Improving Retrieval-Augmented LMs with Compression and Selective
Augmentation", ICLR 2024, section 3.1; scoring as in ``run_extractive_compressor.py`` of the
authors' repository (mean-pooled encoder, dot product). Sentences do not depend on the query, so
their vectors are stored and a request embeds the query alone. The paper orders sentences by the dot
product and nothing else, which is ``ranking=False``; here :mod:`ragpack.ranking` also weighs what
only the request as a whole shows.
"""

import math
from collections.abc import Sequence
from functools import cached_property, lru_cache
from itertools import pairwise
from typing import Any, ClassVar, cast

import numpy as np
from numpy.typing import NDArray

from ragpack import models
from ragpack.config import DEFAULT_ENCODER
from ragpack.errors import ConfigError
from ragpack.protocols import Compressor, TextEncoder
from ragpack.ranking import ranked, relevance
from ragpack.sentences import SPLITTER, sentence_spans
from ragpack.text import model_text
from ragpack.types import Artifact, EmbedsArtifact, Fingerprint, Kind, Passage, Span, TextArtifact

__all__ = ["DEFAULT_TOP_N", "RecompExtractive"]

DEFAULT_TOP_N = 12
"""Sentences over all passages where neither a rule nor a budget is set."""


class RecompExtractive(Compressor):
    """Keeps the sentences nearest to the query in an encoder's space.

    Sentences of all passages compete with one another and are kept in document order. Where
    neither ``top_n`` nor ``threshold`` is set, a request with a budget ranks every sentence and
    leaves the cut to the budget; one without keeps the best :data:`DEFAULT_TOP_N`.

    Args:
        encoder: a name for :func:`ragpack.models.load_encoder`, or an encoder; the paper's are
            ``fangyuan/{nq,tqa,hotpotqa}_extractive_compressor``.
        title: prepend the passage's title to each sentence before encoding.
        ranking: order the sentences by :func:`ragpack.ranking.ranked`; False for the paper's plain
            dot product.
        top_n: most sentences to keep over all passages.
        threshold: least dot product of a sentence to keep, before any ranking; combines with
            ``top_n``.
        language: ISO 639 code for the sentence splitter.

    Raises:
        ConfigError: ``top_n`` below 1, or a ``threshold`` that is not finite.
    """

    name: ClassVar[str] = "recomp-extractive"
    kind: ClassVar[Kind] = "embeds"
    query_aware: ClassVar[bool] = False

    def __init__(
        self,
        encoder: str | TextEncoder = DEFAULT_ENCODER,
        *,
        title: bool = True,
        ranking: bool = True,
        top_n: int | None = None,
        threshold: float | None = None,
        language: str = "en",
    ) -> None:
        if top_n is not None and top_n < 1:
            raise ConfigError(f"top_n must be at least 1 sentence, not {top_n}")
        if threshold is not None and not math.isfinite(threshold):
            raise ConfigError(f"threshold must be a finite number, not {threshold}")
        self.title = title
        self.ranking = ranking
        self.top_n = top_n
        self.threshold = threshold
        self.language = language
        self._encoder = encoder
        self._vector = lru_cache(maxsize=16)(self._encode)  # relevance and choice ask for the same

    @cached_property
    def encoder(self) -> TextEncoder:
        """The encoder; loaded on first use."""
        chosen = self._encoder
        return models.load_encoder(chosen) if isinstance(chosen, str) else chosen

    @cached_property
    def fingerprint(self) -> Fingerprint:
        """Encoder, splitter and title rule; selection settings change nothing that is stored."""
        made = self.encoder.fingerprint
        return Fingerprint(
            method=self.name,
            model=made.model,
            dtype="float16",
            params={
                "encoder": made.digest,
                "language": self.language,
                "splitter": SPLITTER,
                "title": self.title,
            },
        )

    def compress(self, passages: Sequence[Passage], query: str | None) -> list[Artifact]:
        """The vectors of each passage's sentences: ``vectors`` [sentences, d], float16.

        Half precision halves the bytes; dot products of unit vectors move by less than 0.001.
        """
        spans = [sentence_spans(passage.text, self.language) for passage in passages]
        texts = [
            self._sentence(passage, span)
            for passage, own in zip(passages, spans, strict=True)
            for span in own
        ]
        vectors = self.encoder.encode(texts).astype(np.float16)
        ends = [0]
        for own in spans:
            ends.append(ends[-1] + len(own))
        return [
            EmbedsArtifact(vectors[start:end], own)
            for (start, end), own in zip(pairwise(ends), spans, strict=True)
        ]

    @property
    def judges(self) -> bool:
        """By its sentences' dot products with the query, which needs no query when storing."""
        return True

    def relevance(
        self, query: str, passages: Sequence[Passage], artifacts: Sequence[Artifact]
    ) -> list[float]:
        """The largest dot product of each passage, or of a sentence that mentions its title.

        Dot products of unit vectors are cosines. Without ``ranking`` mentions do not count.
        """
        rows = [row.tolist() for row in self._products(query, artifacts)]
        if self.ranking:
            return relevance(passages, _spans(artifacts), rows)
        return [max(row, default=-math.inf) for row in rows]

    def select(
        self,
        query: str,
        passages: Sequence[Passage],
        artifacts: Sequence[Artifact],
        budget: int | None = None,
    ) -> list[Artifact]:
        """The chosen sentences of each passage, in document order, with what ordered them."""
        products = self._products(query, artifacts)
        if not products:
            return []
        spans = _spans(artifacts)
        scores = products
        if self.ranking:
            rows = ranked(query, passages, spans, [row.tolist() for row in products])
            scores = [np.array(row) for row in rows]
        kept = self._choose(np.concatenate(products), np.concatenate(scores), budget)
        ends = np.cumsum([len(row) for row in scores])[:-1]
        return [_pick(*parts) for parts in zip(spans, scores, np.split(kept, ends), strict=True)]

    def _products(self, query: str, artifacts: Sequence[Artifact]) -> list[NDArray[np.float32]]:
        """The dot products [sentences] of each passage's sentences with the query."""
        if not artifacts:
            return []
        asked = self._vector(query)
        return [_dot(cast(EmbedsArtifact, artifact).vectors, asked) for artifact in artifacts]

    def _encode(self, query: str) -> NDArray[np.float32]:
        """The vector [d] of the query."""
        vector: NDArray[np.float32] = self.encoder.encode([model_text(query)])[0]
        return vector

    def _choose(
        self, products: NDArray[np.float32], scores: NDArray[Any], budget: int | None
    ) -> NDArray[np.bool_]:
        """Which sentences to keep, of all passages [n]; ties go to the first."""
        top_n = self.top_n
        if top_n is None and self.threshold is None and budget is None:
            top_n = DEFAULT_TOP_N
        least = -np.inf if self.threshold is None else self.threshold
        kept = products.astype(np.float64) >= least  # a threshold may be beyond float32
        if top_n is not None:
            order = np.argsort(np.where(kept, -scores, np.inf), kind="stable")
            kept[order[top_n:]] = False
        return kept

    def _sentence(self, passage: Passage, span: Span) -> str:
        """What the encoder reads for one sentence."""
        sentence = passage.text[slice(*span)]
        return model_text(
            f"{passage.title} {sentence}" if self.title and passage.title else sentence
        )


def _spans(artifacts: Sequence[Artifact]) -> list[tuple[Span, ...]]:
    return [cast(EmbedsArtifact, artifact).spans for artifact in artifacts]


def _dot(vectors: NDArray[Any], query: NDArray[np.float32]) -> NDArray[np.float32]:
    """Dot products [n] of ``vectors`` [n, d] with ``query`` [d].

    Row by row: a matrix product may round equal rows differently, and break their tie at random.
    """
    products: NDArray[np.float32] = (vectors.astype(np.float32) * query).sum(axis=1)
    return products


def _pick(spans: Sequence[Span], scores: NDArray[Any], kept: NDArray[np.bool_]) -> TextArtifact:
    """The spans and scores under the mask ``kept`` [n]."""
    chosen = np.flatnonzero(kept).tolist()
    return TextArtifact(
        spans=tuple(spans[index] for index in chosen),
        scores=tuple(float(scores[index]) for index in chosen),
    )
