"""One vector per passage, as an artifact, so that the store keeps what a vector index holds."""

from collections.abc import Sequence
from functools import cached_property
from typing import ClassVar

from ragpack.protocols import Compressor, TextEncoder
from ragpack.text import model_text
from ragpack.types import Artifact, EmbedsArtifact, Fingerprint, Kind, Passage

__all__ = ["DenseEncoder"]


class DenseEncoder(Compressor):
    """An encoder in a compressor's shape: ``vectors`` [1, d] of title and text, float32.

    No request selects from it; it is here so that a passage's vector is cached like any artifact.
    """

    name: ClassVar[str] = "dense"
    kind: ClassVar[Kind] = "embeds"
    query_aware: ClassVar[bool] = False

    def __init__(self, encoder: TextEncoder) -> None:
        self.encoder = encoder

    @cached_property
    def fingerprint(self) -> Fingerprint:
        """The encoder's, under this method's name."""
        made = self.encoder.fingerprint
        return Fingerprint(self.name, made.model, dtype="float32", params={"encoder": made.digest})

    def compress(self, passages: Sequence[Passage], query: str | None) -> list[Artifact]:
        """The vector of each passage's full text, as the encoder gives it."""
        texts = [model_text(passage.full_text) for passage in passages]
        return [EmbedsArtifact(vector[None, :]) for vector in self.encoder.encode(texts)]
