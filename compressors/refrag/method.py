"""REFRAG: compress a passage into chunk vectors, sense which chunks matter, spell those out.

Source: Lin, Ghosh, Low, Shrivastava, Mohan, "REFRAG: Rethinking RAG based Decoding", 2025
(arXiv 2509.01092). No code of the authors is public. Where this differs: a chunk vector has a half
in the decoder's own space (:class:`ragpack.soft.encode.ChunkEncoder`), so that a frozen decoder can
be served; policies read the query; the question stands behind the context, as chat templates have
it. See ``docs/refrag.md``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cached_property
from itertools import accumulate, pairwise
from pathlib import Path
from typing import ClassVar, cast

import numpy as np
import torch
from numpy.typing import NDArray

from ragpack.compressors.refrag.parts import Parts
from ragpack.errors import CompressionError, ConfigError
from ragpack.kv.tensors import to_array, to_tensor
from ragpack.models.prompt import SEPARATOR
from ragpack.protocols import Compressor
from ragpack.soft.chunks import Chunks, cut, sizes
from ragpack.soft.learned import Learned
from ragpack.soft.placed import PlacedChunks
from ragpack.soft.sense import Policy, Scene, policy_named
from ragpack.soft.spend import affordable, best
from ragpack.text import model_text
from ragpack.types import Artifact, EmbedsArtifact, Fingerprint, Kind, Passage

__all__ = ["DEFAULT_SHARE", "Refrag"]

DEFAULT_SHARE = 0.25
"""Share of the chunks to spell out where a request has no budget."""

_DTYPES = {"f16": torch.float16, "i8": torch.int8}


class Refrag(Compressor):
    """Soft tokens for chunks of k decoder tokens, the telling chunks spelled out in place.

    What is stored, vectors before projection with the chunks' tokens, does not depend on the
    projector, the policy or the query. A budget counts rows of the decoder's prompt: passages are
    taken whole, the first ones first, one row a chunk, and what is left is spent on spelling out.

    Args:
        checkpoint: folder written by ``ragpack train refrag``; the shipped one unless given.
        k: decoder tokens of a chunk; the checkpoint's own unless given.
        sense: policy that picks the chunks to spell out: ``"none"``, ``"all"``, ``"random"``,
            ``"query-cosine"``, ``"ppl-desc"``, ``"ppl-asc"``, ``"reconstruction-loss"`` or
            ``"learned"``.
        share: most chunks to spell out, 0 to 1; :data:`DEFAULT_SHARE` unless given, and whatever
            fits where a request has a budget.
        seed: of the policy ``random``.
        dtype: of the stored vectors: ``"i8"`` (one scale a vector) or ``"f16"``.
        decoder: the decoder's name or path; the checkpoint's own name unless given.
        device: where models run; a GPU where there is one.

    Raises:
        ConfigError: a setting is out of its range.
    """

    name: ClassVar[str] = "refrag"
    kind: ClassVar[Kind] = "embeds"
    query_aware: ClassVar[bool] = False

    def __init__(
        self,
        checkpoint: str | Path | None = None,
        *,
        k: int | None = None,
        sense: str = "query-cosine",
        share: float | None = None,
        seed: int = 0,
        dtype: str = "i8",
        decoder: str | None = None,
        device: str | None = None,
    ) -> None:
        if k is not None and k < 1:
            raise ConfigError(f"k must be at least 1 token, not {k}")
        if share is not None and not 0 <= share <= 1:
            raise ConfigError(f"share must be 0 to 1, not {share}")
        if dtype not in _DTYPES:
            raise ConfigError(f"dtype must be one of {', '.join(_DTYPES)}, not {dtype!r}")
        self._policy = None if sense == "learned" else policy_named(sense, seed)
        self._k = k
        self.share = (1.0 if sense == "all" else None) if share is None else share
        self.dtype = dtype
        self.parts = Parts(checkpoint, decoder, device)

    @property
    def k(self) -> int:
        """Decoder tokens of a chunk."""
        return self._k or self.parts.checkpoint.config.chunk

    @cached_property
    def policy(self) -> Policy:
        """What picks the chunks to spell out."""
        return self._policy or Learned(self.parts.checkpoint.policy)

    @cached_property
    def fingerprint(self) -> Fingerprint:
        """Encoder, chunk size, tokenizer, dtype and losses; the projector only if they need it."""
        made, losses = self.parts.checkpoint.config, self.policy.losses
        return Fingerprint(
            method=self.name,
            model=made.encoder,
            weights=made.decoder_weights,
            tokenizer=self.parts.tokenizer_digest,
            dtype=self.dtype,
            params={
                "k": self.k,
                "losses": losses,
                "projector": self.parts.digest if losses == "reconstruction" else "",
                "separator": SEPARATOR,
                "vectors": self.parts.vectors_digest,
            },
        )

    def compress(self, passages: Sequence[Passage], query: str | None) -> list[Artifact]:
        """Chunk vectors [n, d], as bytes with a scale for ``i8``, and the chunks' tokens [n, k].

        Raises:
            CompressionError: a passage is too long for a decoder whose losses are asked for.
        """
        chunks = [self._chunks(passage.full_text) for passage in passages]
        vectors = torch.from_numpy(self.parts.encoder.encode(chunks))
        return [
            EmbedsArtifact(
                to_array(own, _DTYPES[self.dtype]),
                token_ids=each.token_ids,
                losses=self._losses(passage, each, own),
            )
            for passage, each, own in zip(passages, chunks, _split(vectors, chunks), strict=True)
        ]

    def select(
        self,
        query: str,
        passages: Sequence[Passage],
        artifacts: Sequence[Artifact],
        budget: int | None = None,
    ) -> list[Artifact]:
        """The chunks of each passage with those to spell out marked and the others projected.

        Raises:
            CompressionError: a stored vector is not finite.
        """
        stored = [cast(EmbedsArtifact, artifact) for artifact in artifacts]
        counts = [len(each.vectors) for each in stored]
        kept = affordable(counts, budget)
        stored = [each if keep else _none_of(each) for each, keep in zip(stored, kept, strict=True)]
        if not stored:
            return []
        vectors = _vectors(stored)
        if not np.isfinite(vectors).all():
            raise CompressionError("a stored chunk vector is not finite: index the passages again")
        token_ids = np.concatenate([_tokens(each) for each in stored])
        rows = None if budget is None else budget - len(vectors)
        expanded = best(
            self._scores(query, vectors, stored), sizes(token_ids), self._share(budget), rows
        )
        return self._placed(stored, vectors, expanded)

    def _share(self, budget: int | None) -> float:
        unlimited = 1.0 if budget is not None else DEFAULT_SHARE
        return unlimited if self.share is None else self.share

    def _scores(
        self, query: str, vectors: NDArray[np.float32], stored: Sequence[EmbedsArtifact]
    ) -> NDArray[np.float32]:
        policy = self.policy
        asked = None
        if policy.reads_query:
            asked = self.parts.encoder.encode_one(self._chunks(query))
        losses = [each.losses for each in stored if each.losses is not None]
        return policy.scores(Scene(vectors, asked, np.concatenate(losses) if losses else None))

    def _placed(
        self,
        stored: Sequence[EmbedsArtifact],
        vectors: NDArray[np.float32],
        expanded: NDArray[np.bool_],
    ) -> list[Artifact]:
        """Every passage's part of one batch of soft tokens."""
        with torch.inference_mode():
            soft = self.parts.checkpoint.projector(torch.from_numpy(vectors[~expanded])).numpy()
        recipe = self.parts.checkpoint.recipe(self.parts.digest)
        placed: list[Artifact] = []
        ends = accumulate((len(each.vectors) for each in stored), initial=0)
        for each, (start, end) in zip(stored, pairwise(ends), strict=True):
            own = expanded[start:end]
            taken, soft = np.split(soft, [int((~own).sum())])
            placed.append(
                PlacedChunks(
                    each.vectors,
                    token_ids=each.token_ids,
                    losses=each.losses,
                    expanded=own,
                    rows=taken,
                    recipe=recipe,
                )
            )
        return placed

    def _chunks(self, text: str) -> Chunks:
        text = model_text(text) + SEPARATOR if text else ""
        return cut(text, self.parts.prompts.tokens_before_text(text) if text else [], self.k)

    def _losses(
        self, passage: Passage, chunks: Chunks, vectors: torch.Tensor
    ) -> NDArray[np.float32] | None:
        """What the policy wants stored beside each chunk."""
        if self.policy.losses == "none":
            return None
        reader = self.parts.reader
        if self.policy.losses == "reconstruction":
            with torch.inference_mode():
                rows = self.parts.checkpoint.projector(vectors).to(reader.model.device)
            return reader.reconstructions(chunks.token_ids, rows)
        window = getattr(reader.model.config, "max_position_embeddings", math.inf)
        tokens = int(sizes(chunks.token_ids).sum())
        if tokens > window - reader.prefix_tokens:
            raise CompressionError(
                f"passage {passage.id!r} has {tokens} tokens, too many for the decoder's window of "
                f"{window}: split it, or sense without perplexities"
            )
        return reader.perplexities(chunks.token_ids)


def _split(vectors: torch.Tensor, chunks: Sequence[Chunks]) -> list[torch.Tensor]:
    return list(torch.split(vectors, [len(each.texts) for each in chunks]))


def _tokens(artifact: EmbedsArtifact) -> NDArray[np.int32]:
    if artifact.token_ids is None:
        raise CompressionError("a stored artifact of refrag has no tokens: index it again")
    return artifact.token_ids


def _vectors(stored: Sequence[EmbedsArtifact]) -> NDArray[np.float32]:
    """The chunk vectors of all passages [n, d] in float32."""
    parts = [
        to_tensor(each.vectors, "i8" if each.vectors.dtype == np.int8 else "f16") for each in stored
    ]
    vectors: NDArray[np.float32] = torch.cat(parts).float().numpy()
    return vectors


def _none_of(artifact: EmbedsArtifact) -> EmbedsArtifact:
    """The artifact without its chunks: the budget has no room for them."""
    losses = None if artifact.losses is None else artifact.losses[:0]
    return EmbedsArtifact(artifact.vectors[:0], token_ids=_tokens(artifact)[:0], losses=losses)
