"""The learned policy: a small transformer over a request's chunk vectors and its query."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import normalize

from ragpack.soft.sense import LossKind, Scene

__all__ = ["Learned", "PolicyNet"]

_HEADS = 4
_WINDOW = 5
"""Chunks that one sees before the transformer: itself, and two on either side."""


class PolicyNet(nn.Module):
    """Two transformer layers over the chunks, which see one another, and the query.

    REFRAG's policy reads chunk vectors alone, so it cannot know what is asked. Here the query
    stands as one more row, each chunk comes with its product with the query, and the chunk's cosine
    is added to its logit with a trained weight: an untrained net ranks as ``query-cosine`` does.
    What answers a question most often stands near the words that it repeats, so a convolution shows
    each chunk its neighbours.

    Args:
        chunk_width: width d of chunk and query vectors.
        width: of the transformer.
    """

    def __init__(self, chunk_width: int, width: int = 128) -> None:
        super().__init__()
        self.width = width
        self.chunk = nn.Linear(2 * chunk_width, width)
        self.query = nn.Linear(chunk_width, width)
        self.near = nn.Conv1d(width, width, _WINDOW, padding=_WINDOW // 2)
        layer = nn.TransformerEncoderLayer(
            width, _HEADS, 2 * width, dropout=0.0, batch_first=True, norm_first=True
        )
        self.layers = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.logit = nn.Linear(width, 1)
        self.cosine = nn.Parameter(torch.tensor(5.0))
        nn.init.zeros_(self.logit.weight)
        nn.init.zeros_(self.logit.bias)

    def forward(self, vectors: Tensor, query: Tensor) -> Tensor:
        """Logits [n] of the chunks ``vectors`` [n, d] under ``query`` [d]."""
        vectors, query = normalize(vectors, dim=-1), normalize(query, dim=-1)
        products = vectors * query
        chunks = self.chunk(torch.cat([vectors, products * len(query) ** 0.5], dim=-1))
        chunks = chunks + self.near(chunks.T[None])[0].T
        rows = torch.cat([self.query(query)[None], chunks])
        seen = self.layers(rows[None])[0, 1:]
        logits: Tensor = self.logit(seen)[:, 0] + self.cosine * products.sum(-1)
        return logits


class Learned:
    """The policy that a checkpoint brings."""

    losses: LossKind = "none"
    reads_query = True

    def __init__(self, net: PolicyNet) -> None:
        self._net = net.eval()

    def scores(self, scene: Scene) -> NDArray[np.float32]:
        """The net's logits."""
        if scene.query is None:
            raise ValueError("a policy that reads the query was given none")
        with torch.inference_mode():
            logits = self._net(torch.from_numpy(scene.vectors), torch.from_numpy(scene.query))
        found: NDArray[np.float32] = logits.numpy()
        return found
