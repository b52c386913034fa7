"""One request's view of a method: its own selection settings, over shared models and artifacts."""

import copy
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from ragpack.errors import ConfigError
from ragpack.protocols import Compressor
from ragpack.types import Artifact, Fingerprint, Passage, TextArtifact

__all__ = ["TUNABLE", "Weighing", "in_force", "tuned"]

TUNABLE = ("tau", "top_n", "threshold", "rate", "share")
"""Settings that act in ``select`` alone, so requests may differ in them and share all artifacts."""


def in_force(compressor: Compressor) -> dict[str, Any]:
    """The selection settings of ``compressor``, by name."""
    method = compressor.inner if isinstance(compressor, Weighing) else compressor
    return {name: getattr(method, name) for name in TUNABLE if hasattr(method, name)}


def tuned(compressor: Compressor, settings: Mapping[str, Any]) -> Compressor:
    """``compressor`` with other selection settings; models and fingerprint stay shared.

    Raises:
        ConfigError: it has no such setting.
    """
    have = in_force(compressor)
    if unknown := sorted(set(settings) - set(have)):
        raise ConfigError(
            f"{compressor.name} has no setting {', '.join(unknown)}; it has: "
            f"{', '.join(have) or 'none'}"
        )
    changed = copy.copy(compressor)
    for name, value in settings.items():
        setattr(changed, name, value)
    return changed


class Weighing(Compressor):
    """A method that also remembers how it weighed every piece, kept or not; for one request."""

    def __init__(self, inner: Compressor) -> None:
        self.inner = inner
        self._free = tuned(inner, {n: None for n in in_force(inner) if n != "tau"})
        self._weighed: dict[str, TextArtifact] = {}
        for name in ("name", "kind", "query_aware", "cached", "scope"):
            setattr(self, name, getattr(inner, name))

    @property
    def fingerprint(self) -> Fingerprint:
        """The method's own."""
        return self.inner.fingerprint

    def compress(self, passages: Sequence[Passage], query: str | None) -> list[Artifact]:
        """What the method computes."""
        return self.inner.compress(passages, query)

    @property
    def judges(self) -> bool:
        """Whether the method judges passages."""
        return self.inner.judges

    def relevance(
        self, query: str, passages: Sequence[Passage], artifacts: Sequence[Artifact]
    ) -> list[float]:
        """The method's judgement of each passage."""
        return self.inner.relevance(query, passages, artifacts)

    def select(
        self,
        query: str,
        passages: Sequence[Passage],
        artifacts: Sequence[Artifact],
        budget: int | None = None,
    ) -> list[Artifact]:
        """What the method selects; :meth:`pieces` then has all that it chose from."""
        everything = self._free.select(query, passages, artifacts, sys.maxsize)
        for passage, artifact in zip(passages, everything, strict=True):
            if isinstance(artifact, TextArtifact):
                self._weighed[passage.digest] = artifact
        return self.inner.select(query, passages, artifacts, budget)

    def pieces(self, passage: Passage) -> TextArtifact:
        """Every span of ``passage`` with its score; nothing where the method failed on it."""
        return self._weighed.get(passage.digest, TextArtifact())
