"""How much of what an exact search finds a vector index finds."""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ragpack.cache import ArtifactCache
from ragpack.errors import CacheUnavailable, InputError
from ragpack.types import EmbedsArtifact, Passage

__all__ = ["Recall", "SearchableIndex", "measure_recall"]

_PAGE = 4096


class SearchableIndex(Protocol):
    """What measuring needs of a vector index."""

    def __len__(self) -> int:
        """Different texts."""
        ...

    def texts(self) -> Iterator[Passage]:
        """A passage of each text."""
        ...

    def search_vectors(self, vectors: NDArray[Any], k: int) -> list[list[Passage]]:
        """The ``k`` nearest passages for each of the ``vectors`` [n, d]."""
        ...


@dataclass(frozen=True, slots=True)
class Recall:
    """``recall`` is the mean share of the ``k`` nearest passages found, over ``queries``."""

    k: int
    queries: int
    recall: float

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {"k": self.k, "queries": self.queries, "recall": round(self.recall, 4)}


def measure_recall(
    index: SearchableIndex, vectors: ArtifactCache, k: int, *, queries: int = 256, seed: int = 0
) -> Recall:
    """Search for passages like some of the index's own, and compare with every vector there is.

    A passage itself, which is the nearest to itself, does not count. The exact vectors are read
    from the store, page by page.

    Args:
        index: to be measured.
        vectors: the cache that holds its exact vectors.
        k: passages to find.
        queries: how many passages to draw.
        seed: of the draw.

    Raises:
        InputError: ``k`` is below 1, or the index has not more than ``k`` passages.
        CacheUnavailable: a vector cannot be read.
    """
    if not 0 < k < len(index):
        raise InputError(f"recall needs k from 1 to {len(index) - 1} in this index, not {k}")
    drawn = set(random.Random(seed).sample(range(len(index)), min(queries, len(index))))  # noqa: S311
    asking = [passage for row, passage in enumerate(index.texts()) if row in drawn]
    asked = _unit(_vectors(vectors, asking))
    exact = _nearest(asked, vectors, index.texts(), k + 1)
    found = [[passage.digest for passage in row] for row in index.search_vectors(asked, k + 1)]
    shares = [
        len(_others(ours, own.digest, k) & _others(true, own.digest, k)) / k
        for own, ours, true in zip(asking, found, exact, strict=True)
    ]
    return Recall(k, len(asking), float(np.mean(shares)))


def _nearest(
    asked: NDArray[np.float32], cache: ArtifactCache, passages: Iterator[Passage], k: int
) -> list[list[str]]:
    """Digests of the ``k`` passages nearest to each of ``asked`` [n, d], by comparing with all."""
    scores = np.empty((len(asked), 0), np.float32)
    names = np.empty((len(asked), 0), object)
    while page := list(islice(passages, _PAGE)):
        own = np.array([passage.digest for passage in page], object)
        scores = np.hstack([scores, asked @ _unit(_vectors(cache, page)).T])
        names = np.hstack([names, np.broadcast_to(own, (len(asked), len(own)))])
        best = np.argsort(-scores, axis=1, kind="stable")[:, :k]
        scores, names = (np.take_along_axis(part, best, 1) for part in (scores, names))
    return [list(row) for row in names]


def _vectors(cache: ArtifactCache, passages: Sequence[Passage]) -> NDArray[np.float32]:
    """The passages' vectors [n, d]."""
    rows = []
    for passage, look in zip(passages, cache.fetch(passages, None), strict=True):
        if not isinstance(look.artifact, EmbedsArtifact):
            raise CacheUnavailable(f"no vector of passage {passage.id!r}: {look.error}")
        rows.append(look.artifact.vectors[0])
    return np.array(rows, np.float32)


def _unit(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit: NDArray[np.float32] = vectors / np.maximum(lengths, np.finfo(np.float32).tiny)
    return unit


def _others(digests: Sequence[str], own: str, k: int) -> set[str]:
    """The first ``k`` that are not the query itself."""
    return set([digest for digest in digests if digest != own][:k])
