"""What a KV method asks of the hand-off, carried by its artifacts."""

from __future__ import annotations

from dataclasses import dataclass

from ragpack.types import KVArtifact

__all__ = ["PlacedKV", "Recipe"]


@dataclass(frozen=True, slots=True)
class Recipe:
    """How one request composes its passages.

    ``weights``, ``prefix_ids`` and ``anchor_ids`` say how the KV was made. ``recompute``
    is the fraction of the passages' tokens that are encoded again, or with a whole number above 1
    the tokens of each passage; ``selection`` names the rule that picks them.
    """

    weights: str
    prefix_ids: tuple[int, ...]
    anchor_ids: tuple[int, ...]
    parallel: bool
    temperature: float = 1.0
    scale: float = 1.0
    recompute: float = 0.0
    selection: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class PlacedKV(KVArtifact):
    """A passage's KV with the recipe of the request that selected it."""

    recipe: Recipe
