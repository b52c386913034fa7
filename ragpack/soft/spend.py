"""Which chunks to spell out: the best by a policy's scores, under a share or a number of rows."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

__all__ = ["affordable", "best"]


def affordable(chunks: Sequence[int], rows: int | None) -> NDArray[np.bool_]:
    """Which passages, of ``chunks`` soft tokens each, fit into ``rows``; the first come first.

    All of them do where ``rows`` is None.
    """
    if rows is None:
        return np.ones(len(chunks), dtype=bool)
    kept = np.zeros(len(chunks), dtype=bool)
    for place, count in enumerate(chunks):
        kept[place] = count <= rows
        rows -= count if kept[place] else 0
    return kept


def best(
    scores: NDArray[np.float32],
    sizes: NDArray[np.int64],
    share: float,
    rows: int | None = None,
) -> NDArray[np.bool_]:
    """The chunks [n] to spell out, taken by falling score (ties in order).

    Args:
        scores: of each chunk [n]; minus infinity is never taken.
        sizes: tokens of each chunk [n].
        share: most chunks to take, as a fraction of all.
        rows: most rows that spelling out may add; a chunk of s tokens adds s - 1.
    """
    chosen = np.zeros(len(scores), dtype=bool)
    left = round(share * len(scores))
    for chunk in np.argsort(-scores, kind="stable"):
        added = int(sizes[chunk]) - 1
        if left == 0 or scores[chunk] == -np.inf:
            break
        if rows is not None:
            if added > rows:
                continue
            rows -= added
        chosen[chunk] = True
        left -= 1
    return chosen
