"""The ports: what ragpack asks of a compressor, a store, a retriever, an encoder, a decoder.

An adapter implements one of these and registers itself under an entry point; nothing else of
ragpack needs to know it.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal, Protocol, runtime_checkable

from ragpack.report import PackedContext
from ragpack.types import Answer, Artifact, Fingerprint, Kind, Passage

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = [
    "Buffer",
    "CacheStore",
    "Compressor",
    "Decoder",
    "Packer",
    "Retriever",
    "StoreStats",
    "TextEncoder",
    "TokenCounter",
]

Buffer = bytes | bytearray | memoryview


class Compressor(ABC):
    """A method: what it stores for a passage, and what one request takes of it.

    ``compress`` is the dear part; its artifacts are kept in the store under ``fingerprint``.
    ``select`` is the cheap part, done for every request and never stored.

    ``kind`` is that of the artifacts: text, vectors or KV. ``query_aware`` says whether
    ``compress`` reads the query: if it does, the query is part of the key. ``cached`` is False for
    methods so cheap that storing them would cost more. A method with the scope ``set`` reads all
    passages of a request as one: it gets a single passage made of them, in order.
    """

    name: ClassVar[str]
    kind: ClassVar[Kind]
    query_aware: ClassVar[bool]
    cached: ClassVar[bool] = True
    scope: Literal["passage", "set"] = "passage"

    @property
    @abstractmethod
    def fingerprint(self) -> Fingerprint:
        """What the stored artifacts depend on beside the passage and, if query-aware, the query."""

    @abstractmethod
    def compress(self, passages: Sequence[Passage], query: str | None) -> list[Artifact]:
        """One artifact for each passage, in order.

        Each depends on its own passage alone, never on its neighbours in the call.

        Args:
            passages: any number of them, none of which is changed.
            query: the question; None when indexing with a method that is not query-aware.

        Raises:
            CompressionError: a passage cannot be compressed; the message names it.
        """

    def select(
        self,
        query: str,
        passages: Sequence[Passage],
        artifacts: Sequence[Artifact],
        budget: int | None = None,
    ) -> list[Artifact]:
        """What this request takes of each artifact, in order; all of it unless overridden.

        A text method returns spans and scores. With a ``budget`` (tokens) the engine keeps the
        best spans that fit, so a method without a rule of its own returns every span then.
        """
        return list(artifacts)

    @property
    def judges(self) -> bool:
        """Whether :meth:`relevance` tells passages apart; else the retriever's scores have to."""
        return self.query_aware and self.scope == "passage"

    def relevance(
        self, query: str, passages: Sequence[Passage], artifacts: Sequence[Artifact]
    ) -> list[float]:
        """How much each passage has to do with the query, in order; called only if it judges.

        On the method's own scale, which does not depend on the request, so that a threshold means
        the same in each. Unless overridden it is the best score in the stored artifact; -inf where
        there is none.
        """
        return [max(getattr(artifact, "scores", ()), default=-math.inf) for artifact in artifacts]


@dataclass(frozen=True, slots=True)
class StoreStats:
    """What a store holds: entries (artifacts), their bytes, its cap, and what it pushed out."""

    entries: int
    bytes: int
    max_bytes: int | None = None
    evictions: int = 0


@runtime_checkable
class CacheStore(Protocol):
    """Bytes under keys. A store knows no tensors and checks no content.

    Keys are the strings of :class:`ragpack.keys.CacheKey`. Every method may be called from several
    threads, and raises :class:`~ragpack.errors.CacheUnavailable` where the store does not answer.
    """

    def get_many(self, keys: Sequence[str]) -> list[Buffer | None]:
        """The values, in order; None for what is not there (or is there only in part)."""
        ...

    def put_many(self, entries: Mapping[str, Buffer], ttl: float | None = None) -> None:
        """Store every entry, replacing what was there; ``ttl`` in seconds."""
        ...

    def contains_many(self, keys: Sequence[str]) -> list[bool]:
        """Whether each key is there, without reading its value."""
        ...

    def delete_many(self, keys: Sequence[str]) -> None:
        """Remove the keys that are there."""
        ...

    def scan(self, namespace: str) -> Iterator[str]:
        """Every key of a namespace, in no order."""
        ...

    def drop(self, namespace: str) -> int:
        """Remove a namespace; returns how many entries went."""
        ...

    def stats(self) -> StoreStats:
        """What the store holds, all namespaces together."""
        ...

    def close(self) -> None:
        """Release files and connections; calling it twice is harmless."""
        ...


class TextEncoder(Protocol):
    """Turns texts into vectors."""

    @property
    def dim(self) -> int:
        """Width d of a vector."""
        ...

    @property
    def fingerprint(self) -> Fingerprint:
        """Model, weights, tokenizer, pooling: what the vectors depend on."""
        ...

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Vectors [len(texts), d], in order, each independent of the others in the call."""
        ...


@runtime_checkable
class Retriever(Protocol):
    """Finds passages for a query."""

    def search(self, query: str, k: int) -> list[Passage]:
        """The ``k`` best passages (fewer if there are not so many), best first, with scores."""
        ...


@runtime_checkable
class Packer(Protocol):
    """Packs passages for a query; :class:`ragpack.ContextPacker` is the one ragpack ships."""

    def pack(
        self, query: str, passages: Sequence[Passage], *, budget: int | None = None
    ) -> PackedContext:
        """The packed context, with segments in passage order."""
        ...


class TokenCounter(Protocol):
    """Counts tokens exactly as a decoder will see them, without special tokens."""

    def count(self, texts: Sequence[str]) -> list[int]:
        """Tokens of each text."""
        ...


@runtime_checkable
class Decoder(Protocol):
    """Answers a query from a packed context, or from a context given as plain text."""

    def generate(
        self, context: PackedContext | str, query: str, *, max_new_tokens: int = 128
    ) -> Answer:
        """The whole answer with its times and token counts."""
        ...

    def stream(
        self, context: PackedContext | str, query: str, *, max_new_tokens: int = 128
    ) -> Generator[str, None, Answer]:
        """The answer in pieces, as they come; the generator returns the whole of it."""
        ...

    def score(self, context: PackedContext | str, query: str, continuation: str) -> list[float]:
        """Log-probability of each token of ``continuation`` as the answer's beginning."""
        ...
