"""Stored artifacts that were read lately, decoded: what a warm request needs first."""

import threading
from collections.abc import Mapping, Sequence

from cachetools import TTLCache

from ragpack.keys import CacheKey
from ragpack.types import Artifact, EmbedsArtifact, TextArtifact

__all__ = ["RecentArtifacts"]

_SPAN_BYTES = 128
"""Two integers in a tuple."""


class RecentArtifacts:
    """The least recently used go first; safe in several threads.

    Keys hold the namespace, so tenants share the room and nothing else. What another process has
    deleted from the store is gone here after ``seconds``.

    Args:
        max_bytes: of all artifacts together; 0 keeps none.
        seconds: how long an artifact is kept until it is read from the store again.
    """

    def __init__(self, max_bytes: int, seconds: float) -> None:
        self._kept: TTLCache[CacheKey, Artifact] = TTLCache(max_bytes, seconds, getsizeof=_size)
        self._lock = threading.Lock()

    def get_many(self, keys: Sequence[CacheKey]) -> list[Artifact | None]:
        """The artifacts, in order; None for what is not there."""
        with self._lock:
            return [self._kept.get(key) for key in keys]

    def put_many(self, read: Mapping[CacheKey, Artifact]) -> None:
        """Keep what fits."""
        with self._lock:
            for key, artifact in read.items():
                if _size(artifact) <= self._kept.maxsize:
                    self._kept[key] = artifact

    def forget(self, keys: Sequence[CacheKey]) -> None:
        """Remove the keys that are there."""
        with self._lock:
            for key in keys:
                self._kept.pop(key, None)


def _size(artifact: Artifact) -> int:
    """Bytes of an artifact, near enough; one of text counts by its spans and words."""
    match artifact:
        case EmbedsArtifact(vectors, spans, token_ids, losses):
            arrays = [array for array in (vectors, token_ids, losses) if array is not None]
            return sum(array.nbytes for array in arrays) + _SPAN_BYTES * len(spans)
        case TextArtifact(spans, _, text):
            return _SPAN_BYTES * (1 + len(spans)) + len(text or "")
    return artifact.keys.nbytes + artifact.values.nbytes
