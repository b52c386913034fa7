"""KV reuse: passages computed once and rotated to their places, with a dial back to exactness.

Every passage's keys are rotated to the place that it has in the plain prompt, and a chosen fraction
of its tokens is encoded again there, in one forward together with the query. Recompute 0 is block
reuse (Block-Attention, PCW), ``first`` is EPIC, ``deviation`` is CacheBlend, and 1 is the plain
prompt to within rounding. See ``ragpack.kv.recompute`` for the rules.
"""

from __future__ import annotations

import math
from typing import ClassVar

from ragpack.config import DEFAULT_DECODER
from ragpack.errors import ConfigError
from ragpack.kv.anchor import ANCHOR
from ragpack.kv.method import KVMethod
from ragpack.kv.recipe import Recipe
from ragpack.kv.recompute import SELECTIONS
from ragpack.models.prompt import INSTRUCTION, SEPARATOR

__all__ = ["KvReuse"]


class KvReuse(KVMethod):
    """Passages in the plain prompt's order, partly encoded again.

    Args:
        model: the decoder's name or path.
        recompute: fraction of the passages' tokens to encode again, 0 to 1; a whole number above 1
            is the tokens of each passage.
        selection: the rule that picks them: ``"first"``, ``"deviation"`` or ``"attended"``.
        anchor: encode every passage behind neutral ones, see ``ragpack.kv.anchor``.
        instruction: the decoder's instruction; it is part of the shared prefix.
        dtype: of the stored keys and values: ``"bf16"``, ``"f16"``, ``"f32"`` or ``"i8"``.
        device: where passages are encoded; a GPU where there is one.

    Raises:
        ConfigError: a setting is out of its range.
    """

    name: ClassVar[str] = "kv-reuse"

    def __init__(
        self,
        model: str = DEFAULT_DECODER,
        *,
        recompute: float = 0.15,
        selection: str = "attended",
        anchor: bool = True,
        instruction: str = INSTRUCTION,
        dtype: str = "bf16",
        device: str | None = None,
    ) -> None:
        if not (math.isfinite(recompute) and recompute >= 0):
            raise ConfigError(f"recompute must be a number from 0 up, not {recompute}")
        if recompute > 1 and recompute != int(recompute):
            raise ConfigError(f"recompute above 1 is a number of tokens, not {recompute}")
        if selection not in SELECTIONS:
            known = ", ".join(SELECTIONS)
            raise ConfigError(f"selection must be one of {known}, not {selection!r}")
        text = SEPARATOR.join([*ANCHOR, ""]) if anchor else ""
        super().__init__(model, instruction, text, dtype, device)
        self.recompute = recompute
        self.selection = selection

    def recipe(self) -> Recipe:
        """One after another, with the dial's setting."""
        return Recipe(
            self.weights,
            self.encoder.prefix_ids,
            self.encoder.anchor_ids,
            parallel=False,
            recompute=self.recompute,
            selection=self.selection,
        )
