"""From chunks to chunk vectors: what they mean, and which tokens they hold."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ragpack.protocols import TextEncoder
from ragpack.soft.chunks import Chunks
from ragpack.text import model_text

__all__ = ["ChunkEncoder"]


class ChunkEncoder:
    """A text encoder's vector beside a bag of the decoder's own token embeddings.

    REFRAG trains encoder and decoder together until the decoder can read the encoder's vectors. A
    frozen decoder has no such time, so half of the vector is in its own language already: the sum
    of its embeddings of the chunk's tokens, each weighted by how rare it is. Both halves have unit
    length, so a cosine of two vectors is the mean of a semantic and a lexical one.

    Args:
        text: the text encoder, such as all-MiniLM-L6-v2.
        table: the decoder's input embeddings [vocabulary, h].
        rarity: weight of each token [vocabulary].
    """

    def __init__(self, text: TextEncoder, table: Tensor, rarity: Tensor) -> None:
        self._text = text
        self._table = table
        self._rarity = rarity.float()

    @property
    def width(self) -> int:
        """Width d of a chunk vector."""
        return self._text.dim + self._table.shape[1]

    def encode(self, passages: Sequence[Chunks]) -> NDArray[np.float32]:
        """Vectors [chunks of all passages, d], in order."""
        texts = [model_text(text) for passage in passages for text in passage.texts]
        if not texts:
            return np.zeros((0, self.width), dtype=np.float32)
        meaning = _unit(self._text.encode(texts))
        bags = np.concatenate([self._bags(passage.token_ids) for passage in passages])
        return np.concatenate([meaning, _unit(bags)], axis=1)

    def encode_one(self, chunks: Chunks) -> NDArray[np.float32]:
        """The vector [d] of a text as a whole, such as a query; its chunks count as one."""
        meaning = _unit(self._text.encode([model_text(" ".join(chunks.texts))]))
        bag = self._bags(chunks.token_ids.reshape(1, -1))
        vector: NDArray[np.float32] = np.concatenate([meaning, _unit(bag)], axis=1)[0]
        return vector

    def _bags(self, token_ids: NDArray[np.int32]) -> NDArray[np.float32]:
        """Weighted sums [n, h] of the embeddings of ``token_ids`` [n, k]."""
        ids = torch.from_numpy(token_ids).long()
        weights = self._rarity[ids.clamp(min=0)] * (ids >= 0)
        with torch.inference_mode():
            bags = torch.einsum("nk,nkh->nh", weights, self._table[ids.clamp(min=0)])
        found: NDArray[np.float32] = bags.numpy()
        return found


def _unit(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    """``rows`` at length one; a row of zeros stays one."""
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    unit: NDArray[np.float32] = rows / np.maximum(lengths, np.finfo(np.float32).tiny)
    return unit
