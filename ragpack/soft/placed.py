"""A passage's chunks as one request uses them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ragpack.types import EmbedsArtifact

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["PlacedChunks", "SoftRecipe"]


@dataclass(frozen=True, slots=True)
class SoftRecipe:
    """Whose soft tokens these are: named in the packed context, checked by the hand-off.

    ``projector``, ``weights`` and ``tokenizer`` are digests of the projector's checkpoint and of
    the decoder that it was trained for; ``decoder`` is its name and ``width`` its hidden size.
    """

    projector: str
    decoder: str
    weights: str
    tokenizer: str
    width: int


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class PlacedChunks(EmbedsArtifact):
    """Chunks, of which some are spelled out and the others stand as one soft token each.

    Shapes: ``expanded`` [n]; ``rows`` [n - expanded, h], the soft tokens of the others in order.
    """

    expanded: NDArray[np.bool_]
    rows: NDArray[np.float32]
    recipe: SoftRecipe

    @property
    def tokens(self) -> int:
        """Rows that the passage takes in the decoder's prompt, soft and spelled out together."""
        if self.token_ids is None:
            return len(self.rows)
        spelled_out = self.token_ids[self.expanded]
        return len(self.rows) + int((spelled_out >= 0).sum())
