"""Removes rows from a FAISS index of any kind, and closes the gaps."""

from collections.abc import Sequence
from typing import Any

import faiss
import numpy as np

__all__ = ["keep_rows"]


def keep_rows(index: Any, rows: Sequence[int]) -> None:
    """Leave only ``rows`` (ascending) in ``index``, numbered anew from 0.

    FAISS cannot remove from every kind, and numbers what is left in different ways. So the vectors
    are read back as the index holds them and added again; what it has learnt in training stays.
    """
    inverted = faiss.try_extract_index_ivf(index)
    if inverted is not None:
        inverted.make_direct_map()
    vectors = index.reconstruct_batch(np.asarray(rows, dtype=np.int64))
    index.reset()
    if inverted is not None:
        inverted.make_direct_map(False)
    index.add(vectors)
