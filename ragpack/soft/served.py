"""The decoder's side of methods whose soft tokens stand for a passage as a whole."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from transformers import AutoTokenizer

from ragpack.errors import CompressionError, ConfigError
from ragpack.models import checkpoint_folder, resolve, tokenizer_digest, weights_digest
from ragpack.models.embeddings import input_embeddings
from ragpack.models.prompt import INSTRUCTION, SEPARATOR
from ragpack.models.prompt_tokens import PromptTokenizer
from ragpack.soft.chunks import NO_TOKEN
from ragpack.soft.placed import PlacedChunks, SoftRecipe
from ragpack.soft.spend import affordable

__all__ = ["ServedDecoder", "require_finite"]


class ServedDecoder:
    """A decoder that is served as it is, and the place of soft tokens in its prompt.

    Args:
        name: a local path, a model package or a hub id, see :func:`ragpack.models.resolve`.
    """

    def __init__(self, name: str) -> None:
        self.name = name

    @cached_property
    def folder(self) -> Path:
        """The decoder's files."""
        return checkpoint_folder(resolve(self.name))

    @cached_property
    def width(self) -> int:
        """Hidden size h."""
        return int(input_embeddings(self.folder).shape[1])

    @cached_property
    def separator(self) -> list[int]:
        """The tokens behind a passage."""
        tokenizer = AutoTokenizer.from_pretrained(self.folder, local_files_only=True)
        return PromptTokenizer(tokenizer, INSTRUCTION).encode_before_text(SEPARATOR)

    def recipe(self, digest: str, width: int, source: str) -> SoftRecipe:
        """Whose soft tokens these are.

        Args:
            digest: of what makes them.
            width: of what it makes.
            source: its name.

        Raises:
            ConfigError: the decoder has another hidden size.
        """
        if width != self.width:
            raise ConfigError(
                f"{source} makes soft tokens of width {width}, and {self.name} has a hidden size "
                f"of {self.width}"
            )
        return SoftRecipe(
            projector=digest,
            decoder=resolve(self.name).name,
            weights=weights_digest(self.folder),
            tokenizer=tokenizer_digest(self.folder),
            width=width,
        )

    def fits(self, counts: Sequence[int], rows: int | None) -> list[bool]:
        """Which passages, of ``counts`` soft tokens each, fit into ``rows`` with their separators.

        All of them do where ``rows`` is None.
        """
        taken = [count + len(self.separator) if count else 0 for count in counts]
        fits: list[bool] = affordable(taken, rows).tolist()
        return fits

    def placed(self, rows: NDArray[np.float32], recipe: SoftRecipe) -> PlacedChunks:
        """Soft tokens ``rows`` [n, h] of a passage, behind them the separator as tokens."""
        count, some = len(rows), int(len(rows) > 0)
        token_ids = np.full((count + some, len(self.separator)), NO_TOKEN, dtype=np.int32)
        token_ids[count:] = self.separator
        return PlacedChunks(
            np.zeros((count + some, 0), dtype=np.float32),
            token_ids=token_ids,
            expanded=np.arange(count + some) >= count,
            rows=rows,
            recipe=recipe,
        )


def require_finite(vectors: NDArray[Any]) -> None:
    """Refuse stored vectors that no decoder could read.

    Raises:
        CompressionError: one is not finite.
    """
    if not np.isfinite(vectors).all():
        raise CompressionError("a stored vector is not finite: index the passages again")
