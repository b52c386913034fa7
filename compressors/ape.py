"""APE: adaptive parallel encoding of passages that share positions.

Source: Yang, Chen, Chen, "APE: Faster and Longer Context-Augmented Generation via Adaptive Parallel
Encoding", ICLR 2025, equation 5 and appendix C.4. Passages are encoded side by side behind a shared
prefix; the query attends to them as one group whose logits are divided by a temperature and whose
share of the softmax is raised to a power, the scale. Both 1 is plain parallel encoding.
"""

from __future__ import annotations

import math
from typing import ClassVar

from ragpack.config import DEFAULT_DECODER
from ragpack.errors import ConfigError
from ragpack.kv.method import KVMethod
from ragpack.kv.recipe import Recipe
from ragpack.models.prompt import INSTRUCTION

__all__ = ["Ape"]


class Ape(KVMethod):
    """Passages side by side, none of which sees another; nothing is computed but the query.

    Args:
        model: the decoder's name or path.
        temperature: T, above 0; below 1 the query looks at the contexts more sharply.
        scale: S, above 0; the paper searches both per task from 0.1 to 1.
        instruction: the decoder's instruction; it is part of the shared prefix.
        dtype: of the stored keys and values: ``"bf16"``, ``"f16"``, ``"f32"`` or ``"i8"``.
        device: where passages are encoded; a GPU where there is one.

    Raises:
        ConfigError: a setting is out of its range.
    """

    name: ClassVar[str] = "ape"

    def __init__(
        self,
        model: str = DEFAULT_DECODER,
        *,
        temperature: float = 0.9,
        scale: float = 1.0,
        instruction: str = INSTRUCTION,
        dtype: str = "bf16",
        device: str | None = None,
    ) -> None:
        for name, value in (("temperature", temperature), ("scale", scale)):
            if not (math.isfinite(value) and value > 0):
                raise ConfigError(f"{name} must be a number above 0, not {value}")
        super().__init__(model, instruction, "", dtype, device)
        self.temperature = temperature
        self.scale = scale

    def recipe(self) -> Recipe:
        """Side by side, with temperature and scale."""
        return Recipe(
            self.weights,
            self.encoder.prefix_ids,
            self.encoder.anchor_ids,
            parallel=True,
            temperature=self.temperature,
            scale=self.scale,
        )
