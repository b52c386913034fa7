"""recomp-mini: RECOMP's extractive compressor with an encoder trained for it.

:class:`~ragpack.compressors.recomp_extractive.RecompExtractive` on all-MiniLM-L6-v2 with low-rank
updates (``ragpack.train.recomp_mini``), after the paper's own training. What is stored stays
independent of the query: sentence vectors, encoded under their passage's title.
"""

from functools import cached_property
from pathlib import Path
from typing import ClassVar

from ragpack import models
from ragpack.compressors.recomp_extractive import RecompExtractive
from ragpack.config import DEFAULT_ENCODER
from ragpack.models import SHIPPED_ADAPTER
from ragpack.protocols import TextEncoder

__all__ = ["RecompMini"]


class RecompMini(RecompExtractive):
    """The sentences nearest to the query, by an encoder that was trained to find them.

    Args:
        adapter: a folder written by ``ragpack train recomp-mini``; the shipped one unless given.
        encoder: one that is loaded already, in place of ``adapter``.
        ranking: see :class:`RecompExtractive`, as for the other settings.
        top_n: most sentences to keep over all passages.
        threshold: least dot product of a sentence to keep.
        language: ISO 639 code for the sentence splitter.
    """

    name: ClassVar[str] = "recomp-mini"

    def __init__(
        self,
        *,
        adapter: str | Path | None = None,
        encoder: TextEncoder | None = None,
        ranking: bool = True,
        top_n: int | None = None,
        threshold: float | None = None,
        language: str = "en",
    ) -> None:
        super().__init__(ranking=ranking, top_n=top_n, threshold=threshold, language=language)
        self._adapter = SHIPPED_ADAPTER if adapter is None else Path(adapter)
        self._given = encoder

    @cached_property
    def encoder(self) -> TextEncoder:
        """all-MiniLM-L6-v2 with the adapter; loaded on first use."""
        return self._given or models.load_encoder(DEFAULT_ENCODER, adapter=self._adapter)
