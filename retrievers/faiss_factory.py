"""FAISS indexes of any kind: made from a factory string, trained on a sample, tuned for searching.

Factory strings are FAISS's own (``Flat``, ``IVF4096,SQ8``, ``HNSW32``, ``PCA128,SQfp16``), see its
page "The index factory".
"""

from collections.abc import Sequence
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from ragpack.errors import ConfigError, RetrievalError
from ragpack.text import plural

__all__ = ["make_index", "train", "training_rows", "tune"]

_SAMPLE = 65_536
_PER_LIST = 64
_SEED = 0


def make_index(dim: int, factory: str) -> faiss.Index:
    """An empty index over inner products.

    Raises:
        ConfigError: ``factory`` is no factory string.
    """
    try:
        return faiss.index_factory(dim, factory, faiss.METRIC_INNER_PRODUCT)
    except RuntimeError as error:
        raise ConfigError(
            f"{factory!r} is no FAISS index factory string for {dim} dimensions; examples: "
            "Flat, HNSW32, SQ8, 'IVF256,Flat', 'PCA128,SQfp16'"
        ) from error


def training_rows(index: faiss.Index) -> int:
    """How many vectors ``index`` is trained on at most: enough for each of its lists."""
    inverted = faiss.try_extract_index_ivf(index)
    return max(_SAMPLE, 0 if inverted is None else _PER_LIST * inverted.nlist)


def train(index: faiss.Index, factory: str, waiting: Sequence[NDArray[np.float32]]) -> None:
    """Train on a sample of the ``waiting`` vectors [n, d] each, drawn with a fixed seed; add all.

    Raises:
        RetrievalError: they are too few.
    """
    vectors = np.concatenate(waiting)
    sample = vectors
    if len(vectors) > (most := training_rows(index)):
        rows = np.random.default_rng(_SEED).choice(len(vectors), most, replace=False)
        sample = vectors[np.sort(rows)]
    try:
        _train(index, sample)
    except RuntimeError as error:
        raise RetrievalError(
            f"the FAISS index {factory!r} cannot be trained on {plural(len(vectors), 'passage')}: "
            f"add more, or take 'Flat' ({error})"
        ) from error
    index.add(vectors)


def _train(index: faiss.Index, sample: NDArray[np.float32]) -> None:
    """Train, each part on what it will be given.

    FAISS's PCA also moves the vectors to their mean. Distances do not mind, inner products do: of
    the ten nearest an index then finds one in ten less, even with all dimensions kept.
    """
    rows, inner = sample, faiss.downcast_index(index)
    if isinstance(inner, faiss.IndexPreTransform):
        chain: Any = inner.chain
        for number in range(chain.size()):
            step = faiss.downcast_VectorTransform(chain.at(number))
            step.train(rows)
            if isinstance(step, faiss.PCAMatrix):
                step.b.clear()
                step.have_bias = False
            rows = step.apply(rows)
        inner.index.train(rows)
        inner.is_trained = True
    else:
        index.train(rows)


def tune(index: faiss.Index, settings: str) -> None:
    """Set what a search spends, in FAISS's notation: ``nprobe=16``, ``efSearch=64``.

    Raises:
        ConfigError: the index has no such setting.
    """
    space: Any = faiss.ParameterSpace()
    try:
        space.set_index_parameters(index, settings)
    except RuntimeError as error:
        raise ConfigError(
            f"this FAISS index cannot be searched with {settings!r}; IVF indexes take "
            "nprobe=NUMBER, HNSW indexes efSearch=NUMBER, several are joined by commas"
        ) from error
