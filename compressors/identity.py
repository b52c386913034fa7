"""The passage itself: the baseline of every table."""

from collections.abc import Sequence
from typing import ClassVar

from ragpack.protocols import Compressor
from ragpack.types import Artifact, Fingerprint, Kind, Passage, TextArtifact

__all__ = ["Identity"]


class Identity(Compressor):
    """Keeps every passage whole; under a budget, as many as fit in the order given."""

    name: ClassVar[str] = "identity"
    kind: ClassVar[Kind] = "text"
    query_aware: ClassVar[bool] = False
    cached: ClassVar[bool] = False

    @property
    def fingerprint(self) -> Fingerprint:
        """The method's name says it all."""
        return Fingerprint(self.name)

    def compress(self, passages: Sequence[Passage], query: str | None) -> list[Artifact]:
        """One span over the whole text; none where there is no text."""
        return [
            TextArtifact(spans=((0, len(passage.text)),) if passage.text else ())
            for passage in passages
        ]
