"""A passage cut into chunks of k decoder tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ragpack.types import Span

__all__ = ["NO_TOKEN", "Chunks", "cut", "places", "sizes", "tokens_of"]

NO_TOKEN = -1
"""Fills a chunk that is shorter than k: a chunk never straddles passages."""


@dataclass(frozen=True, slots=True)
class Chunks:
    """Chunks of one passage in order.

    ``token_ids`` [n, k] are decoder tokens, :data:`NO_TOKEN` behind a short tail; ``texts`` the
    characters that the tokens stand for. Where a chunk ends inside a character, both neighbours
    have it.
    """

    token_ids: NDArray[np.int32]
    texts: list[str]


def cut(text: str, tokens: Sequence[tuple[int, Span]], k: int) -> Chunks:
    """``tokens`` of ``text`` in chunks of ``k``, the last one as long as it comes."""
    starts = range(0, len(tokens), k)
    token_ids = np.full((len(starts), k), NO_TOKEN, dtype=np.int32)
    texts = []
    for row, start in enumerate(starts):
        chunk = tokens[start : start + k]
        token_ids[row, : len(chunk)] = [token for token, _ in chunk]
        texts.append(text[chunk[0][1][0] : chunk[-1][1][1]])
    return Chunks(token_ids, texts)


def places(token_ids: NDArray[np.int32], expanded: NDArray[np.bool_]) -> list[int]:
    """The tokens of the chunks that are ``expanded`` [n], and for each other one a NO_TOKEN."""
    found: list[int] = []
    for chunk, spelled_out in zip(token_ids, expanded, strict=True):
        found += tokens_of(chunk) if spelled_out else [NO_TOKEN]
    return found


def sizes(token_ids: NDArray[np.int32]) -> NDArray[np.int64]:
    """Tokens of each chunk [n]."""
    counts: NDArray[np.int64] = (token_ids != NO_TOKEN).sum(axis=1)
    return counts


def tokens_of(token_ids: NDArray[np.int32]) -> list[int]:
    """The tokens of chunks [..., k] in order, without the filling."""
    flat: list[int] = token_ids[token_ids != NO_TOKEN].tolist()
    return flat
